"""The vocabulary of a model's tokenizer and the pairs that it merges, and whether the text encoder knows all tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.contract.model_file import AGAIN, ModelFileError, model_problem
from orchestrator.contract.model_fit import TextEncoder
from orchestrator.contract.model_layout import TOKENIZER_FILES, Names, names_in
from orchestrator.contract.problem import Problem

SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
)
"""Fields of a tokenizer's configuration that hold a token."""
ADDED_BY_NUMBER = "added_tokens_decoder"
"""Field of `tokenizer_config.json` with all added tokens; the older files beside it are then not read."""
_SPECIAL_TOKEN_FILES = ("tokenizer_config.json", "special_tokens_map.json")
BOTH = "take both of one model"
"""What to do when a vocabulary and what reads its tokens do not fit."""
_HEADER = "#version"
"""What the line of a `merges.txt` that lists no pair begins with."""
_BYTE_ORDER_MARK = "\ufeff"

Objects = Mapping[str, dict[str, Any]]
"""Name of a model's JSON file to what it holds."""
Merges = list[tuple[str, str]]
"""Pairs of pieces that are joined, the most frequent first."""


def tokenizer_file_problems(tokenizer: str, names: Names) -> Iterator[Problem]:
    """Yield which file a tokenizer lacks beside the one that every tokenizer has."""
    inside = names_in(tokenizer, names)
    has_merges = not inside.isdisjoint(("merges.txt", "tokenizer.json"))
    if "vocab.json" in inside and not has_merges:
        yield model_problem(f"{tokenizer}/ has vocab.json without merges.txt")


def tokenizer_problems(tokenizer: str, objects: Objects, texts: Mapping[str, str]) -> Iterator[Problem]:
    """Yield why the vocabulary of a tokenizer cannot be used; only for one that can, why the pairs it merges cannot."""
    files = {f"{tokenizer}/{file}" for file in TOKENIZER_FILES}
    is_readable = not files.isdisjoint(objects)
    if is_readable and not _tokens(tokenizer, objects):
        what = f"{tokenizer}/ has a vocabulary that is no list of tokens with their numbers"
        yield model_problem(what)
        return
    yield from _merge_problems(tokenizer, objects, texts)


def embedding_problems(
    tokenizer: str,
    objects: Objects,
    encoder: TextEncoder,
    fix: str = BOTH,
) -> Iterator[Problem]:
    """Yield why a text encoder cannot take all tokens of its tokenizer.

    It has a row for each token up to `vocab_size`; a token with a higher number would fail in the middle of a run.
    `fix` is what the problem says to do.
    """
    tokens = _tokens(tokenizer, objects)
    if not tokens:  # missing or no vocabulary, which is reported
        return
    special = _special_tokens(tokenizer, objects)
    unnumbered = special.difference(tokens)  # they get the numbers after the highest
    highest = max(tokens.values()) + len(unnumbered)
    known = encoder.config.vocab_size
    if highest >= known:
        what = f"{tokenizer}/ has tokens up to number {highest}, and {encoder.name}/ knows {known}"
        yield model_problem(what, fix)


def _merge_problems(tokenizer: str, objects: Objects, texts: Mapping[str, str]) -> Iterator[Problem]:
    """Yield why the pairs that a tokenizer merges cannot be read, or are of another vocabulary than its own."""
    file = f"{tokenizer}/merges.txt"
    whole_file = f"{tokenizer}/tokenizer.json"
    text = texts.get(file, "")
    whole = objects.get(whole_file)
    pieces = objects.get(f"{tokenizer}/vocab.json", {})
    try:
        if whole is None:
            merges = merges_in_text(text)
        else:
            file = whole_file
            pieces = whole["model"]["vocab"]
            merges = merges_in_object(whole)
    except ModelFileError as error:
        yield model_problem(f"{file} {error.what}", error.fix)
        return
    except (AttributeError, KeyError, TypeError, ValueError):
        yield model_problem(f"{file} does not list which pairs of tokens are merged")
        return
    if not pieces:  # damaged or missing, which is reported
        return
    for first, second in merges:
        joined = first + second
        for piece in (first, second, joined):
            if piece not in pieces:
                what = f"{file} merges {first} and {second}, and the vocabulary has no {piece}"
                yield model_problem(what, BOTH)
                return


def token_problems(tokenizer: str, objects: Objects) -> Iterator[Problem]:
    """Yield the special and the added tokens that are no text."""
    for file in _SPECIAL_TOKEN_FILES:
        name = f"{tokenizer}/{file}"
        values = objects.get(name, {})
        for field in SPECIAL_TOKENS:
            token = values.get(field)
            if not _is_token(token):
                yield model_problem(f"{name}: {field} is no text")
    name = f"{tokenizer}/tokenizer_config.json"
    config = objects.get(name, {})
    numbered = config.get(ADDED_BY_NUMBER, {})
    if not _are_numbered(numbered):
        yield model_problem(f"{name}: {ADDED_BY_NUMBER} is no list of tokens by their numbers")


def merges_in_text(text: str) -> Merges:
    """Return the pairs that a `merges.txt` lists; raises ModelFileError for a line that training does not read.

    Each line is two pieces with one space between them; lines that begin with "#version" are skipped.
    """
    if text.startswith(_BYTE_ORDER_MARK):
        what = "begins with a byte order mark, which is read as a token"
        raise ModelFileError(what, f"save it without, or {AGAIN}")
    lines = text.split("\n")
    first_line = lines[0]
    if _HEADER in first_line and not first_line.startswith(_HEADER):
        what = f"has a header that is read as tokens, because it does not begin with {_HEADER}"
        raise ModelFileError(what, f'write "{_HEADER}: 0.2" as its first line instead')
    if not lines[-1]:
        lines.pop()
    merges: Merges = []
    for number, line in enumerate(lines, start=1):
        if line.startswith(_HEADER):
            continue
        try:
            first, second = line.removesuffix("\r").split(" ")
        except ValueError as error:
            what = f"does not list which pairs of tokens are merged: line {number} is not two tokens and one space"
            raise ModelFileError(what, f"mend the line, or {AGAIN}") from error
        merges.append((first, second))
    return merges


def merges_in_object(whole: Mapping[str, Any]) -> Merges:
    """Return the pairs that a `tokenizer.json` lists; raises KeyError, TypeError or ValueError.

    Newer files list each pair as two texts, older ones as one text with a space.
    """
    merges: Merges = []
    listed = whole["model"]["merges"]
    for merge in listed:
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
        is_token = isinstance(token, dict) and _is_token(token)
        if not is_number or not is_token:
            return False
    return True


def _tokens(tokenizer: str, objects: Objects) -> dict[str, int]:
    """Return the numbers of all tokens in all files; empty when these are no list of tokens with their numbers."""
    try:
        tokens = _listed_tokens(tokenizer, objects)
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    for number in tokens.values():
        if type(number) is not int or number < 0:
            return {}
    return tokens


def _listed_tokens(tokenizer: str, objects: Objects) -> dict[str, int]:
    """Return the numbers of all tokens in all files; raises KeyError or TypeError when a file has another form."""
    tokens: dict[str, int] = {}
    for file in ("vocab.json", "added_tokens.json"):
        name = f"{tokenizer}/{file}"
        tokens |= objects.get(name, {})
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
