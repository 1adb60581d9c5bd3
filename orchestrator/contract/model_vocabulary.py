"""The vocabulary of a model's tokenizer, from its JSON files, and whether the text encoder knows all of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.contract.model_file import model_problem
from orchestrator.contract.model_fit import TextEncoder
from orchestrator.contract.model_layout import TOKENIZER_FILES, Names, names_in
from orchestrator.contract.problem import Problem

_SPECIAL = (
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
)

Objects = Mapping[str, dict[str, Any]]
"""Name of a model's JSON file to what it holds."""


def tokenizer_file_problems(tokenizer: str, names: Names) -> Iterator[Problem]:
    """Yield which file a tokenizer lacks beside the one that every tokenizer has."""
    inside = names_in(tokenizer, names)
    has_merges = "merges.txt" in inside or "tokenizer.json" in inside
    if "vocab.json" in inside and not has_merges:
        yield model_problem(f"{tokenizer}/ has vocab.json without merges.txt")


def vocabulary_problems(tokenizer: str, objects: Objects, encoder: TextEncoder) -> Iterator[Problem]:
    """Yield why a text encoder cannot take the tokens of its tokenizer."""
    is_readable = any(f"{tokenizer}/{file}" in objects for file in TOKENIZER_FILES)
    if not is_readable:
        return
    try:
        tokens = _tokens(tokenizer, objects)
    except (KeyError, TypeError):
        tokens = {}
    numbers = tokens.values()
    are_numbers = all(isinstance(number, int) for number in numbers)
    if not tokens or not are_numbers:
        what = f"{tokenizer}/ has a vocabulary that is no list of tokens with their numbers"
        yield model_problem(what)
        return
    special = _special_tokens(tokenizer, objects)
    unnumbered = special.difference(tokens)  # they get the numbers after the highest
    highest = max(numbers) + len(unnumbered)
    known = encoder.config.vocab_size
    if highest >= known:
        what = f"{tokenizer}/ has tokens up to number {highest}, and {encoder.name}/ knows {known}"
        yield model_problem(what, "take both of one model")


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
    for name in _SPECIAL:
        token = config.get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            found.add(token)
    return found
