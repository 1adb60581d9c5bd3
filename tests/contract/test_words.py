import pytest

from orchestrator.contract.words import holds_word, with_article, words_around


@pytest.mark.parametrize(
    ("text", "word", "held"),
    [
        ("a photo of sks, a toy", "sks", True),
        ("a (sks) dog", "sks", True),
        ("two masks", "sks", False),
        ("sks2 dog", "sks", False),
        ("my <dog>: asleep", "<dog>", True),
        ("a [V] dog", "[V]", True),
        ("a V dog", "[V]", False),
        ("Sks monster", "sks", True),
        ("a photo of SKS", "sks", True),
        ("a photo of sks", "SKS", True),
        ("my <DOG>: asleep", "<dog>", True),
        ("an e\u0301te\u0301 dog", "\u00e9t\u00e9", True),
    ],
)
def test_a_word_is_held_when_nothing_of_a_word_is_beside_it(text: str, word: str, held: bool) -> None:
    assert holds_word(text, word) is held


def test_what_a_prompt_is_about_stands_after_its_word() -> None:
    assert words_around("a photo of sks, a toy", "sks") == (["a", "photo", "of"], ["a", "toy"])
    assert words_around("a photo of [V] [old] dog", "[V]")[1] == ["[old]", "dog"]


@pytest.mark.parametrize(
    ("noun", "said"),
    [
        ("owl", "an owl"),
        ("dog", "a dog"),
        ("umbrella", "an umbrella"),
        ("the dog", "the dog"),
    ],
)
def test_a_noun_gets_its_article_once(noun: str, said: str) -> None:
    assert with_article(noun) == said
