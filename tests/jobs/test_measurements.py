"""What this machine measured of its own jobs, real processes that report steps as training does."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.local_plan import expected_text
from orchestrator.contract.recipe import to_hyperparameters
from orchestrator.jobs.job import Job
from orchestrator.jobs.measurements import expected_here, measured_runs
from orchestrator.models.size import of_folder
from orchestrator.planning.duration import DrawnBatch
from orchestrator.requests import Request
from orchestrator.resources import BUILTIN_MODEL, SAMPLE_IMAGES
from orchestrator.settings import Settings
from orchestrator.specs.building import build_spec
from orchestrator.targets.local.process import ProcessTarget

STEPS = """
first = 1
if list((root / "checkpoints").iterdir()):
    first = 41
    emit(event="resumed", step=40)
for step in range(first, {last} + 1):
    emit(event="step", step=step, of=80, loss=0.5, learning_rate=1e-4, seconds_per_step=0.01)
"""
IMAGES = """
from datetime import datetime, timedelta
began = datetime.fromisoformat(json.loads(open(root.parent / "log.txt").readline())["at"])
def at(seconds):
    return (began + timedelta(seconds=seconds)).isoformat()
emit(at=at(2), event="phase", name="loading")
emit(at=at(7), event="phase", name="class images", of=32)
emit(at=at(20), event="item", done=32, of=32)
emit(at=at(25), event="phase", name="training", of=80)
for step in range(1, 81):
    emit(at=at(26), event="step", step=step, of=80, loss=0.5, learning_rate=1e-4, seconds_per_step=0.01)
emit(at=at(60), event="phase", name="contact sheet", of=32)
emit(at=at(90), event="item", done=16, of=32)
emit(at=at(93), event="item", done=32, of=32)
finish()
"""
Run = Callable[..., Job]


@pytest.fixture
def target(settings: Settings) -> ProcessTarget:
    return ProcessTarget(settings, lock_seconds=1)


@pytest.fixture
def run(target: ProcessTarget, training_request: Callable[..., Request]) -> Run:
    """Run a script as a job of the built-in model and wait for its end."""

    def start(script: str, name: str, **settings: Any) -> Job:
        spec = build_spec({"recipe": "dreambooth", "settings": {"steps": 80, **settings}})
        request = training_request(script, name=name)
        request["HyperParameters"] = to_hyperparameters(spec.recipe)
        source = {
            "S3DataType": "S3Prefix",
            "S3Uri": BUILTIN_MODEL.as_uri(),
            "S3DataDistributionType": "FullyReplicated",
        }
        request["InputDataConfig"].append({"ChannelName": "base_model", "DataSource": {"S3DataSource": source}})
        target.create(request)
        job = Job(target, name)
        job.wait()
        return job

    return start


def expected(target: ProcessTarget, **settings: Any) -> str:
    found = expected_here(
        build_spec({"recipe": "dreambooth", "settings": {"steps": 80, **settings}}), measured_runs(target)
    )
    assert found is not None
    return found.describe()


def test_the_next_job_is_expected_to_be_as_fast_as_the_last(target: ProcessTarget, run: Run) -> None:
    assert "nothing was measured" in expected(target)
    run(STEPS.format(last=80) + "\nfinish()", "whole")
    (measured,) = measured_runs(target)
    assert measured.seconds_per_step == 0.01
    assert "0.01 s a step in whole" in expected(target)
    assert "0.01 s a step in whole" in expected(target, steps=9000, rank=4)
    assert "whole reached here with other settings" in expected(target, batch_size=1)


def test_start_and_images_are_measured_by_their_own_events(target: ProcessTarget, run: Run) -> None:
    run(IMAGES, "drawn")
    (measured,) = measured_runs(target)
    assert measured.start_seconds == 7
    assert measured.batch == DrawnBatch(images=16, seconds=3)  # the first of the sheet waited for the base model


def test_images_of_the_class_tell_until_others_are_drawn(target: ProcessTarget, run: Run) -> None:
    sheet = IMAGES.index("emit(at=at(60)")
    run(IMAGES[:sheet], "cut")
    (measured,) = measured_runs(target)
    assert measured.batch == DrawnBatch(images=32, seconds=13)


@pytest.mark.parametrize(
    "items",
    [
        ((70, 16), (73, 32), (74, 32)),  # a line twice
        ((70, 16), (73, 32), (74, 31)),
        ((70, 16), (73, 32), (64, 48)),  # the clock was set back
        ((70, 16), (70 + 10**9, 32), (73 + 10**9, 48)),  # the machine slept
        ((70, 16), (73, 32), (10**9, 48)),
        ((70, 16), (73, 32), (74, 34)),  # the rest, and no whole batch
    ],
)
def test_a_log_with_any_items_leaves_the_rate_of_whole_batches(
    target: ProcessTarget, run: Run, items: tuple[tuple[int, int], ...]
) -> None:
    sheet = IMAGES.index("emit(at=at(90)")
    lines = [f'emit(at=at({at}), event="item", done={done}, of=99)' for at, done in items]
    run(IMAGES[:sheet] + "\n".join(lines), "drawn")
    (measured,) = measured_runs(target)
    assert measured.batch == DrawnBatch(images=16, seconds=3)
    assert re.search("minute|second", expected(target))


def test_a_log_without_a_whole_item_leaves_an_estimate(target: ProcessTarget, run: Run) -> None:
    sheet = IMAGES.index("emit(at=at(60)")
    for number, line in enumerate(("at=at(70), done=0", "at=at(60), done=2", "at=at(20), done=2")):
        wrong = f'emit(at=at(60), event="phase", name="contact sheet", of=2)\nemit(event="item", of=2, {line})'
        run(IMAGES[:sheet].replace("done=32", "done=0") + wrong, f"cut-{number}")
        assert measured_runs(target)[0].batch is None
        assert re.search("minute|second", expected(target))


def test_the_time_in_the_queue_is_not_that_of_the_start(target: ProcessTarget, run: Run) -> None:
    run(IMAGES, "waited")
    log = target.settings.jobs / "waited" / "log.txt"
    queued = '{"event": "phase", "name": "queued behind another", "at": "2020-01-01T00:00:00+00:00"}'
    log.write_text(f"{queued}\n{log.read_text()}")
    (measured,) = measured_runs(target)
    assert measured.start_seconds == 7


def test_a_job_on_other_processors_is_told_apart(
    target: ProcessTarget, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(STEPS.format(last=80) + "\nfinish()", "whole")
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    assert "with other processors" in expected(target)


def test_runs_that_say_nothing_of_the_speed_are_left_out(target: ProcessTarget, run: Run) -> None:
    run("finish()", "without-steps")
    run(STEPS.format(last=3), "too-short")
    damaged = target.settings.jobs / "damaged"
    damaged.mkdir()
    (damaged / "request.json").write_text("[]")
    assert measured_runs(target) == []


def test_a_log_line_with_any_number_leaves_an_estimate(target: ProcessTarget, run: Run) -> None:
    run(STEPS.format(last=80) + "\nfinish()", "whole")
    log = target.settings.jobs / "whole" / "log.txt"
    written = log.read_text()
    for seconds in ("0", "-0.0", "5e-324", "-1", "NaN", "1e400", "1e308"):
        log.write_text(written.replace('"seconds_per_step": 0.01', f'"seconds_per_step": {seconds}'))
        for batch_size in (1, 2):
            assert re.search("minute|second", expected(target, batch_size=batch_size)), seconds


def test_a_resumed_run_tells_its_speed_by_the_steps_of_its_own(target: ProcessTarget, run: Run) -> None:
    resumes_late = STEPS.replace("step=40", "step=77").replace("first = 41", "first = 78")
    job = run(resumes_late.format(last=40) + "\ncheckpoint(40); sys.exit(1)", "cut")
    assert len(measured_runs(target)) == 1
    bundle = target.settings.home.parent / "bundle-cut" / "entrypoints" / "train.py"
    bundle.write_text(
        bundle.read_text().replace("range(first, 40 + 1)", "range(first, 80 + 1)").replace("sys.exit(1)", "finish()")
    )
    job.resume()
    job.wait()
    assert measured_runs(target) == []  # three steps are too few


def test_a_log_of_any_size_is_read_at_its_ends_alone(target: ProcessTarget, run: Run) -> None:
    run(STEPS.format(last=80) + "\nfinish()", "noisy")
    log = target.settings.jobs / "noisy" / "log.txt"
    step = next(line for line in reversed(log.read_text().splitlines()) if '"step"' in line)
    os.truncate(log, 10**12)  # takes no room on the disk, and is more than fits into memory
    with log.open("a") as file:
        file.write(f"\n{step}\n")
    (measured,) = measured_runs(target)
    assert measured.seconds_per_step == 0.01


def test_a_base_model_of_many_jobs_is_measured_once(
    target: ProcessTarget, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        run(STEPS.format(last=80), f"job-{number}")
    measured = []

    def measure(folder: Path) -> Any:
        measured.append(folder)
        return of_folder(folder)

    monkeypatch.setattr("orchestrator.jobs.measurements.of_folder", measure)
    assert len(measured_runs(target)) == 3
    assert measured == [BUILTIN_MODEL]


def test_a_model_of_unknown_size_is_not_said_to_be_the_first_job_of_a_machine(target: ProcessTarget, run: Run) -> None:
    fields = {"recipe": "dreambooth", "base_model": "someone/a-model", "prompt": "a photo of sks dog"}
    unknown = build_spec({**fields, "images": str(SAMPLE_IMAGES)})
    assert expected_text(unknown, target) == "unknown: no job that tells the speed of this machine has run yet"
    run(STEPS.format(last=80), "done")
    assert "no job with this model has run" in expected_text(unknown, target)
