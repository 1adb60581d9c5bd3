"""From lists of settings to jobs."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError
from orchestrator.resources import SAMPLE_IMAGES
from orchestrator.specs.building import build_spec
from orchestrator.specs.job import is_name
from orchestrator.sweeps.grid import MOST_JOBS, Variant, expand
from orchestrator.sweeps.refusal import refusal


def grid(*pairs: str, **fields: Any) -> list[Variant]:
    return expand({"recipe": "dreambooth", **fields}, pairs)


def names(*pairs: str, **fields: Any) -> list[str | None]:
    return [variant.spec.name for variant in grid(*pairs, **fields)]


def refused(*pairs: str, **fields: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        grid(*pairs, **fields)
    return caught.value


def test_every_combination_is_a_job_and_what_is_the_same_for_all_is_no_difference() -> None:
    found = grid("rank=4, 8", "steps=20", "learning_rate=1e-4,5e-4")
    assert [dict(variant.settings) for variant in found] == [
        {"rank": rank, "learning_rate": rate} for rank in ("4", "8") for rate in ("0.0001", "0.0005")
    ]
    assert [variant.spec.recipe.steps for variant in found] == [20] * 4


def test_without_a_name_each_is_the_job_of_a_single_submit() -> None:
    (_, second) = grid("rank=4,8", "steps=20")
    assert second.spec == build_spec({"recipe": "dreambooth"}, {"rank": "8", "steps": "20"})


def test_values_that_hold_commas_are_a_json_list() -> None:
    found = grid('class_prompt=["a monster, big", "a monster"]', "snr_gamma=null,5")
    assert [variant.settings["class_prompt"] for variant in found[::2]] == ["a monster, big", "a monster"]
    assert [variant.spec.recipe.snr_gamma for variant in found[:2]] == [None, 5]  # type: ignore[attr-defined]


def test_a_field_that_is_a_list_takes_a_list_of_lists() -> None:
    pairs = ('validation_prompts=[["a", "b"], []]', "steps=200")
    assert [variant.spec.recipe.validation_prompts for variant in grid(*pairs)] == [("a", "b"), ()]
    same = grid('validation_prompts=["a", "b"]', "rank=1,2", "steps=200")
    assert [variant.spec.recipe.validation_prompts for variant in same] == [("a", "b")] * 2
    assert "JSON list" in refused("validation_prompts=a,b", "rank=1,2").render()


def test_what_is_the_same_twice_is_one_job() -> None:
    assert len(grid("learning_rate=1e-4,0.0001,5e-4", "rank=4,4")) == 2


def test_settings_come_before_the_prompt_of_a_job_file() -> None:
    prompts = ["a photo of sks cat", "a photo of sks dog"]
    found = grid(f"instance_prompt={','.join(prompts)}", images=SAMPLE_IMAGES, prompt="a photo of sks fox")
    assert [variant.spec.recipe.trigger for variant in found] == prompts


def test_every_problem_of_every_job_is_said_once_with_its_settings() -> None:
    error = refused(
        "rank=0,8", "learning_rate=1e-4,5", "steps=0", "stepz=1", images=Path("/no/such/folder"), prompt="sks dog"
    )
    said = [problem.where for problem in error.problems]
    assert sorted(said) == ["images", "learning_rate=5: learning_rate", "rank=0: rank", "steps", "stepz"]
    assert "nothing was started" in error.message


def test_a_problem_of_some_combinations_names_them() -> None:
    error = refused("steps=10,500", "warmup_steps=5,20", "checkpoint_steps=5")
    assert [problem.where for problem in error.problems] == ["steps=10 warmup_steps=20: warmup_steps"]


def test_a_problem_of_scattered_jobs_is_said_of_each() -> None:
    jobs = [{"rank": rank, "seed": seed} for rank in "48" for seed in "01"]
    problem = Problem(where="job", what="has no place")
    error = refusal(jobs, {number: SpecError("no", problems=[problem]) for number in (0, 3)})
    assert [one.where for one in error.problems] == ["rank=4 seed=0: job", "rank=8 seed=1: job"]
    error = refusal(jobs, {number: SpecError("no", problems=[problem]) for number in (1, 3)})
    assert [one.where for one in error.problems] == ["seed=1: job"]


@pytest.mark.parametrize("pairs", [(), ("rank=4",), ("rank=4,4",), ('rank=["4"]',)], ids=str)
def test_one_job_is_no_sweep(pairs: tuple[str, ...]) -> None:
    assert "submit" in refused(*pairs).next_step


@pytest.mark.parametrize("word", ["rank=4,,8", "rank=4,", "rank=[]", "rank"])
def test_a_value_that_is_missing_is_refused(word: str) -> None:
    assert refused(word, "steps=1,2").problems[0].where.startswith("rank")


def test_a_field_that_stands_twice_is_refused() -> None:
    assert refused("rank=4", "rank=8").problems[0].what == "stands twice"


def test_machines_and_money_are_the_same_for_all_jobs_and_part_of_no_name() -> None:
    found = grid("rank=4,8", "compute.volume_gb=200", "budget.max_usd=3", name="dog")
    assert [(one.spec.compute.volume_gb, one.spec.budget.max_usd) for one in found] == [(200, 3)] * 2
    assert [one.spec.name for one in found] == names("rank=4,8", name="dog")
    assert "same for all jobs" in refused("rank=4,8", "budget.max_usd=1,2").problems[0].what


def test_there_is_a_most() -> None:
    assert str(MOST_JOBS) in refused(f"seed={','.join(map(str, range(MOST_JOBS + 1)))}").message


def test_names_say_the_settings_and_stay_when_values_are_added() -> None:
    first = names("rank=4,8", "learning_rate=1e-4,0.00015", name="dog")
    assert first == [f"dog-lr{rate}-rank{rank}" for rank in (4, 8) for rate in ("1e-4", "15e-5")]
    assert set(first) < set(names("learning_rate=1e-4,0.00015,0.5", "rank=4,8,16", name="dog"))
    # A setting that was the same for all is part of the name, so that it can become one that differs.
    assert set(names("rank=4,8", "steps=300", name="dog")) < set(names("rank=4,8", "steps=300,400", name="dog"))


@pytest.mark.parametrize(
    "pairs",
    [
        ('class_prompt=["a monster, big", "a monster"]',),
        ("rank=4,8", "train_text_encoder=true", "prior_preservation=false", "warmup_steps=0", "weight_decay=0.123456"),
    ],
    ids=str,
)
def test_settings_that_make_no_name_are_hashed_for_one(pairs: tuple[str, ...]) -> None:
    found = names(*pairs, name="dog")
    assert len(set(found)) == 2
    assert all(name is not None and is_name(name) and len(name) == len("dog-01234567") for name in found)
    assert found == names(*reversed(pairs), name="dog")


def test_a_name_that_leaves_no_room_is_refused() -> None:
    assert "too long" in refused('class_prompt=["a, b", "c"]', name="d" * 35).render()
