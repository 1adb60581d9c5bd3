"""A run can be followed while it trains; what follows it neither ends it nor changes it."""

import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from tensorboardX.proto.event_pb2 import Event, SessionLog

from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.digest import hash_files

STAND_IN = """
runs = []
class Run:
    id = "abc"
    config = {}
    def __init__(self, options): self.options, self.logged, self.finished = options, {}, False
    def log(self, values, step=None, **_):
        if step == fails_at: raise ConnectionError("no route to host\\nand more")
        self.logged[step] = values
    def finish(self): self.finished = True
fails_at = None
class Config(dict):
    def update(self, values, **_): super().update(values)
config = Config()
def init(**options):
    runs.append(Run(options))
    runs[-1].config = config
    return runs[-1]
"""


def events_in(folder: Path) -> list[list[Event]]:
    """Return the events of each of TensorBoard's files, the oldest first: TFRecords, without their checksums."""
    files = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data, events = path.read_bytes(), []
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[12 + length + 4 :]
        files.append(events)
    return files


def shown_in(folder: Path, tag: str) -> dict[int, float]:
    """Return a curve as TensorBoard shows it: an attempt hides what earlier ones wrote after its first step."""
    curve: dict[int, float] = {}
    for events in events_in(folder):
        for event in events:
            if event.session_log.status == SessionLog.START:
                curve = {step: value for step, value in curve.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == tag:
                    assert event.step not in curve
                    curve[event.step] = value.simple_value
    return curve


def test_tensorboard_shows_each_step_once_and_the_validation_images(job: Any, run: Any) -> None:
    recipe = tiny.textual_inversion(
        steps=6,
        checkpoint_steps=2,
        keep_checkpoints=9,
        validation_prompts=("a dog",),
        validation_steps=3,
        evaluation_prompts=0,
    )
    environment = job(recipe)
    steps = [event for event in run(environment) if event["event"] == "step"]
    for step in (4, 6):
        (environment.checkpoints / f"step-{step:08}" / "checkpoint.json").unlink()
    run(environment)
    folder = environment.tensorboard
    assert [events[0].file_version for events in events_in(folder)] == ["brain.Event:2"] * 2
    assert shown_in(folder, "loss") == {event["step"]: pytest.approx(event["loss"]) for event in steps}
    assert list(shown_in(folder, "learning_rate")) == [1, 2, 3, 4, 5, 6]
    images = [
        (event.step, (value.image.width, value.image.height))
        for events in events_in(folder)
        for event in events
        for value in event.summary.value
        if value.HasField("image")
    ]
    assert images == [(step, (tiny.SIDE, tiny.SIDE)) for step in (3, 6, 3, 6)]


def test_a_run_without_a_place_for_tensorboards_files_goes_on(job: Any, run: Any) -> None:
    environment = job(tiny.textual_inversion(evaluation_prompts=0))
    environment.tensorboard.parent.mkdir(parents=True)
    environment.tensorboard.touch()
    (warning,) = [event["message"] for event in run(environment) if event["event"] == "warning"]
    assert "no files for TensorBoard" in warning
    assert (environment.model / "adapter.json").is_file()


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A W&B that keeps what it is given: the real one sends it to its makers."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("WANDB_API_KEY", "a key")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    import wandb

    yield wandb
    del sys.modules["wandb"]


def test_a_service_that_is_asked_for_gets_every_step_and_goes_on_with_its_run(wandb: Any, job: Any, run: Any) -> None:
    asked, plain = (
        tiny.textual_inversion(steps=4, checkpoint_steps=2, evaluation_prompts=0, trackers=names)
        for names in (["wandb"], [])
    )
    followed, alone = job(asked, "followed"), job(plain, "alone")
    run(followed)
    run(alone)
    (first,) = wandb.runs
    assert list(first.logged) == [1, 2, 3, 4]
    assert first.finished
    assert first.options["id"] is None
    assert wandb.config["recipe"] == "textual-inversion"
    assert wandb.config["vectors"] == 2
    weights = "learned_embeds.safetensors"
    digests = [hash_files(environment.checkpoints / "step-00000004") for environment in (followed, alone)]
    assert digests[0]["tensors.safetensors"] == digests[1]["tensors.safetensors"]
    assert (followed.model / weights).is_file()
    (followed.checkpoints / "step-00000004" / "checkpoint.json").unlink()
    run(followed)
    assert wandb.runs[-1].options["id"] == "abc"
    assert list(wandb.runs[-1].logged) == [3, 4]


def test_a_service_that_fails_on_the_way_is_given_up(wandb: Any, job: Any, run: Any) -> None:
    wandb.fails_at = 2
    environment = job(tiny.textual_inversion(steps=4, trackers=["wandb"], evaluation_prompts=0))
    warnings = [event["message"] for event in run(environment) if event["event"] == "warning"]
    assert warnings == ["wandb gets nothing any more, and training goes on: no route to host"]
    assert list(wandb.runs[0].logged) == [1]
    assert list(shown_in(environment.tensorboard, "loss")) == [1, 2, 3, 4]


def test_a_service_that_refuses_the_run_is_told_before_the_first_step(wandb: Any, job: Any, run: Any) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError("the key is not valid")

    wandb.init = refuse
    environment = job(tiny.textual_inversion(trackers=["wandb"], evaluation_prompts=0))
    with pytest.raises(TrainingError, match="wandb does not take the run: the key is not valid") as raised:
        run(environment)
    assert "trackers=[]" in raised.value.next_step
    assert not list(environment.checkpoints.glob("step-*"))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_told_before_anything_is_loaded(
    name: str, job: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    environment = job(tiny.textual_inversion(trackers=[name]), base_model=None)
    with pytest.raises(TrainingError, match=f"{name} cannot be used: its package is not installed") as raised:
        run(environment)
    assert "pip install" in raised.value.next_step
