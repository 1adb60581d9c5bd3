"""How a base model reads a text: as tokens. The client and the job bring their own tokenizers to the same rules."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from orchestrator.contract.words import NewWord, composed, occurrences

MARKS = 2
"""Tokens that mark the beginning and the end of a text; a text encoder reads so many fewer of the text itself."""


CLIP_LENGTH = 77
"""Tokens that CLIP's text encoder takes, marks included."""


def length_of(stated: object, places: int) -> int:
    """Return how many tokens a text encoder with so many places takes: as its tokenizer states, if that is not more.

    A tokenizer without a limit states none, or 1e30.
    """
    if not isinstance(stated, int | float):
        return places
    return int(min(stated, places))


class Token(NamedTuple):
    """One token of a text."""

    id: int
    """Its row in the text encoder's table."""
    start: int
    """Where the characters begin that it stands for."""
    end: int
    """Where they end; the tokens of a character that is several bytes have the same places."""


class Tokenizer(Protocol):
    """The tokenizer of one text encoder."""

    @property
    def limit(self) -> int:
        """Tokens of a text that the text encoder takes; those that mark its beginning and its end are not counted."""
        ...

    @property
    def unknown(self) -> int | None:
        """Id of what stands for a text without a token."""
        ...

    def read(self, text: str) -> Sequence[Token]:
        """Return all tokens of a text, however many, without the marks."""
        ...

    def knows(self, token: str) -> bool:
        """Return whether the vocabulary has this token, written as it is there: "dog</w>"."""
        ...


def holds_word(tokenizers: Sequence[Tokenizer], text: str, word: NewWord) -> bool:
    """Return whether `text` holds `word`: as a word of its own, or as the same tokens in a row for each tokenizer.

    CLIP lowers the case and splits digits and signs from letters, so that "SKS2" holds "sks". For a word with vectors
    the tokens that it is spelled with teach nothing: "< my-dog >" is not "<my-dog>".
    """
    if any(occurrences(text, word)):
        return True
    if word.vectors:
        return False
    found = [run_of(tokenizer, text, word.text) is not None for tokenizer in tokenizers]
    return bool(found) and all(found)


def run_of(tokenizer: Tokenizer, text: str, word: str) -> tuple[int, int] | None:
    """Return the characters of a composed `text` that are the same tokens as `word`: first and end; None without."""
    text = composed(text)
    tokens = tokenizer.read(text)
    ids = _ids(tokens)
    wanted = _ids(tokenizer.read(composed(word)))
    if not wanted:
        return None
    for first in range(len(ids) - len(wanted) + 1):
        last = first + len(wanted)
        if ids[first:last] != wanted:
            continue
        begin = tokens[first].start
        # Within another word the same tokens are no word: "sk", "s" end "masks", but "ma" alone is not read as in it.
        if _ids(tokenizer.read(text[:begin])) == ids[:first]:
            return begin, tokens[last - 1].end
    return None


def _ids(tokens: Sequence[Token]) -> list[int]:
    return [token.id for token in tokens]
