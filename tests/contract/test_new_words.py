"""Which words a vocabulary can take, by a vocabulary that is written down here."""

import unicodedata
from collections.abc import Sequence

import pytest

from orchestrator.contract.new_words import initializer_fault, placeholder_fault, placeholder_tokens, rare_token_doubt
from orchestrator.contract.tokens import Token

UNKNOWN = 49407


class Vocabulary:
    """A tokenizer of single words with CLIP's ids; any other word is its letters, and a sign is unknown."""

    limit = 75
    unknown = UNKNOWN
    words = {"dog": 1929, "sks": 48136}  # noqa: RUF012 - nothing changes it

    def read(self, text: str) -> Sequence[Token]:
        if text in self.words:
            return [Token(self.words[text], 0, len(text))]
        return [Token(30_000 if one.isalpha() else UNKNOWN, place, place + 1) for place, one in enumerate(text)]

    def knows(self, token: str) -> bool:
        return token in {f"{word}</w>" for word in self.words} | {"ö"}


class FileVocabulary(Vocabulary):
    """As tokenizers of files are: an accent is read with its letter, and places count in the text as it was typed."""

    def read(self, text: str) -> Sequence[Token]:
        tokens = []
        for place, one in enumerate(text):
            if not unicodedata.combining(one):
                tokens.append(Token(30_000, place, place + 1))
        return tokens


@pytest.mark.parametrize(("word", "doubted"), [("sks", ""), ("zwxy", ""), ("dog", "common"), ("zwxyv", "5 tokens")])
def test_a_rare_token_is_short_and_no_common_word(word: str, doubted: str) -> None:
    doubt = rare_token_doubt(Vocabulary(), word)
    assert (doubt is None) == (not doubted)
    assert doubt is None or doubted in doubt[0]


def test_the_pieces_of_a_word_are_named_whichever_way_its_accents_are_typed() -> None:
    for form in ("NFC", "NFD"):
        word = unicodedata.normalize(form, "ééxyz")
        for found in (rare_token_doubt(FileVocabulary(), word), initializer_fault(FileVocabulary(), word)):
            assert found is not None
            assert "5 tokens of this model (é é x y z)" in found[0]


@pytest.mark.parametrize(("word", "fault"), [("dog", ""), ("toy", "3 tokens"), ("?", "not in the vocabulary")])
def test_an_initializer_is_one_known_token(word: str, fault: str) -> None:
    found = initializer_fault(Vocabulary(), word)
    assert (found is None) == (not fault)
    assert found is None or fault in found[0]


@pytest.mark.parametrize(
    ("word", "vectors", "fault"),
    [
        ("<dog>", 4, ""),
        ("<Dog>", 1, ""),
        ("<Dog>", 2, "as a word of its own"),
        ("dog", 1, "in the vocabulary"),
        ("Dog", 1, "in the vocabulary"),
        ("ö", 1, "in the vocabulary"),
    ],
)
def test_a_placeholder_is_new_and_in_small_letters_where_it_has_several_tokens(
    word: str, vectors: int, fault: str
) -> None:
    found = placeholder_fault(Vocabulary(), word, vectors)
    assert (found is None) == (not fault)
    assert found is None or fault in found[0]


def test_the_tokens_of_a_placeholder_are_those_that_diffusers_looks_for() -> None:
    assert placeholder_tokens("<x>", 3) == ["<x>", "<x>_1", "<x>_2"]
