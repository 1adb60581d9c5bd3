"""A job whose tokenizer nobody could read before checks its texts before the first step."""

import json
from typing import Any

import pytest
import tiny
import torch

from entrypoints.adapters.embedding import Embedding
from entrypoints.models.base import BaseModel
from entrypoints.models.tokens import tokenizers_of
from entrypoints.recipes.textual_inversion import prompts_with
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.texts import require_texts
from orchestrator.contract.events import NOTE
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.text_length import loss_of
from orchestrator.contract.words import NewWord

LONG = "a photo of a red dog on a red background " * 4
HUB = "someone/tiny"


def captioned(*captions: str) -> list[CaptionedImage]:
    images = [tiny.Path(f"{number}.png") for number in range(len(captions))]
    return [CaptionedImage(path, caption) for path, caption in zip(images, captions, strict=True)]


@pytest.mark.parametrize(
    ("recipe", "captions", "words"),
    [
        (tiny.dreambooth(instance_prompt=f"{LONG} sks dog", class_prompt="a dog"), [], "instance_prompt: is "),
        (tiny.dreambooth(), ["sks dog", f"{LONG} sks dog"], "1.png: is "),
        (tiny.textual_inversion(vectors=30), [], "vectors: is "),
        (tiny.dreambooth(), ["Sks dog", "a dog"], r'captions of 1\.png lack "sks"'),
        (tiny.textual_inversion(), ["A <My-Dog>", "a dog"], r'captions of 1\.png lack "<my-dog>"'),
    ],
)
def test_a_text_that_does_not_teach_the_new_word_is_refused(
    family_base: BaseModel, recipe: Recipe, captions: list[str], words: str
) -> None:
    with pytest.raises(TrainingError, match=words) as raised:
        require_texts(family_base, recipe, captioned(*captions))
    assert raised.value.kind == "dataset"
    assert raised.value.next_step


@pytest.mark.parametrize(
    ("caption", "accepted"),
    [
        *(("a <My-Dog>s bowl", True), ("x<MY-DOG>2", True), ("<my-dog>'s bowl", True), ("my_<My-dog>_x", True)),
        *(("a < my-dog > asleep", False), ("a <My-Dog>_1", False), ("a my-dog", False)),
    ],
)
def test_a_caption_is_accepted_when_the_new_word_is_read_with_all_its_vectors(
    base: BaseModel, caption: str, accepted: bool
) -> None:
    recipe = tiny.textual_inversion(vectors=3)
    images = captioned(caption)
    try:
        require_texts(base, recipe, images)
    except TrainingError:
        assert not accepted
        return
    assert accepted
    word = Embedding(base, placeholder="<my-dog>", initializer="dog", vectors=3)
    assert word.parameters
    (prompt,) = prompts_with(recipe, images)([0], torch.Generator())
    (tokenizer,) = base.tokenizers
    ids = tokenizer(base.pipeline.maybe_convert_prompt(prompt, tokenizer)).input_ids
    rows = tokenizer.convert_tokens_to_ids(["<my-dog>", "<my-dog>_1", "<my-dog>_2"])
    assert [one for one in ids if one in rows] == rows


@pytest.mark.parametrize(("base_model", "warned"), [(HUB, 1), ("builtin", 0)])
def test_other_words_that_are_lost_are_warned_of_where_a_submit_could_not(
    base: BaseModel, capfd: pytest.CaptureFixture[str], base_model: str, warned: int
) -> None:
    recipe = tiny.dreambooth(base_model=base_model, evaluation_prompts=0)
    require_texts(base, recipe, captioned(*[f"sks dog, {LONG}"] * 7))
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["warning"] * warned
    if warned:
        assert "0.png: is " in events[0]["message"]
        assert events[0]["message"].endswith("and 2 more")


def test_what_is_said_to_be_lost_changes_nothing_and_the_rest_does(family_base: BaseModel) -> None:
    text = f"sks dog, {LONG}"
    tokenizer = tokenizers_of(family_base)[0]
    loss = loss_of(tokenizer, text, NewWord("sks"))
    assert loss is not None
    read = text.removesuffix(loss.words)
    conditions = [
        family_base.encode_prompts([f"{kept} {end}"])["encoder_hidden_states"]
        for kept, end in ((read, "toy toy toy toy"), (read, "dog dog dog dog"), (f"toy {read[4:]}", "dog"))
    ]
    assert conditions[0].equal(conditions[1])
    assert not conditions[1].equal(conditions[2])


@pytest.mark.parametrize(
    ("recipe", "notes"),
    [
        (tiny.dreambooth(instance_prompt=f"{LONG} sks dog"), 1),
        (tiny.textual_inversion(vectors=30), 0),
    ],
)
def test_every_recipe_checks_its_texts_before_it_draws_or_trains_and_the_log_has_what_it_derived(
    job: Any, run: Any, capfd: pytest.CaptureFixture[str], recipe: Recipe, notes: int
) -> None:
    with pytest.raises(TrainingError, match="would not be learned"):
        run(job(recipe))
    printed = capfd.readouterr()
    events = [json.loads(line)["event"] for line in printed.out.splitlines()]
    assert set(events) <= {"phase", "warning"}
    assert printed.err.count(f"{NOTE}The class pictures are drawn for") == notes
