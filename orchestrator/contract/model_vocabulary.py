"""The vocabulary of a model's tokenizer, from its JSON files, and whether the text encoder knows all of it."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from orchestrator.contract.model_file import model_problem
from orchestrator.contract.model_fit import TextEncoder
from orchestrator.contract.model_layout import TOKENIZER_FILES, names_in
from orchestrator.contract.problem import Problem

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")

Objects = Mapping[str, dict[str, Any]]
"""Name of a model's JSON file to what it holds."""


def tokenizer_file_problems(tokenizer: str, names: Collection[str]) -> Iterator[Problem]:
    """Yield which file a tokenizer lacks beside the one that every tokenizer has."""
    inside = names_in(tokenizer, names)
    if "vocab.json" in inside and not inside.intersection(("tokenizer.json", "merges.txt")):
        yield model_problem(f"{tokenizer}/ has vocab.json without merges.txt")


def vocabulary_problems(tokenizer: str, objects: Objects, encoder: TextEncoder) -> Iterator[Problem]:
    """Yield why a text encoder cannot take the tokens of its tokenizer."""
    readable = [file for file in TOKENIZER_FILES if f"{tokenizer}/{file}" in objects]
    if not readable:
        return
    try:
        tokens = _tokens(tokenizer, objects)
        highest = max(tokens.values(), default=0)
    except (KeyError, TypeError):
        tokens = {}
    if not tokens or not all(isinstance(number, int) for number in tokens.values()):
        yield model_problem(f"{tokenizer}/ has a vocabulary that is no list of tokens with their numbers")
        return
    # Special tokens without a number get those after the highest.
    highest += len(_special_tokens(tokenizer, objects).difference(tokens))
    known = encoder.config.vocab_size
    if highest >= known:
        what = f"{tokenizer}/ has tokens up to number {highest}, and {encoder.name}/ knows {known}"
        yield model_problem(what, "take both of one model")


def _tokens(tokenizer: str, objects: Objects) -> dict[str, int]:
    """Return the numbers of all tokens in all files; raises KeyError or TypeError when a file has another form."""
    tokens: dict[str, int] = {}
    tokens |= objects.get(f"{tokenizer}/vocab.json", {})
    tokens |= objects.get(f"{tokenizer}/added_tokens.json", {})
    whole = objects.get(f"{tokenizer}/tokenizer.json")
    if whole is not None:
        tokens |= dict(**whole["model"]["vocab"])
        for added in whole.get("added_tokens") or []:
            tokens[added["content"]] = added["id"]
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
