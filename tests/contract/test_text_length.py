"""What is lost of a text is told by the tokens that do not fit, in the words that a person wrote."""

import re
from collections.abc import Sequence

import pytest

from orchestrator.contract.text_length import length_problems, loss_of
from orchestrator.contract.tokens import Token, holds_word
from orchestrator.contract.words import NewWord


class Pairs:
    """A tokenizer that has a token for each two letters of a word."""

    unknown = None

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def read(self, text: str) -> Sequence[Token]:
        lower = text.lower()
        return [Token(hash(one.group()), *one.span()) for one in re.finditer(r"\w{1,2}|[^\w\s]", lower)]

    def knows(self, token: str) -> bool:
        return not token


@pytest.mark.parametrize(
    ("text", "limit", "words", "takes"),
    [
        ("aa bb sk dd ee", 4, "ee", False),
        ("aa bb sk dd ee", 3, "dd ee", True),
        ("aa bb sk dd ee", 2, "sk dd ee", True),
        ("sk dddd ee", 2, "dddd ee", True),
        ("sk dd eeee ff", 3, "eeee ff", False),
        ("aa\n bb\tcc\nSK", 2, "cc SK", True),
        ("sk dd aa sk", 2, "aa sk", False),
        ("aa bb cc", 2, "cc", False),
        ("aa, sk", 2, "sk", True),
        ("x" * 80, 20, "x" * 40, False),
    ],
)
def test_what_is_lost_begins_with_the_first_word_that_is_not_read_whole(
    text: str, limit: int, words: str, takes: bool
) -> None:
    loss = loss_of(Pairs(limit), text, NewWord("sk"))
    assert loss is not None
    assert (loss.words, loss.takes_new_word, loss.limit) == (words, takes, limit)


@pytest.mark.parametrize("text", ["", "aa", "aa bb", "   aa \n bb  "])
def test_what_fits_loses_nothing(text: str) -> None:
    assert loss_of(Pairs(2), text, NewWord("aa")) is None


@pytest.mark.parametrize(
    ("text", "limit", "takes"),
    [
        ("aa <x> bb", 4, False),
        ("aa <x> bb", 3, True),
        ("<X> aa", 3, False),
        ("aa <X>s", 4, False),
        ("bb aa<x>", 4, True),
    ],
)
def test_a_word_with_vectors_is_as_many_tokens_and_needs_no_class(text: str, limit: int, takes: bool) -> None:
    loss = loss_of(Pairs(limit), text, NewWord("<x>", vectors=3))
    assert loss is not None
    assert loss.takes_new_word is takes
    assert loss_of(Pairs(5), text, NewWord("<x>", vectors=3)) is None


def test_a_class_that_ends_at_the_limit_is_read_whole_whatever_sign_follows() -> None:
    for text in ("sk dd, ee", "sk dd. ee", "sk dd- ee"):
        loss = loss_of(Pairs(2), text, NewWord("sk"))
        assert loss is not None
        assert not loss.takes_new_word
        assert length_problems([Pairs(2)], [("prompt", text)], NewWord("sk")).refused == []


def test_a_setting_is_named_once_with_its_worst_text_and_tokenizer() -> None:
    texts = [("one", "sk aa bb cc"), ("one", "aa bb cc sk"), ("two", "aa")]
    found = length_problems([Pairs(9), Pairs(3)], texts, NewWord("sk"))
    assert [problem.where for problem in found.refused] == ["one"]
    assert not found.warnings
    assert length_problems([], texts, NewWord("sk")) == ([], [])


def test_a_word_is_held_as_a_run_of_tokens_only_for_a_tokenizer_that_can_be_read() -> None:
    assert holds_word([Pairs(9)], "aask bb", NewWord("sk"))
    assert not holds_word([], "aask bb", NewWord("sk"))
    assert not holds_word([Pairs(9)], "asks bb", NewWord("sk"))
