from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.specs.building import build_spec
from orchestrator.specs.job import JobSpec
from orchestrator.specs.job_file import read_job_file


def problems(**fields: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as raised:
        build_spec({"recipe": "dreambooth", **fields})
    return {problem.where: problem.render() for problem in raised.value.problems}


def spec(**fields: Any) -> JobSpec:
    return build_spec({"recipe": "dreambooth", **fields})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instance_count", 0),
        ("volume_gb", 0),
        ("volume_gb", 20_000),
        ("max_runtime_minutes", 4),
        ("max_runtime_minutes", 28 * 24 * 60 + 1),
        ("retry_attempts", 31),
        ("retry_attempts", -1),
        ("instance_type", "ml.m5.xlarge"),
        ("instance_type", "ml.g5.xlarg"),
    ],
)
def test_what_the_service_would_refuse_is_refused_here(field: str, value: object) -> None:
    assert set(problems(compute={field: value})) == {f"compute.{field}"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_wait_minutes": 600}, "spot"),
        ({"spot": True, "max_runtime_minutes": 120, "max_wait_minutes": 60}, "at least max_runtime_minutes"),
    ],
)
def test_settings_that_contradict_one_another(fields: dict[str, Any], message: str) -> None:
    assert message in problems(compute=fields)["compute"]


def test_an_unknown_field_suggests_the_nearest() -> None:
    assert "instance_type" in problems(compute={"instance_typ": "ml.g5.xlarge"})["compute.instance_typ"]
    assert "max_usd" in problems(budget={"max_us": 3})["budget.max_us"]


@pytest.mark.parametrize("usd", [0, -1, "much", ".nan", "inf"])
def test_a_budget_is_an_amount_of_money(usd: object) -> None:
    assert "budget.max_usd" in problems(budget={"max_usd": usd})


def test_problems_of_the_machines_come_with_all_the_others() -> None:
    found = problems(compute={"instance_count": 0}, budget={"max_usd": 0}, settings={"steps": 0}, name="no spaces")
    assert set(found) == {"compute.instance_count", "budget.max_usd", "steps", "name"}


def test_spot_is_refused_for_a_run_without_a_checkpoint() -> None:
    short = {"spot": True, "max_runtime_minutes": 30}
    found = problems(compute=short, settings={"checkpoint_minutes": 25})
    assert "checkpoint_minutes=25" in found["compute"]
    assert spec(compute=short, settings={"checkpoint_minutes": 20}).compute.spot
    assert spec(compute=short, settings={"checkpoint_minutes": 60, "checkpoint_steps": 10}).compute.spot
    assert "compute" in problems(compute=short, settings={"checkpoint_minutes": 60, "checkpoint_steps": 180})
    assert spec(compute={"max_runtime_minutes": 30}, settings={"checkpoint_minutes": 25})


def test_machines_and_budget_do_not_make_another_job() -> None:
    elsewhere = spec(compute={"instance_type": "ml.p5.4xlarge", "spot": True}, budget={"max_usd": 40})
    assert elsewhere.identity("data", "model") == spec().identity("data", "model")


def test_a_job_file_has_sections_for_machines_and_budget(tmp_path: Any) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "recipe: dreambooth\ncompute:\n  instance_type: ml.g6.xlarge\n  spot: true\nbudget:\n  max_usd: 2.5\n"
    )
    read = build_spec(read_job_file(job))
    assert (read.compute.instance_type, read.compute.spot, str(read.budget.max_usd)) == ("ml.g6.xlarge", True, "2.5")


def test_waiting_for_spot_ends_within_what_the_service_allows() -> None:
    longest = 28 * 24 * 60
    machines = spec(compute={"spot": True, "max_runtime_minutes": longest}).compute
    assert machines.wait_seconds(longest * 60) == longest * 60
    assert spec(compute={"spot": True}).compute.wait_seconds(3600) == 3600 + 12 * 3600
    assert spec().compute.wait_seconds(3600) is None


def test_machines_and_budget_can_be_set_on_the_command_line() -> None:
    words = {"compute.volume_gb": "200", "compute.spot": "true", "budget.max_usd": "3.50", "steps": "12"}
    job = build_spec({"recipe": "dreambooth", "compute": {"volume_gb": 100, "retry_attempts": 1}}, words)
    assert (job.compute.volume_gb, job.compute.spot, job.compute.retry_attempts) == (200, True, 1)
    assert str(job.budget.max_usd) == "3.50"
    assert job.recipe.steps == 12
    with pytest.raises(SpecError) as raised:
        build_spec({"recipe": "dreambooth"}, {"compute.volume_gb": "much", "compute.disk": "3"})
    assert {problem.where for problem in raised.value.problems} == {"compute.volume_gb", "compute.disk"}
