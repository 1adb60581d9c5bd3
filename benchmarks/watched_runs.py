"""Runs that the watchdog looks at: the first tenth of a real job, good or sabotaged."""

import io
import math
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from benchmarks.sabotages import SABOTAGES, Sabotage  # noqa: E402
from benchmarks.sample_job import lay_out, sample_recipe  # noqa: E402
from entrypoints.runtime.failures import TrainingError  # noqa: E402
from entrypoints.runtime.stop import StopFlag, Stopped  # noqa: E402
from entrypoints.train import run_recipe  # noqa: E402
from entrypoints.training.watchdog import LOOKS  # noqa: E402
from orchestrator.contract.events import Step, Warned, parse  # noqa: E402
from orchestrator.contract.recipe import Recipe  # noqa: E402

WATCHED = ("a small red circle on a white background", "a large blue star on a green background", "a yellow square")
"""Validation prompts of every run that would draw nothing else while it trains."""


class Trial(BaseModel):
    """One run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: str
    seed: int
    sabotage: str | None = None
    """Name of the mistake; None in a good run."""

    @property
    def planted(self) -> Sabotage:
        """What is wrong with it."""
        if self.sabotage is None:
            return Sabotage(recipe=self.recipe)
        return SABOTAGES[self.sabotage]

    def declaration(self) -> Recipe:
        """Return the recipe: its defaults, what the mistake changes of them, and images at the end of the tenth."""
        settings = {"seed": self.seed, **self.planted.settings}
        recipe = sample_recipe(self.recipe, **settings)
        if recipe.draws_meanwhile:
            return recipe
        return sample_recipe(
            self.recipe,
            **settings,
            validation_prompts=WATCHED,
            validation_steps=tenth_of(recipe),
        )


class Result(BaseModel):
    """What came of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trial: Trial
    steps: int
    """That it took before it was cut off, or failed."""
    alarms: tuple[str, ...]
    """What it warned of or failed with."""
    seconds: float


class Told(io.StringIO):
    """What a run says; asks it to stop behind a step, when the images of that step are drawn."""

    def __init__(self, stop: StopFlag, last: int) -> None:
        super().__init__()
        self.stop = stop
        self.last = last
        self.steps = 0
        self.warnings: list[str] = []

    def write(self, text: str) -> int:
        """Take an event, which is written at once."""
        event = parse(text)
        if isinstance(event, Step):
            self.steps = event.step
            self.stop.asked = event.step > self.last
        elif isinstance(event, Warned):
            self.warnings.append(event.message)
        return len(text)


def tenth_of(recipe: Recipe) -> int:
    """Return the step in which the watchdog looks at a run for the last time."""
    return math.ceil(max(LOOKS) * recipe.steps)


def run(trial: Trial) -> Result:
    """Run the first tenth of a job. Raises RuntimeError if it ended early and said nothing of it."""
    recipe = trial.declaration()
    stop = StopFlag()
    told = Told(stop, tenth_of(recipe))
    alarms: list[str] = []
    began = time.monotonic()
    planted = trial.planted
    with (
        tempfile.TemporaryDirectory() as folder,
        planted.planted(),
        redirect_stdout(told),
        redirect_stderr(io.StringIO()),
    ):
        environment = lay_out(Path(folder), recipe, shuffled=planted.shuffled)
        try:
            run_recipe(environment, stop)
        except Stopped:
            pass
        except TrainingError as error:
            alarms.append(error.message)
    alarms += told.warnings
    if not alarms and told.steps <= told.last:
        raise RuntimeError(f"{trial} ended after {told.steps} steps, before the watchdog had looked at it")
    return Result(trial=trial, steps=told.steps, alarms=tuple(alarms), seconds=time.monotonic() - began)
