"""Where a run can be followed while it trains: TensorBoard's files always, W&B and MLflow when asked for.

The latter through accelerate's trackers: https://huggingface.co/docs/accelerate/usage_guides/tracking
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from entrypoints.evaluation.samples import listed_images
from entrypoints.runtime.failures import TrainingError, first_line
from entrypoints.runtime.pictures import read_image
from entrypoints.training.board import Board
from entrypoints.training.run import Run
from orchestrator.contract.environment import Environment
from orchestrator.contract.events import Step, Warned, emit
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.trackers import MLFLOW, WANDB, tracker_fault

PROJECT = "orchestrator"
"""Project of W&B, and experiment of MLflow, where their own variables name no other."""
RUNS_FILE = "trackers.json"
"""Beside the checkpoints: the id that each service gave the run, which an attempt after this one goes on with."""


class Tracker(Protocol):
    """Something that keeps the curve of a run."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Keep what was measured at a step."""

    def finish(self) -> None:
        """Write what is not written yet."""


class Trackers:
    """The trackers of a run. One that fails is given up with a warning: the run does not need it."""

    def __init__(self) -> None:
        self.trackers: dict[str, Tracker] = {}

    def log(self, event: Step) -> None:
        """Keep a step."""
        values = {
            "loss": event.loss,
            "learning_rate": event.learning_rate,
            "seconds_per_step": event.seconds_per_step,
            **event.measures,
        }
        self._each(lambda tracker: tracker.log(values, event.step))

    def show(self, samples: Path, step: int) -> None:
        """Put the validation images of a step on TensorBoard's page."""
        self._each(lambda tracker: _show(tracker, samples, step))

    def finish(self) -> None:
        """Write what is not written yet; nothing can be kept afterwards."""
        self._each(lambda tracker: tracker.finish())
        self.trackers.clear()

    def _each(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                action(tracker)
            except Exception as error:  # noqa: BLE001 - a full disk, a service that does not answer
                del self.trackers[name]
                emit(Warned(message=f"{name} gets nothing any more, and training goes on: {first_line(error)}"))


def _show(tracker: Tracker, samples: Path, step: int) -> None:
    if not isinstance(tracker, Board):
        return
    for image in listed_images(samples).values():
        if image.step == step:
            tracker.show(image.prompt, read_image(samples / image.file), step)


@contextmanager
def tracking(run: Run, done: int) -> Iterator[Trackers]:
    """Open the trackers of a run that resumes after `done` steps, on the first rank; close them in the end.

    Raises TrainingError("tracker") when one that was asked for cannot be used.
    """
    trackers = Trackers()
    try:
        if run.ranks.is_first:
            _open(run, done, trackers.trackers)
        yield trackers
    finally:
        trackers.finish()


def require_trackers(recipe: Recipe) -> None:
    """Raise TrainingError("tracker") when the package or the key of one that is asked for is missing."""
    for name in recipe.trackers:
        fault = tracker_fault(name)
        if fault is not None:
            raise TrainingError("tracker", f"{name} cannot be used: {fault.what}.", f"To go on, {fault.fix}.")


def _open(run: Run, done: int, opened: dict[str, Tracker]) -> None:
    """Add the trackers of a run to those that are open."""
    try:
        opened["TensorBoard"] = Board(run.environment.tensorboard, done)
    except OSError as error:
        emit(Warned(message=f"There are no files for TensorBoard: {error}"))
    runs = _read_runs(run.environment)
    for name in run.recipe.trackers:
        try:
            opened[name], runs[name] = _STARTS[name](run, runs.get(name))
        except Exception as error:
            raise TrainingError(
                "tracker",
                f"{name} does not take the run: {first_line(error)}",
                "Check its key and address, or submit again without it: -s trackers=[].",
            ) from error
    if run.recipe.trackers:
        _write_runs(run.environment, runs)


def _start_wandb(run: Run, earlier: str | None) -> tuple[Tracker, str]:
    """Begin a run of W&B, or go on with an earlier one; return its tracker and its id."""
    from accelerate import PartialState
    from accelerate.tracking import WandBTracker

    PartialState()  # the trackers of accelerate ask it whether this is the first process
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")  # the log is the job's own
    tracker = WandBTracker(
        os.environ.get("WANDB_PROJECT", PROJECT),
        name=run.title,
        id=earlier,
        resume="allow",
        dir=str(run.environment.tensorboard.parent),
    )
    tracker.start()
    tracker.store_init_configuration(_settings(run))
    return tracker, str(tracker.tracker.id)


def _start_mlflow(run: Run, earlier: str | None) -> tuple[Tracker, str]:
    """Begin a run of MLflow, or go on with an earlier one; return its tracker and its id."""
    from accelerate import PartialState
    from accelerate.tracking import MLflowTracker

    PartialState()  # as for W&B
    tracker = MLflowTracker(PROJECT, run_id=earlier, run_name=run.title)
    tracker.start()
    if earlier is None:
        tracker.store_init_configuration(_settings(run))
    return tracker, str(tracker.tracker.info.run_id)


_STARTS: Mapping[str, Callable[[Run, str | None], tuple[Tracker, str]]] = {
    WANDB: _start_wandb,
    MLFLOW: _start_mlflow,
}


def _settings(run: Run) -> dict[str, Any]:
    """Return the settings of a run by name, of the kinds that all services take."""
    settings: dict[str, Any] = {"recipe": run.recipe.recipe_name()}
    for name, value in run.recipe.model_dump(mode="json").items():
        if isinstance(value, bool | int | float | str):
            settings[name] = value
        else:
            settings[name] = json.dumps(value, ensure_ascii=False)
    return settings


def _read_runs(environment: Environment) -> dict[str, str]:
    """Return the id of the run at each service; none where an earlier attempt left none that can be read."""
    try:
        runs = json.loads((environment.checkpoints / RUNS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(runs, dict):
        return {}
    return {str(name): str(value) for name, value in runs.items()}


def _write_runs(environment: Environment, runs: Mapping[str, str]) -> None:
    environment.checkpoints.mkdir(parents=True, exist_ok=True)
    text = json.dumps(runs, indent=2)
    (environment.checkpoints / RUNS_FILE).write_text(text + "\n", encoding="utf-8")
