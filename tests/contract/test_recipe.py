import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, create_model

from orchestrator.contract.recipe import (
    MAX_VALUE_CHARACTERS,
    Recipe,
    chosen,
    from_hyperparameters,
    recipe_class,
    to_hyperparameters,
)

DreamBooth = recipe_class("dreambooth")
TextualInversion = recipe_class("textual-inversion")


@given(
    rare=st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=8),
    words=st.text(min_size=1, max_size=40).filter(str.strip),
    rate=st.floats(1e-9, 0.5),
    prompts=st.lists(st.text(max_size=20), max_size=3),
)
def test_a_recipe_comes_back_from_its_hyperparameters_as_it_was(
    rare: str, words: str, rate: float, prompts: list[str]
) -> None:
    fields: dict[str, Any] = {
        "rare_token": rare,
        "instance_prompt": f"{rare} {words}",
        "class_prompt": "a thing",
        "learning_rate": rate,
        "validation_prompts": prompts,
    }
    if rare.casefold() in {"a", "thing"}:
        return
    recipe = DreamBooth(**fields)
    values = to_hyperparameters(recipe)
    assert all(isinstance(value, str) for value in values.values())
    assert from_hyperparameters(values) == recipe


def test_a_word_that_looks_like_another_type_stays_a_word() -> None:
    recipe = DreamBooth(rare_token="true", instance_prompt="a true dog")
    assert from_hyperparameters(to_hyperparameters(recipe)).trigger == "a true dog"


def test_what_the_service_adds_is_left_out() -> None:
    values = to_hyperparameters(DreamBooth(instance_prompt="sks dog"))
    assert from_hyperparameters({**values, "sagemaker_region": '"eu-west-1"'}).trigger == "sks dog"


def test_a_value_longer_than_the_service_takes_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValidationError, match="instance_prompt, class_prompt: longer than the 2500"):
        DreamBooth(instance_prompt="sks " + "x" * MAX_VALUE_CHARACTERS)


def wide_recipe(settings: int) -> Recipe:
    """Return a recipe of so many hyperparameters."""
    extra = settings - len(to_hyperparameters(Recipe()))
    fields: dict[str, Any] = {f"field_{number}": (int, 0) for number in range(extra)}
    return create_model("Wide", __base__=Recipe, **fields)()


def test_more_settings_than_the_service_takes_are_refused_before_they_are_sent() -> None:
    assert len(to_hyperparameters(wide_recipe(100))) == 100
    with pytest.raises(ValidationError, match="101 hyperparameters; a job takes at most 100"):
        wide_recipe(101)


@pytest.mark.parametrize(
    ("instance", "of_class"),
    [
        ("a photo of ohwx man", "a photo of man"),
        ("a photo of a ohwx man", "a photo of a man"),
        ("a pair of ohwx shoes", "a pair of shoes"),
        ("three ohwx cats", "three cats"),
        ("a glass of ohwx beer", "a glass of beer"),
        ("my ohwx dog", "my dog"),
        ("a ohwx owl", "a owl"),
        ("ein Foto von ohwx Hund", "ein Foto von Hund"),
        ("\u4e00\u5f20 ohwx \u72d7 \u7684 \u7167\u7247", "\u4e00\u5f20 \u72d7 \u7684 \u7167\u7247"),
        ("a photo of ohwx, a toy", "a photo of a toy"),
        ("a photo of an ohwx, a toy", "a photo of a toy"),
        ("a photo of an ohwx-dog", "a photo of an dog"),
        ("a photo of <ohwx> dog", "a photo of dog"),
        ("a photo of *ohwx* dog", "a photo of dog"),
        ("photo of the ohwx dog, 4k, (ohwx dog:1.2)", "photo of the dog, 4k, (dog:1.2)"),
        ("ohwx dog, the best ohwx, 4k", "dog, the best, 4k"),
        ("the (OHWX) dog", "the dog"),
        ("a photo of ohwx's dog", "a photo of dog"),
        ("a photo of ohwx, a toy on a beach", "a photo of a toy on a beach"),
        ("photo de ohwx, un chien", "photo de un chien"),
        ("ohwx dog beside ohwx dog", "dog beside dog"),
    ],
)
def test_the_class_prompt_is_the_instance_prompt_without_the_rare_token_and_nothing_else_changes(
    instance: str, of_class: str
) -> None:
    recipe = DreamBooth(instance_prompt=instance, rare_token="ohwx")
    assert recipe.model_dump()["class_prompt"] == of_class


@pytest.mark.parametrize(
    ("fields", "field", "cause"),
    [
        ({"instance_prompt": "a photo of a dog"}, "instance_prompt", "lacks the rare token"),
        ({"instance_prompt": "a photo of masks"}, "instance_prompt", "lacks the rare token"),
        ({"instance_prompt": "sks dog", "class_prompt": "a sks, dog"}, "class_prompt", "holds the rare token"),
        ({"instance_prompt": "sks dog", "rare_token": "s k"}, "rare_token", "not one word"),
        ({"instance_prompt": "sks dog", "class_prompt": "a SKS dog"}, "class_prompt", "holds the rare token"),
        ({"instance_prompt": "sks"}, "class_prompt", "does not say what"),
        ({"instance_prompt": "a photo of sks"}, "class_prompt", "does not say what"),
        ({"instance_prompt": "a photo of the sks."}, "class_prompt", "does not say what"),
        ({"instance_prompt": "a photo of sks on a beach"}, "class_prompt", "does not say what"),
        ({"instance_prompt": "a photo of sks 2"}, "class_prompt", "does not say what"),
        ({"instance_prompt": "a photo of sks sitting on a rug"}, "class_prompt", "does not say what"),
        ({"instance_prompt": "sks dog", "class_prompt": "a sks dog"}, "class_prompt", "holds the rare token"),
        ({"instance_prompt": "sks dog", "steps": 0}, "steps", "greater than or equal to 1"),
        ({"instance_prompt": "sks dog", "steps": 10, "checkpoint_steps": 11}, "checkpoint_steps", "never occurs"),
        ({"instance_prompt": "sks dog", "steps": 10, "validation_prompts": ["a"]}, "validation_steps", "never occurs"),
        ({"instance_prompt": "sks dog", "steps": 10, "warmup_steps": 10}, "warmup_steps", "leaves nothing"),
        ({"instance_prompt": "sks dog", "resolution": 100}, "resolution", "multiple of 8"),
        ({"instance_prompt": "sks dog", "keep_checkpoints": 1}, "keep_checkpoints", "greater than or equal to 2"),
    ],
)
def test_a_contradiction_names_its_field_and_cause(fields: dict[str, Any], field: str, cause: str) -> None:
    with pytest.raises(ValidationError) as raised:
        DreamBooth(**fields)
    (finding,) = raised.value.errors()
    assert finding["loc"] == (field,)
    assert cause in finding["msg"]


def test_a_class_prompt_is_not_asked_for_where_it_is_given_or_nothing_reads_it() -> None:
    asked_of_nobody = DreamBooth(instance_prompt="a photo of sks", prior_preservation="false")
    assert asked_of_nobody.model_dump()["class_prompt"] == ""
    assert from_hyperparameters(to_hyperparameters(asked_of_nobody)) == asked_of_nobody
    given = DreamBooth(instance_prompt="a photo of sks", class_prompt="a photo of a dog")
    assert given.model_dump()["class_prompt"] == "a photo of a dog"


@pytest.mark.parametrize(
    "prompt",
    [
        *(
            "ein Foto von sks",
            "foto de sks",
            "une photo d'un sks",
            "a dog sks",
            "une photo du chien sks",
            "\u4e00\u5f20 \u72d7 sks",
        ),
        *("ein Foto von sks am Strand", "une photo de sks sur la plage", "a monster sks on a beach", "SKS!"),
    ],
)
def test_a_class_is_asked_for_unless_it_stands_behind_the_rare_token_in_any_language(prompt: str) -> None:
    with pytest.raises(ValidationError, match=r"does not say what .*class_prompt=a photo of a dog"):
        DreamBooth(instance_prompt=prompt)


@pytest.mark.parametrize(
    "behind",
    [
        ", sitting",
        " is sitting",
        " 123",
        ", 4k",
        " (8k)",
        " which sleeps",
        ", 1024x768",
        ", highly detailed, 8k",
        ", running",
        " #1",
    ],
)
def test_what_names_no_thing_is_no_class(behind: str) -> None:
    with pytest.raises(ValidationError, match="does not say what"):
        DreamBooth(instance_prompt=f"a photo of sks{behind}")


@pytest.mark.parametrize(
    ("prompt", "advice"),
    [
        ("a photo of dog dog", 'call the subject by a word that means nothing: "a photo of sks dog"'),
        ("a photo of a Dog, dog", 'call the subject by a word that means nothing: "a photo of sks dog"'),
        ("a photo of dog", 'as in "dog toy", or .*class_prompt=a photo of a toy'),
        ("a photo of a cat", 'write "a photo of dog toy"'),
    ],
)
def test_advice_on_the_class_is_never_what_was_written(prompt: str, advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        DreamBooth(instance_prompt=prompt, rare_token="dog")


def test_a_rare_token_that_is_no_word_is_the_only_problem() -> None:
    with pytest.raises(ValidationError) as raised:
        DreamBooth(instance_prompt="zwx dog", rare_token="zwx dog")
    (finding,) = raised.value.errors()
    assert finding["loc"] == ("rare_token",)


def test_a_derived_class_prompt_is_shown_and_one_that_a_person_wrote_is_not() -> None:
    prompt = "a pair of sks shoes"
    (note,) = DreamBooth(instance_prompt=prompt, prior_preservation=True).notes
    assert '"a pair of shoes"' in note
    assert "class_prompt=" in note
    assert not DreamBooth(instance_prompt=prompt, prior_preservation=True, class_prompt="a photo of shoes").notes
    assert not DreamBooth(instance_prompt=prompt, prior_preservation=False).notes


def test_rates_suit_the_base_model_and_the_tuner_and_give_way_to_what_is_chosen() -> None:
    def rate(**fields: Any) -> float:
        return DreamBooth(instance_prompt="sks dog", **fields).learning_rate

    assert rate(base_model="org/model") == 1e-4
    assert rate(base_model="org/model", tuner="full") == 5e-6
    assert rate() != rate(tuner="full")
    assert rate(learning_rate=0.25) == 0.25


def test_the_default_run_fits_the_built_in_model() -> None:
    assert DreamBooth(instance_prompt="sks dog").resolution == 64
    assert DreamBooth(instance_prompt="sks dog", base_model="org/model").resolution == 512
    assert TextualInversion(placeholder_token="<x>", initializer_token="dog").resolution == 64


def test_embeddings_are_not_decayed_towards_zero() -> None:
    for base_model in ("builtin", "org/model"):
        recipe = TextualInversion(placeholder_token="<x>", initializer_token="dog", base_model=base_model)
        assert recipe.weight_decay == 0


def test_every_hyperparameter_is_json() -> None:
    for value in to_hyperparameters(DreamBooth(instance_prompt="sks dog")).values():
        json.loads(value)


def test_the_settings_of_a_job_are_those_that_differ_from_the_defaults_of_its_model_and_tuner() -> None:
    given = {"instance_prompt": "a photo of sks dog", "tuner": "full", "steps": 7, "validation_steps": 7}
    assert chosen(recipe_class("dreambooth").model_validate(given)) == given
    given = {"instance_prompt": "a photo of sks dog", "base_model": "org/model", "learning_rate": 1e-3}
    assert chosen(recipe_class("dreambooth").model_validate(given)) == given


@pytest.mark.parametrize(
    ("prompts", "after", "text"),
    [
        (["a photo of sks dog"], "sks dog", "dog"),
        (["an sks owl"], "an sks owl", "an owl"),
        (["a photo of sks - a dog"], "a sks dog", "a dog"),
        (["ein Foto eines sks Hundes im Park"], "sks Hundes", "Hundes"),
        (["a photo of sks dog, sks style"], "sks dog", "dog"),
        (["a photo of sks dog, in the snow", "a photo of a dog, in the snow"], "a sks dog", "a dog"),
        (["foto de un perro sks en la playa", "foto de un perro en la playa"], "sks perro", "perro"),
        (["a photo of sks", "in the park"], "sks", "a thing"),
    ],
)
def test_evaluation_prompts_name_the_class_and_nothing_else_of_the_prompt(
    prompts: list[str], after: str, text: str
) -> None:
    fields = dict(zip(("instance_prompt", "class_prompt"), prompts, strict=False))
    judged = DreamBooth(**fields).judged_by[0]
    assert judged.before == judged.after == f"a photo of {after} on a red background"
    assert judged.text == f"a photo of {text} on a red background"


@pytest.mark.parametrize("base_model", ["builtin", "acme/model"])
def test_a_style_is_learned_and_judged_by_other_prompts_than_a_thing(base_model: str) -> None:
    fields = {"base_model": base_model, "placeholder_token": "<new>", "initializer_token": "red"}
    thing = TextualInversion(**fields)
    style = TextualInversion(**fields, learnable_property="style")
    assert style.templates
    assert not set(style.templates) & set(thing.templates)
    judged = [[prompt.text for prompt in recipe.judged_by] for recipe in (thing, style)]
    assert not set(judged[0]) & set(judged[1])


def test_what_is_advised_where_memory_is_too_small_is_what_the_settings_leave_to_do() -> None:
    plain = DreamBooth(base_model="acme/model", instance_prompt="a photo of sks dog")
    saving = plain.model_copy(update={"gradient_checkpointing": True, "mixed_precision": "bf16"})
    assert "gradient_checkpointing=true" in plain.memory_advice
    assert "mixed_precision=bf16" in plain.memory_advice
    assert "gradient_checkpointing" not in saving.memory_advice
    assert "mixed_precision" not in saving.memory_advice


@pytest.mark.parametrize("one", [1, "1", "01", 1.0])
def test_the_only_vector_of_a_word_is_trained_whatever_is_held_of_several(one: Any) -> None:
    fields = {"placeholder_token": "<my-dog>", "initializer_token": "dog"}
    single = TextualInversion(**fields, vectors=one, hold_initializer=True)
    assert not single.is_held
    assert "the only vector" in single.idle_settings()["hold_initializer"]
    assert TextualInversion(**fields).is_held
    assert not TextualInversion(**fields, base_model="org/model", vectors=3).is_held


def test_a_recipe_of_an_older_version_has_no_settings_that_came_later() -> None:
    values = to_hyperparameters(TextualInversion(placeholder_token="<my-dog>", initializer_token="dog", vectors=4))
    del values["hold_initializer"]
    assert not from_hyperparameters(values).is_held


@pytest.mark.parametrize(("tuner", "targets"), [("lora", "all"), ("lokr", "all"), ("oft", "transformer")])
def test_the_built_in_model_learns_in_all_the_layers_that_a_tuner_can_change(tuner: str, targets: str) -> None:
    lora = recipe_class("lora")
    assert lora(tuner=tuner).targets == targets
    assert lora(tuner=tuner, base_model="org/model").targets == "attention"
