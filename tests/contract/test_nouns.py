"""What a prompt is about is found whatever else stands in it."""

import pytest

from orchestrator.contract.nouns import noun_behind, noun_of


@pytest.mark.parametrize(
    ("text", "noun"),
    [
        ("a photo of sks dog.", "dog"),
        ("sks dog. high quality", "dog"),
        ("sks dog,park,night", "dog"),
        ("sks dog!", "dog"),
        ("sks dog (brown)", "dog"),
        ("sks dog & cat", "dog"),
        ("sks [old] dog", "old dog"),
        ("sks, a toy on a beach", "toy"),
        ("sks \u2014 a toy", "toy"),
        ("sks dog sitting on grass", "dog"),
        ("sks dog next to a tree", "dog"),
        ("sks bottle of wine on a table", "bottle of wine"),
        ("sks dog of the", "dog"),
        ("sks 1967 mustang", "1967 mustang"),
        ("sks st. bernard", "st bernard"),
        ("sks t-shirt", "t-shirt"),
        ("foto de sks botella de vino en la mesa", "botella de vino"),
        ("sks \u0915\u0941\u0924\u094d\u0924\u0947", "\u0915\u0941\u0924\u094d\u0924\u0947"),
        ("sks black and white cat", "black and white cat"),
        ("sks dog and a cat", "dog"),
        ("sks dog and", "dog"),
        ("sks van", "van"),
        ("sks camper van on a road", "camper van"),
        ("sks standing lamp", "standing lamp"),
        ("sks dog running", "dog"),
        ("sks next generation console", "next generation console"),
        ("sks U.S. flag", "U.S flag"),
        ("sks running", ""),
        ("sks highly detailed", ""),
        ("sks 2", ""),
        ("sks 2 on a beach", ""),
        ("sks is asleep", ""),
        ("sks of dogs", ""),
        ("sks - ...", ""),
    ],
)
def test_the_noun_behind_a_word_ends_at_a_sign_or_a_word_that_names_nothing(text: str, noun: str) -> None:
    assert noun_behind(text, "sks") == noun.split()


@pytest.mark.parametrize(
    ("prompt", "noun"),
    [
        ("a photo of a dog on a beach", "dog"),
        ("a dog.", "dog"),
        ("a pair of shoes", "shoes"),
        ("a van", "van"),
        ("a photo of a van", "van"),
        ("a photo of a standing lamp", "standing lamp"),
        ("foto de un perro", "perro"),
        ("in the park", ""),
        ("", ""),
    ],
)
def test_the_noun_of_a_prompt_is_what_is_in_the_picture(prompt: str, noun: str) -> None:
    assert noun_of(prompt) == noun.split()
