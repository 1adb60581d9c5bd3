"""The vocabulary of a model's tokenizer, from its JSON files, and whether the text encoder knows all of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.contract.model_file import AGAIN
from orchestrator.contract.model_fit import BASE_MODEL, TextEncoder
from orchestrator.contract.model_layout import TOKENIZER_FILES
from orchestrator.contract.problem import Problem

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")

Objects = Mapping[str, dict[str, Any]]
"""Name of a model's JSON file to what it holds."""


def tokenizer_file_problems(tokenizer: str, names: set[str]) -> Iterator[Problem]:
    """Yield which file a tokenizer lacks beside the one that every tokenizer has."""
    vocabulary, whole = (f"{tokenizer}/{file}" for file in TOKENIZER_FILES)
    merges = f"{tokenizer}/merges.txt"
    if vocabulary in names and whole not in names and merges not in names:
        yield Problem(where=BASE_MODEL, what=f"{tokenizer}/ has vocab.json without merges.txt", fix=AGAIN)


def vocabulary_problems(tokenizer: str, objects: Objects, encoder: TextEncoder) -> Iterator[Problem]:
    """Yield why a text encoder cannot take the tokens of its tokenizer."""
    fault = f"{tokenizer}/ has a vocabulary that is no list of tokens with their numbers"
    for read in (_vocabulary, _whole_vocabulary):
        try:
            tokens = read(tokenizer, objects)
        except (KeyError, TypeError):
            yield Problem(where=BASE_MODEL, what=fault, fix=AGAIN)
            return
        if tokens is None:
            continue
        if not tokens or not all(type(number) is int and number >= 0 for number in tokens.values()):
            yield Problem(where=BASE_MODEL, what=fault, fix=AGAIN)
            return
        needed = 1 + max(tokens.values()) + len(_special_tokens(tokenizer, objects) - tokens.keys())
        known = encoder.config.vocab_size
        if needed > known:
            what = f"{tokenizer}/ has tokens up to number {needed - 1}, and {encoder.name}/ knows {known}"
            yield Problem(where=BASE_MODEL, what=what, fix="take both of one model")
            return


def _vocabulary(tokenizer: str, objects: Objects) -> dict[str, int] | None:
    """Return the tokens of `vocab.json` and `added_tokens.json`, or None without them."""
    tokens = objects.get(f"{tokenizer}/vocab.json")
    if tokens is None:
        return None
    return tokens | objects.get(f"{tokenizer}/added_tokens.json", {})


def _whole_vocabulary(tokenizer: str, objects: Objects) -> dict[str, int] | None:
    """Return the tokens of `tokenizer.json`, or None without it; raises KeyError or TypeError for another form."""
    whole = objects.get(f"{tokenizer}/tokenizer.json")
    if whole is None:
        return None
    tokens = {**whole["model"]["vocab"]}
    for added in whole.get("added_tokens") or []:
        tokens[added["content"]] = added["id"]
    return tokens


def _special_tokens(tokenizer: str, objects: Objects) -> set[str]:
    """Return the special tokens that the tokenizer's configuration names: those without a number get new ones."""
    config = objects.get(f"{tokenizer}/tokenizer_config.json", {})
    found = set()
    for name in _SPECIAL:
        token = config.get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            found.add(token)
    return found
