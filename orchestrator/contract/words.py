"""How words are found in prompts and captions: one rule for the client and for training."""

import re
from typing import Annotated

from pydantic import AfterValidator

NOT_ONE_WORD = "is not one word"
_ARTICLES = {"a", "an"}
_VOWELS = ("a", "e", "i", "o", "u")
_DETERMINERS = _ARTICLES | {"the", "my", "our", "your", "his", "her", "their", "this", "that"}


def holds_word(text: str, word: str) -> bool:
    """Return whether `text` holds `word` with no letter or digit right beside it: "sks, a toy" holds "sks"."""
    return _find(text, word) is not None


def words_around(text: str, word: str) -> tuple[list[str], list[str]]:
    """Return the words before the first `word` of `text`, and those after it without any further `word`.

    Punctuation that only set the word apart from the next is left out; raises ValueError when `word` is not there.
    """
    found = _find(text, word)
    if found is None:
        raise ValueError(f'"{text}" does not hold "{word}"')
    before = text[: found.start()]
    rest = text[found.end() :]
    after = re.sub(_bounded(word), "", rest).lstrip(" ,.;:-")
    return before.split(), after.split()


def without_word(text: str, word: str) -> str:
    """Return `text` without `word`, with the article that fits: "a sks owl" is "an owl", "of sks dog" "of a dog"."""
    before, after = words_around(text, word)
    if not after:
        return " ".join(before)
    noun = " ".join(after)
    last = before[-1] if before else ""
    if last.lower() in _ARTICLES:  # which may be the wrong one for the word that follows now
        before.pop()
        noun = with_article(noun)
        if last[0].isupper():
            noun = noun[0].upper() + noun[1:]
    elif last.lower() not in _DETERMINERS:
        noun = with_article(noun)
    return " ".join([*before, noun])


def with_article(noun: str) -> str:
    """Return a noun as it stands in a caption, "a dog" or "an owl"; one with an article of its own stays as it is."""
    first_word = noun.partition(" ")[0]
    if first_word.lower() in _DETERMINERS:
        return noun
    article = "an" if noun.lower().startswith(_VOWELS) else "a"
    return f"{article} {noun}"


def _find(text: str, word: str) -> re.Match[str] | None:
    return re.search(_bounded(word), text)


def _bounded(word: str) -> str:
    return rf"(?<!\w){re.escape(word)}(?!\w)"


def _one_word(value: str) -> str:
    if value.split() != [value]:
        raise ValueError(f'"{value}" {NOT_ONE_WORD}')
    return value


Word = Annotated[str, AfterValidator(_one_word)]
"""A text without spaces that is not empty."""
