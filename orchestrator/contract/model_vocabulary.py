"""The vocabulary of a model's tokenizer and the pairs that it merges, and whether the text encoder knows all tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.contract.model_file import model_problem
from orchestrator.contract.model_fit import TextEncoder
from orchestrator.contract.model_layout import TOKENIZER_FILES, Names, names_in
from orchestrator.contract.problem import Problem

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
ADDED_BY_NUMBER = "added_tokens_decoder"
"""Field of `tokenizer_config.json` with all added tokens; the older files beside it are then not read."""
_SPECIAL_TOKEN_FILES = ("tokenizer_config.json", "special_tokens_map.json")
_HEADER = "#version"  # begins the first line of a `merges.txt`
BOTH = "take both of one model"
"""What mends two parts that do not fit together."""

Objects = Mapping[str, dict[str, Any]]
"""Name of a model's JSON file to what it holds."""
Merges = list[tuple[str, str]]
"""Pairs of pieces that are joined, the most frequent first."""


def tokenizer_file_problems(tokenizer: str, names: Names) -> Iterator[Problem]:
    """Yield which file a tokenizer lacks beside the one that every tokenizer has."""
    inside = names_in(tokenizer, names)
    has_merges = "merges.txt" in inside or "tokenizer.json" in inside
    if "vocab.json" in inside and not has_merges:
        yield model_problem(f"{tokenizer}/ has vocab.json without merges.txt")


def vocabulary_problems(tokenizer: str, objects: Objects, texts: Mapping[str, str]) -> Iterator[Problem]:
    """Yield why the vocabulary of a tokenizer cannot be read, or else the pairs that it merges."""
    is_there = any(f"{tokenizer}/{file}" in objects for file in TOKENIZER_FILES)
    if is_there and not _numbered_tokens(tokenizer, objects):
        what = f"{tokenizer}/ has a vocabulary that is no list of tokens with their numbers"
        yield model_problem(what)
        return
    yield from _merge_problems(tokenizer, objects, texts)


def number_problems(
    tokenizer: str,
    objects: Objects,
    encoder: TextEncoder,
    fix: str = BOTH,
) -> Iterator[Problem]:
    """Yield why a text encoder cannot take the tokens of its tokenizer."""
    tokens = _numbered_tokens(tokenizer, objects)
    if not tokens:  # missing or damaged, which is reported
        return
    special = _special_tokens(tokenizer, objects)
    unnumbered = special.difference(tokens)  # they get the numbers after the highest
    numbers = tokens.values()
    highest = max(numbers) + len(unnumbered)
    known = encoder.config.vocab_size
    if highest >= known:
        what = f"{tokenizer}/ has tokens up to number {highest}, and {encoder.name}/ knows {known}"
        yield model_problem(what, fix)


def _merge_problems(tokenizer: str, objects: Objects, texts: Mapping[str, str]) -> Iterator[Problem]:
    """Yield why the pairs that a tokenizer merges cannot be read, or are of another vocabulary than its own."""
    whole = objects.get(f"{tokenizer}/tokenizer.json")
    text = texts.get(f"{tokenizer}/merges.txt", "")
    pieces = objects.get(f"{tokenizer}/vocab.json", {})
    file = "merges.txt"
    header, _, _ = text.partition("\n")
    if whole is None and _HEADER in header and not header.startswith(_HEADER):  # the library takes it for a pair
        what = f"{tokenizer}/{file} has something before {_HEADER} in its first line"
        yield model_problem(what, f'make "{_HEADER}: 0.2" its first line')
        return
    try:
        if whole is None:
            merges = merges_in_text(text)
        else:
            file = "tokenizer.json"
            pieces = whole["model"]["vocab"]
            merges = merges_in_object(whole)
    except (AttributeError, KeyError, TypeError, ValueError):
        yield model_problem(f"{tokenizer}/{file} does not list which pairs of tokens are merged")
        return
    if not isinstance(pieces, dict) or not pieces:  # damaged or missing, which is reported
        return
    for first, second in merges:
        for piece in (first, second, first + second):
            if piece not in pieces:
                what = f"{tokenizer}/{file} merges {first} and {second}, and the vocabulary has no {piece}"
                yield model_problem(what, BOTH)
                return


def token_problems(tokenizer: str, objects: Objects) -> Iterator[Problem]:
    """Yield the special and the added tokens that are no text."""
    for file in _SPECIAL_TOKEN_FILES:
        name = f"{tokenizer}/{file}"
        values = objects.get(name, {})
        for field in SPECIAL_TOKENS:
            if not _is_token(values.get(field, "")):
                yield model_problem(f"{name}: {field} is no text")
    name = f"{tokenizer}/tokenizer_config.json"
    config = objects.get(name, {})
    numbered = config.get(ADDED_BY_NUMBER, {})
    if not _are_numbered(numbered):
        yield model_problem(f"{name}: {ADDED_BY_NUMBER} is no list of tokens by their numbers")


def merges_in_text(text: str) -> Merges:
    """Return the pairs that a `merges.txt` lists; raises ValueError."""
    merges: Merges = []
    for line in text.splitlines():
        if line.strip() and not line.startswith(_HEADER):
            first, second = line.split()
            merges.append((first, second))
    return merges


def merges_in_object(whole: Mapping[str, Any]) -> Merges:
    """Return the pairs that a `tokenizer.json` lists; raises KeyError, TypeError or ValueError."""
    merges: Merges = []
    for merge in whole["model"]["merges"]:
        pair = merge
        if isinstance(merge, str):
            pair = merge.split(" ")
        first, second = pair
        if not isinstance(first, str) or not isinstance(second, str):
            raise TypeError("a merge that is no text")
        merges.append((first, second))
    return merges


def _is_token(token: object) -> bool:
    """Return whether a special token is a text, an object that holds one, or none."""
    if isinstance(token, dict):
        return isinstance(token.get("content"), str)
    return token is None or isinstance(token, str)


def _are_numbered(numbered: object) -> bool:
    """Return whether added tokens are listed by their numbers."""
    if not isinstance(numbered, dict):
        return False
    for number, token in numbered.items():
        is_number = number.isascii() and number.isdecimal()
        if not is_number or not isinstance(token, dict) or not _is_token(token):
            return False
    return True


def _numbered_tokens(tokenizer: str, objects: Objects) -> dict[str, int]:
    """Return the numbers of all tokens; empty where a file is missing or has another form."""
    try:
        tokens = _tokens(tokenizer, objects)
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    for number in tokens.values():
        if type(number) is not int or number < 0:
            return {}
    return tokens


def _tokens(tokenizer: str, objects: Objects) -> dict[str, int]:
    """Return the numbers of all tokens in all files; raises KeyError or TypeError when a file has another form."""
    tokens: dict[str, int] = {}
    for file in ("vocab.json", "added_tokens.json"):
        tokens |= objects.get(f"{tokenizer}/{file}", {})
    whole = objects.get(f"{tokenizer}/tokenizer.json")
    if whole is None:
        return tokens
    vocabulary = whole["model"]["vocab"]
    tokens |= dict(**vocabulary)
    added_tokens = whole.get("added_tokens") or []
    for added in added_tokens:
        content = added["content"]
        tokens[content] = added["id"]
    return tokens


def _special_tokens(tokenizer: str, objects: Objects) -> set[str]:
    """Return the special tokens that the tokenizer's configuration names."""
    config = objects.get(f"{tokenizer}/tokenizer_config.json", {})
    found = set()
    for name in SPECIAL_TOKENS:
        token = config.get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            found.add(token)
    return found
