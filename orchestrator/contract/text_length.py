"""What of a text lies beyond the text encoder's length: it is cut off there, and nothing says so."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from orchestrator.contract.problem import Problem
from orchestrator.contract.tokens import Token, Tokenizer, run_of
from orchestrator.contract.words import NewWord, composed, occurrences

Where = str
"""The setting or file that a text comes from."""

_BY_THE_RECIPE = ("vectors", "evaluation_prompts")
"""Prompts that a recipe writes around the new word: nobody can shorten them."""
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
    texts: Iterable[tuple[Where, str]],
    word: NewWord | None,
) -> LengthProblems:
    """Return what is too long of `texts`, each with the setting or file that it comes from; once for each of these.

    A text is too long when it is so for one of the tokenizers.
    """
    worst: dict[Where, Loss] = {}
    for where, text in texts:
        for tokenizer in tokenizers:
            loss = loss_of(tokenizer, text, word)
            if loss is None:
                continue
            known = worst.setdefault(where, loss)
            if _severity(loss) > _severity(known):
                worst[where] = loss
    return _as_problems(worst, word)


def loss_of(tokenizer: Tokenizer, text: str, word: NewWord | None) -> Loss | None:
    """Return what is lost of a text; None when it fits."""
    words = composed(text).split()
    text = " ".join(words)
    tokens = _tokens(tokenizer, text, word)
    limit = tokenizer.limit
    if len(tokens) <= limit:
        return None
    cut = tokens[limit].start
    first_lost = cut
    read = text[:cut]
    _, _, begun = read.rpartition(" ")
    if len(begun) <= _LONG_WORD:  # a word that is cut in its middle is lost as a whole
        first_lost -= len(begun)
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
    for found in occurrences(text, word):
        start, end = found.span()
        row = Token(_ROW, start, end)
        tokens += _part(tokenizer, text, begin, start)
        tokens += [row] * word.vectors
        begin = end
    tokens += _part(tokenizer, text, begin, len(text))
    return tokens


def _part(
    tokenizer: Tokenizer,
    text: str,
    begin: int,
    end: int,
) -> list[Token]:
    """Return the tokens of a part of a text, with their places in the whole."""
    part = text[begin:end]
    tokens = []
    for token in tokenizer.read(part):
        moved = Token(token.id, token.start + begin, token.end + begin)
        tokens.append(moved)
    return tokens


def _end_of_new_word(tokenizer: Tokenizer, text: str, word: NewWord | None) -> int:
    """Return where the first new word ends, or the word of its class behind it; 0 when the text holds none."""
    if word is None:
        return 0
    found = next(occurrences(text, word), None)
    if found is not None:
        end = found.end()
    elif word.vectors:
        return 0
    else:
        span = run_of(tokenizer, text, word.text)
        if span is None:
            return 0
        _, end = span
    if word.vectors:  # it stands alone
        return end
    following = _NEXT_WORD.match(text, end)  # the class, which a rare token is bound to
    if following is None:
        return end
    return following.end()


def _severity(loss: Loss) -> tuple[bool, int]:
    """Order losses: a lost new word is worse than any other, then the most lost tokens."""
    return loss.takes_new_word, loss.tokens - loss.limit


def _as_problems(losses: Mapping[Where, Loss], word: NewWord | None) -> LengthProblems:
    """Say of each loss what is lost and how to shorten the text."""
    refused = []
    warnings = []
    for where, loss in losses.items():
        lost = loss.words
        if len(lost) > _SHOWN:
            lost = f"{lost[:_SHOWN]}..."
        size = f"is {loss.tokens} tokens long, and the text encoder reads {loss.limit}"
        if word is None or not loss.takes_new_word:
            what = f'{size}; nothing reads "{lost}"'
            warning = Problem(where=where, what=what, fix="shorten it")
            warnings.append(warning)
            continue
        new = word.text
        what = f'{size}; "{new}" is cut off with "{lost}"'
        fix = f'shorten it, or write "{new}" nearer to its beginning'
        if word.vectors > loss.limit or (word.vectors and where in _BY_THE_RECIPE):
            fix = f'"{new}" takes {word.vectors} of them; give it fewer: -s vectors=N'
        elif word.vectors > 1:
            fix = f"{fix}; or give it fewer tokens than its {word.vectors}: -s vectors=N"
        refusal = Problem(where=where, what=what, fix=fix)
        refused.append(refusal)
    return LengthProblems(refused, warnings)
