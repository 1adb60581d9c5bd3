"""What of a text lies beyond the text encoder's length: it is cut off there, and nothing says so."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from orchestrator.contract.problem import Problem
from orchestrator.contract.tokens import Token, Tokenizer, run_of
from orchestrator.contract.words import NewWord, composed, occurrences

_SHOWN = 60
"""Characters of lost words in a message."""
_LONG_WORD = 30
"""Characters of what is no single word: some languages write without spaces."""
_NEXT_WORD = re.compile(r"\W*\w+")
_ROW = -1
"""Stands for the id of a token that is added for a new word."""


class Loss(NamedTuple):
    """What a text encoder does not read of a text."""

    tokens: int
    """Length of the text."""
    limit: int
    """Length that the text encoder reads."""
    words: str
    """The part that is cut off, from the beginning of the first word that is not read whole."""
    takes_new_word: bool
    """Whether the first new word, or the word of its class that follows it, is not read whole."""


class LengthProblems(NamedTuple):
    """Texts that are too long."""

    refused: list[Problem]
    """Those whose new word is cut off: they teach and show nothing."""
    warnings: list[Problem]
    """Those that lose other words."""


def length_problems(
    tokenizers: Sequence[Tokenizer],
    texts: Iterable[tuple[str, str]],
    word: NewWord | None,
) -> LengthProblems:
    """Return what is too long of `texts`, each with the setting or file that it comes from; once for each of these.

    A text is too long when it is so for one of the tokenizers.
    """
    worst: dict[str, Loss] = {}
    for where, text in texts:
        for tokenizer in tokenizers:
            loss = loss_of(tokenizer, text, word)
            if loss is None:
                continue
            known = worst.get(where)
            if known is None or _severity(loss) > _severity(known):
                worst[where] = loss
    return _as_problems(worst, word)


def loss_of(tokenizer: Tokenizer, text: str, word: NewWord | None) -> Loss | None:
    """Return what is lost of a text; None when it fits."""
    text = " ".join(composed(text).split())
    tokens = _tokens(tokenizer, text, word)
    limit = tokenizer.limit
    if len(tokens) <= limit:
        return None
    cut = tokens[limit].start
    begun = text[:cut].rpartition(" ")[2]  # a word that is cut in its middle is lost as a whole
    if len(begun) > _LONG_WORD:
        begun = ""
    first_lost = cut - len(begun)
    end = _end_of_new_word(tokenizer, text, word)
    return Loss(
        tokens=len(tokens),
        limit=limit,
        words=text[first_lost:].strip(),
        takes_new_word=cut < end,
    )


def _tokens(tokenizer: Tokenizer, text: str, word: NewWord | None) -> list[Token]:
    """Return the tokens of a text; a word with vectors of its own is as many tokens, whether it was added or not."""
    if word is None or not word.vectors:
        return list(tokenizer.read(text))
    tokens: list[Token] = []
    begin = 0
    for found in occurrences(text, word.text):
        tokens += _part(tokenizer, text, begin, found.start())
        tokens += [Token(_ROW, *found.span())] * word.vectors
        begin = found.end()
    return tokens + _part(tokenizer, text, begin, len(text))


def _part(tokenizer: Tokenizer, text: str, begin: int, end: int) -> list[Token]:
    """Return the tokens of a part of a text, with their places in the whole."""
    part = tokenizer.read(text[begin:end])
    return [Token(token.id, token.start + begin, token.end + begin) for token in part]


def _end_of_new_word(tokenizer: Tokenizer, text: str, word: NewWord | None) -> int:
    """Return where the first new word ends, or the word of its class behind it; 0 when the text holds none."""
    if word is None:
        return 0
    found = next(occurrences(text, word.text), None)
    span = found.span() if found else run_of(tokenizer, text, word.text)
    if span is None:
        return 0
    _, end = span
    # A rare token is bound to the class that follows it; a word with vectors of its own stands alone.
    following = None if word.vectors else _NEXT_WORD.match(text, end)
    return following.end() if following else end


def _severity(loss: Loss) -> tuple[bool, int]:
    return loss.takes_new_word, loss.tokens - loss.limit


def _as_problems(losses: Mapping[str, Loss], word: NewWord | None) -> LengthProblems:
    refused = []
    warnings = []
    for where, loss in losses.items():
        lost = loss.words[:_SHOWN]
        if len(loss.words) > _SHOWN:
            lost = f"{lost}..."
        size = f"{loss.tokens} tokens long, and the text encoder reads {loss.limit}"
        if not loss.takes_new_word or word is None:
            warnings.append(Problem(where=where, what=f'is {size}; nothing reads "{lost}"', fix="shorten it"))
            continue
        fix = f'shorten it, or write "{word.text}" nearer to its beginning'
        if word.vectors:
            fix = f'{fix}; "{word.text}" takes {word.vectors} of them: -s vectors=N'
        refused.append(
            Problem(where=where, what=f'is {size}; "{word.text}" is cut off with "{lost}"', fix=fix),
        )
    return LengthProblems(refused, warnings)
