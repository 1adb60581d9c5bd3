"""How words are found in prompts and captions: one rule for the client and for training."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

NOT_ONE_WORD = "is not one word"
_ARTICLES = {"a", "an", "the"}
DETERMINERS = {
    *_ARTICLES,
    "my",
    "our",
    "your",
    "his",
    "her",
    "its",
    "their",
    "this",
    "that",
    "these",
    "those",
}
_VOWELS = ("a", "e", "i", "o", "u")
_SEPARATORS = " ,.;:-\u2013\u2014"
_POSSESSIVE = r"(?:['\u2019]s(?!\w))?"
_OPENING = r"(\[{<*`|\"'\u201c\u00ab"
_CLOSING = r")\]}>*`|\"'\u201d\u00bb"
_GAP = "\0"
"""Marks where a word stood, until the signs around it are gone."""
_ENCLOSED = re.compile(rf"[{_OPENING}]\s*{_GAP}\s*[{_CLOSING}]")


class NewWord(NamedTuple):
    """The word that a recipe teaches."""

    text: str
    """As it stands in prompts."""
    vectors: int = 0
    """Tokens of its own that are added for it; 0 for a word that is written with the model's tokens."""


def composed(text: str) -> str:
    """Return a text in Unicode's composed form (NFC), as CLIP reads it: the same letter is the same characters.

    Names of files are compared in it too: macOS decomposes accents, editors compose them.
    """
    return unicodedata.normalize("NFC", text)


def occurrences(text: str, word: NewWord) -> Iterator[re.Match[str]]:
    """Yield where the composed `text` holds `word`, in any case.

    A word with tokens of its own is read anywhere, as in "<dog>s"; "<dog>_1" is the second of these tokens alone.
    Another word is one with no letter or digit right beside it.
    """
    return _pattern_of_new(word).finditer(composed(text))


def holds_word(text: str, word: str) -> bool:
    """Return whether `text` holds `word`: "Sks, a toy" holds "sks", because models read small letters alone."""
    return any(occurrences(text, NewWord(word)))


def with_word(text: str, word: NewWord) -> str:
    """Return `text` with `word` written as it is here wherever it is held: "A <Dog>" becomes "A <dog>"."""
    return _pattern_of_new(word).sub(lambda _: word.text, composed(text))


def words_around(text: str, word: str) -> tuple[list[str], list[str]]:
    """Return the words before the first `word` of `text`, and those after it without any further `word`.

    Signs that only set the word apart go with it. Raises ValueError when `word` is not there.
    """
    before, *others = _pieces(text, word)
    after = "".join(others)
    return before.split(), after.lstrip(_SEPARATORS).split()


def without_word(text: str, word: str) -> str:
    """Return `text` without `word`, and without an article that then stands before another: "a sks, a toy" is "a toy".

    Raises ValueError when `word` is not there.
    """
    before, *others = _pieces(text, word)
    after = others[0].lstrip(_SEPARATORS)
    joined = _joined(before, after)
    for later in others[1:]:
        after = later.lstrip(" -")
        joined = _joined(joined, after)
    joined = " ".join(joined.split())
    if not after:
        joined = joined.rstrip(_SEPARATORS)
    return joined


def with_article(noun: str) -> str:
    """Return a noun as it stands in a caption, "a dog" or "an owl"; one with an article of its own stays as it is."""
    first_word, _, _ = noun.lower().partition(" ")
    if first_word in DETERMINERS:
        return noun
    article = "an" if first_word.startswith(_VOWELS) else "a"
    return f"{article} {noun}"


def _joined(before: str, after: str) -> str:
    """Return what was before a word and what was after it as one text, with one article where two meet."""
    if after.startswith(tuple(_SEPARATORS)):
        return f"{before.rstrip()}{after}"
    words_before = before.split()
    words_after = after.split()
    if words_before and words_after and is_article(words_before[-1]) and is_article(words_after[0]):
        before = before.rstrip().removesuffix(words_before[-1])
    if before and before[-1].isalnum():
        before = f"{before} "
    return f"{before}{after}"


def _pieces(text: str, word: str) -> list[str]:
    """Return what is before, between and after the places of `word` in `text`, without the signs that set it apart.

    Those are a pair of brackets or quotes around it, and a possessive "'s". Raises ValueError when `word` is not there.
    """
    if not holds_word(text, word):
        raise ValueError(f'"{text}" does not hold "{word}"')
    pattern = _pattern_of(word, ending=_POSSESSIVE)
    marked = pattern.sub(_GAP, composed(text))
    marked = _ENCLOSED.sub(_GAP, marked)
    return marked.split(_GAP)


def is_article(word: str) -> bool:
    """Return whether a word is an English article."""
    return word.lower() in _ARTICLES


def _pattern_of_new(word: NewWord) -> re.Pattern[str]:
    """Return what finds a new word in composed text as a tokenizer reads it, in any case."""
    if not word.vectors:
        return _pattern_of(word.text)
    escaped = re.escape(composed(word.text))
    return re.compile(rf"{escaped}(?!_\d)", re.IGNORECASE)


def _pattern_of(word: str, ending: str = "") -> re.Pattern[str]:
    """Return what finds a word in composed text, in any case, with no letter or digit right beside it."""
    escaped = re.escape(composed(word))
    return re.compile(rf"(?<!\w){escaped}(?!\w){ending}", re.IGNORECASE)


def _one_word(value: str) -> str:
    if value.split() != [value]:
        raise ValueError(f'"{value}" {NOT_ONE_WORD}')
    return value


Word = Annotated[str, AfterValidator(_one_word)]
"""A text without spaces that is not empty."""
