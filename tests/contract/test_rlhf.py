"""The settings of reinforcement learning: people name rounds, and what cannot be trained is refused at submit."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.contract.environment import Wait
from orchestrator.contract.preferences import PREFERENCES_FILE
from orchestrator.contract.prompt_file import PROMPTS_FILE, parse_prompts, written
from orchestrator.contract.recipe import from_hyperparameters, to_hyperparameters
from orchestrator.contract.recipes.rlhf import Rlhf
from orchestrator.errors import DatasetError, SpecError
from orchestrator.planning.inputs import prepare_inputs
from orchestrator.resources import sample_prompts
from orchestrator.specs.building import build_spec

SMALL = {"prompts_per_round": 4, "group_size": 4, "batch_size": 4, "updates": 2, "rounds": 5}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"group_size": 1}, "has no other to be better than"),
        ({"updates": 3}, "cannot be divided among 3 updates in batches of 4"),
        ({"batch_size": 16, "updates": 2}, "in batches of 16"),
        ({"steps": 7}, "leave steps out, and set rounds"),
        ({"gradient_accumulation": 9}, "gradient_accumulation follows from the round and is"),
        ({"algorithm": "ddpo", "sampler_steps": 5, "trained_steps": 5}, "write at most 4"),
        ({"train_text_encoder": True}, "prompts are encoded once"),
        ({"compile": True}, "by other code than they are learned from"),
        ({"rewards": ["jpeg-compressibility"], "evaluation_rewards": ["jpeg-compressibility"]}, "is trained on too"),
        ({"rewards": []}, "rewards"),
        ({"algorithm": "ppo"}, "algorithm"),
    ],
)
def test_what_cannot_be_trained_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_spec({"recipe": "rlhf", "settings": {**SMALL, **settings}})
    assert words in " ".join(problem.render() for problem in caught.value.problems)


def test_waiting_for_people_is_for_jobs_that_ask_them() -> None:
    with pytest.raises(SpecError) as caught:
        build_spec({"recipe": "rlhf", "wait": "release", "settings": SMALL})
    (problem,) = caught.value.problems
    assert problem.where == "wait"
    assert "that people give a reward to" in problem.what
    asked = build_spec({"recipe": "rlhf", "wait": "release", "settings": {**SMALL, "rewards": ["human"]}})
    assert asked.wait is Wait.RELEASE


@pytest.mark.parametrize("algorithm", ["ddpo", "nft"])
def test_steps_and_forward_passes_follow_from_the_rounds(algorithm: str) -> None:
    settings = {**SMALL, "algorithm": algorithm, "inner_epochs": 3, "sampler_steps": 6, "trained_steps": 2}
    spec = build_spec({"recipe": "rlhf", "settings": settings})
    recipe = spec.recipe
    assert isinstance(recipe, Rlhf)
    assert recipe.steps == 5 * 2 * 3
    assert recipe.gradient_accumulation == 2 * 2  # 8 images in batches of 4, each at 2 moments
    assert recipe.steps % recipe.validation_steps == 0
    assert from_hyperparameters(to_hyperparameters(recipe)) == recipe


def test_ddpo_learns_from_every_step_that_adds_noise() -> None:
    recipe = Rlhf(algorithm="ddpo", sampler_steps=6, **SMALL)  # type: ignore[arg-type]
    assert recipe.moments == 5


def test_nobody_needs_to_name_anything(tmp_path: Path) -> None:
    spec = build_spec({"recipe": "rlhf"})
    assert not spec.warnings
    prepared = prepare_inputs(spec, tmp_path)
    assert prepared.error is None
    assert len(prepared.prompts) > 30
    assert set(prepared.trees) == {"prompts"}


@pytest.mark.parametrize("builtin", [True, False])
def test_the_packaged_prompts_have_no_fault(builtin: bool) -> None:
    found = parse_prompts(sample_prompts(builtin=builtin).read_bytes())
    assert not found.problems
    assert not found.warnings


def test_other_algorithms_settings_have_no_effect_and_say_so() -> None:
    spec = build_spec({"recipe": "rlhf", "settings": {**SMALL, "algorithm": "nft", "clip_range": 0.1}})
    assert [warning.where for warning in spec.warnings] == ["clip_range"]


def plan_prompts(folder: Path, text: str | bytes, **settings: Any) -> Any:
    file = folder / "my prompts.txt"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    spec = build_spec({"recipe": "rlhf", "prompts": str(file), "settings": {"held_out_prompts": 1, **settings}})
    return prepare_inputs(spec, folder / "staging")


def test_prompts_are_text_or_json_and_doubtful_lines_are_named(tmp_path: Path) -> None:
    prepared = plan_prompts(tmp_path, '# mine\na dog\n\n{"prompt": "a  cat"}\na dog\na bird\n')
    assert prepared.prompts == ("a dog", "a cat", "a bird")
    assert [(warning.where, warning.what.split(",")[0]) for warning in prepared.warnings] == [
        ("line 3", "is empty"),
        ("line 5", "is the prompt of line 2 once more"),
    ]
    sent = (tmp_path / "staging" / "prompts" / PROMPTS_FILE).read_bytes()
    assert parse_prompts(sent).prompts == ["a dog", "a cat", "a bird"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a dog\n" + "long " * 1000, "line 2: has 4999 characters"),
        ('a dog\n{"text": "a cat"}', 'line 2: has no text under "prompt"'),
        ("a dog\n{not json", "line 2: begins like JSON and is none"),
        (b"a dog\n\xff\xfe", "is no text in UTF-8"),
        ("a dog\n", "none is left to train on"),
        ("a dog\na \x07cat\na bird", "control character"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    error = plan_prompts(tmp_path, text).error
    assert isinstance(error, DatasetError)
    shown = " ".join([error.message, *(problem.render() for problem in error.problems)])
    assert words in shown


def test_a_prompt_that_begins_like_a_comment_or_json_survives() -> None:
    prompts = ["#1 dog", "{a dog}", 'a "dog"', "ein Hündchen"]
    assert parse_prompts(written(prompts).encode()).prompts == prompts


@pytest.mark.parametrize(("name", "words"), [("nowhere.txt", "does not exist"), (".", "is a folder")])
def test_a_file_of_prompts_that_is_none_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_spec({"recipe": "rlhf", "prompts": str(tmp_path / name)})
    (problem,) = caught.value.problems
    assert problem.where == "prompts"
    assert words in problem.what


def test_photos_are_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="1 problem") as caught:
        build_spec({"recipe": "rlhf", "images": str(tmp_path)})
    (problem,) = caught.value.problems
    assert problem.where == "images"


def plan_pairs(folder: Path, rows: list[dict[str, Any]]) -> Any:
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, name in enumerate(("b.png", "a.png", "c.png")):
        Image.effect_noise((80, 80), 50 + number).convert("RGB").save(pictures / name)
    text = "\n".join(json.dumps(row) for row in rows)
    (pictures / PREFERENCES_FILE).write_text(text)
    spec = build_spec({"recipe": "rlhf", "images": str(pictures), "settings": {"algorithm": "dpo"}})
    return prepare_inputs(spec, folder / "staging")


def test_pairs_go_by_the_names_of_the_prepared_pictures(tmp_path: Path) -> None:
    prepared = plan_pairs(tmp_path, [{"chosen": "c.png", "rejected": "a.png", "prompt": "a dog", "by": "me"}])
    assert prepared.error is None
    assert set(prepared.trees) == {"training"}
    (row,) = (tmp_path / "staging" / "images" / PREFERENCES_FILE).read_text().splitlines()
    assert json.loads(row) == {"chosen": "00003.png", "rejected": "00001.png", "prompt": "a dog"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": "a.png", "rejected": "z.png", "prompt": "a dog"}, 'names "z.png"'),
        ({"chosen": "a.png", "rejected": "a.png", "prompt": "a dog"}, "names one picture twice"),
        ({"chosen": "a.png", "prompt": "a dog"}, "rejected"),
        ({"chosen": "a.png", "rejected": "b.png", "prompt": ""}, "prompt"),
    ],
)
def test_pairs_that_cannot_be_used_are_refused(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    error = plan_pairs(tmp_path, [row]).error
    assert isinstance(error, DatasetError)
    assert words in " ".join(problem.render() for problem in error.problems)


def test_dpo_without_pairs_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        build_spec({"recipe": "rlhf", "settings": {"algorithm": "dpo"}})
    (problem,) = caught.value.problems
    assert problem.where == "images"
    assert "preferences.jsonl" in problem.render()
