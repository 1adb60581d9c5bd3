"""Every run leaves a report, however it ends; and none fails by it."""

from contextlib import redirect_stdout
from typing import Any

import pytest
import tiny

from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.history import read_history
from entrypoints.runtime.stop import StopFlag, Stopped
from entrypoints.train import run_recipe
from orchestrator.contract.digest import hash_files
from orchestrator.contract.environment import Environment

STEPS = 6


def status_of(environment: Environment) -> str:
    page = environment.report.read_text(encoding="utf-8")
    return page.partition('<span class="status ')[2].partition('"')[0]


def recorded(environment: Environment) -> list[int]:
    return [record.step for record in read_history(environment.checkpoints)]


def test_a_stopped_run_and_its_end_leave_a_report_and_each_step_once(job: Any, run: Any) -> None:
    recipe = tiny.textual_inversion(steps=STEPS, evaluation_prompts=1)
    whole, stopped = job(recipe, "whole"), job(recipe, "stopped")
    run(whole)
    stop = StopFlag()
    with pytest.raises(Stopped), redirect_stdout(tiny.StopAfter(4, stop)):
        run_recipe(stopped, stop)
    assert (status_of(stopped), recorded(stopped)) == ("Stopped", [1, 2, 3, 4])
    run(stopped)
    assert (status_of(stopped), recorded(stopped)) == ("Completed", list(range(1, STEPS + 1)))
    curves = [read_history(one.checkpoints) for one in (whole, stopped)]
    losses = [[(record.step, record.loss, record.learning_rate) for record in curve] for curve in curves]
    assert losses[0] == losses[1]
    assert hash_files(whole.model) == hash_files(stopped.model)
    assert "report.html" not in hash_files(whole.model)


def test_steps_that_no_checkpoint_has_are_trained_and_shown_once(job: Any, run: Any) -> None:
    environment = job(tiny.textual_inversion(steps=STEPS, checkpoint_steps=2, keep_checkpoints=9, evaluation_prompts=0))
    run(environment)
    for step in (4, 6):
        (environment.checkpoints / f"step-{step:08}" / "checkpoint.json").unlink()
    events = run(environment)
    assert {"event": "resumed", "step": 2} in events
    assert recorded(environment) == list(range(1, STEPS + 1))


def test_a_failed_run_shows_where_it_went(job: Any, run: Any) -> None:
    environment = job(tiny.textual_inversion(steps=STEPS, evaluation_prompts=0))
    picture = environment.root / "input" / "data" / "training" / "0.png"
    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(TrainingError, match="cannot be decoded"):
        run(environment)
    page = environment.report.read_text(encoding="utf-8")
    assert status_of(environment) == "Failed"
    assert "Replace or remove this image." in page
    assert "cannot be shown: training image 1" in page


def test_a_report_that_cannot_be_written_ends_no_run(job: Any, run: Any) -> None:
    environment = job(tiny.textual_inversion(evaluation_prompts=0))
    environment.report.mkdir(parents=True)
    (environment.report / "in the way").touch()
    (warning,) = [event["message"] for event in run(environment) if event["event"] == "warning"]
    assert "report was not written" in warning
    assert (environment.model / "adapter.json").is_file()
    assert [path.name for path in environment.report.parent.iterdir()] == [environment.report.name]
