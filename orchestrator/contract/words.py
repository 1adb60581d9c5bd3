"""How words are found in prompts and captions: one rule for the client and for training."""

import re
from typing import Annotated

from pydantic import AfterValidator

NOT_ONE_WORD = "is not one word"
_ARTICLES = {"a", "an"}
_DETERMINERS = _ARTICLES | {"the", "my", "our", "your", "his", "her", "their", "this", "that"}


def holds_word(text: str, word: str) -> bool:
    """Return whether `text` holds `word` with no letter or digit right beside it: "sks, a toy" holds "sks"."""
    return _place_of(text, word) is not None


def words_around(text: str, word: str) -> tuple[list[str], list[str]]:
    """Return the words before the first `word` of `text`, and those after it without any further `word`.

    Punctuation that only set the word apart from the next is left out; raises ValueError when `word` is not there.
    """
    place = _place_of(text, word)
    if place is None:
        raise ValueError(f'"{text}" does not hold "{word}"')
    after = re.sub(_bounded(word), "", text[place.end() :])
    return text[: place.start()].split(), after.lstrip(" ,.;:-").split()


def without_word(text: str, word: str) -> str:
    """Return `text` without `word`, with the article that fits: "a sks owl" is "an owl", "of sks dog" "of a dog"."""
    before, after = words_around(text, word)
    last = before[-1] if before else ""
    if not after:
        return " ".join(before)
    noun = with_article(" ".join(after))
    if last.lower() in _ARTICLES:
        before.pop()
        noun = noun[0].upper() + noun[1:] if last[0].isupper() else noun
    elif last.lower() in _DETERMINERS:
        noun = " ".join(after)
    return " ".join([*before, noun])


def with_article(noun: str) -> str:
    """Return a noun as it stands in a caption, "a dog" or "an owl"; one with an article of its own stays as it is."""
    if noun.partition(" ")[0].lower() in _DETERMINERS:
        return noun
    return f"{'an' if noun[:1].lower() in set('aeiou') else 'a'} {noun}"


def _place_of(text: str, word: str) -> re.Match[str] | None:
    return re.search(_bounded(word), text)


def _bounded(word: str) -> str:
    return rf"(?<!\w){re.escape(word)}(?!\w)"


def _one_word(value: str) -> str:
    if value.split() != [value]:
        raise ValueError(f'"{value}" {NOT_ONE_WORD}')
    return value


Word = Annotated[str, AfterValidator(_one_word)]
"""A text without spaces that is not empty."""
