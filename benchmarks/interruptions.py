"""Interrupt real jobs on a SageMaker that runs, and compare the adapter with that of an uninterrupted one.

`python -m benchmarks.interruptions` does forty at random moments and writes the table.
"""

import random
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from sagemaker_simulator import Interruption, SimulatorError

from benchmarks.cloud import (
    RECIPES,
    SETTINGS,
    STEPS,
    Cloud,
    adapter_hashes,
    cloud,
    reach_limit,
    steps_in,
    submit,
    uninterrupted,
    whole_checkpoints,
)
from benchmarks.report import write_section
from orchestrator.targets.sagemaker.attempts import attempt_name

INTERRUPTIONS = 40
KINDS = (
    "taken",
    "taken with notice",
    "taken while a checkpoint is copied",
    "time limit",
    "time limit, killed after the grace",
    "stopped",
)


@dataclass
class Tally:
    """What was met."""

    runs: int = 0
    unequal: int = 0
    """Adapters whose bytes differ from those of the uninterrupted job."""
    astray: int = 0
    """Containers that went on elsewhere than behind the newest whole checkpoint in the bucket."""
    kinds: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    """Steps that had to be done once more, by kind."""


class Moment(NamedTuple):
    """When something befalls a job, and what."""

    line: str
    """As soon as a container has printed a line that contains this."""
    checkpoint: str
    """Folder of the checkpoint that comes next."""
    kind: str
    """One of KINDS."""


def moments(dice: random.Random) -> list[Moment]:
    """Throw up to four moments of a run, in their order, so far apart that the job comes to each of them."""
    steps, every = [first + dice.randint(0, 1) for first in range(1, STEPS, 3)], SETTINGS["checkpoint_steps"]
    places = [('"loading"', 0), *((f'"step":{step},', step) for step in steps)]
    return [
        Moment(line, f"step-{(step // every + 1) * every:08d}", dice.choice(KINDS))
        for line, step in sorted(dice.sample(places, dice.randint(1, 4)), key=itemgetter(1))
    ]


class Course:
    """A job on its way through interruptions."""

    def __init__(self, there: Cloud, recipe: str, tally: Tally) -> None:
        self.there = there
        self.simulator = there.simulator
        self.tally = tally
        self.job = submit(there, f"interrupted-{tally.runs}", recipe, spot=True)
        self.attempts = 1
        self.seen = 0
        """Lines of the attempt's log that belong to earlier containers."""
        self.done = 0
        """Steps that the container need not do again."""

    @property
    def attempt(self) -> str:
        """The service's name of the job that runs now."""
        return attempt_name(self.job.name, self.attempts)

    def run(self, planned: list[Moment]) -> dict[str, str]:
        """Let everything happen that is planned, go on each time, and return the adapter's hashes."""
        for moment in planned:
            self.simulator.run_until(self.attempt, "Training")
            self._wait_for(moment.line)
            self._interrupt(moment)
            self.simulator.run_until(self.attempt, "Interrupted", "Stopped", "Completed")
            if self.simulator.job(self.attempt).status == "Completed":  # the moment came too late
                break
            self._note(moment.kind)
        if self.simulator.run_to_end(self.attempt).status != "Completed":
            raise AssertionError(self.job.describe())
        self._look_where_it_went_on()
        self.tally.runs += 1
        return adapter_hashes(self.there, self.job)

    def _lines(self) -> list[str]:
        """Return what the container of now, or the last one, has printed."""
        return self.simulator.log_lines(self.attempt)[self.seen :]

    def _wait_for(self, text: str) -> None:
        driver = self.simulator.driver(self.simulator.job(self.attempt))
        self.simulator.wait_for(lambda: not driver.is_working or any(text in line for line in self._lines()))

    def _interrupt(self, moment: Moment) -> None:
        driver = self.simulator.driver(self.simulator.job(self.attempt))
        with suppress(SimulatorError):  # the container has ended in this moment
            match moment.kind:
                case "taken":
                    self.simulator.interrupt(self.attempt)
                case "taken with notice":
                    self.simulator.interrupt(self.attempt, notice=True)
                case "taken while a checkpoint is copied":
                    driver.faults.append(Interruption(when_synced=moment.checkpoint))
                case "time limit":
                    reach_limit(self.there, self.attempt)
                case "time limit, killed after the grace":
                    reach_limit(self.there, self.attempt, kill=True)
                case "stopped":
                    self.there.target.stop(self.job.name)

    def _note(self, kind: str) -> None:
        """Count what happened, and see to it that the job goes on."""
        self._look_where_it_went_on()
        newest = max(whole_checkpoints(self.there, self.job), default=0)
        self.tally.kinds[kind] += 1
        self.tally.again[kind] += max(steps_in(self._lines()), default=self.done) - newest
        self.done, self.seen = newest, len(self.simulator.log_lines(self.attempt))
        if self.simulator.job(self.attempt).is_final:
            self.job.resume()
            self.attempts, self.seen = self.attempts + 1, 0

    def _look_where_it_went_on(self) -> None:
        steps = steps_in(self._lines())
        self.tally.astray += bool(steps) and steps[0] != self.done + 1


def main() -> int:
    """Interrupt until it was often enough, write the table, and return 1 when an adapter differed."""
    dice, tally = random.Random(0), Tally()  # noqa: S311  (dice for faults, not for secrets)
    with tempfile.TemporaryDirectory() as home, cloud(Path(home)) as there:
        references = {recipe: uninterrupted(there, recipe) for recipe in RECIPES}
        for recipe in cycle(RECIPES):
            hashes = Course(there, recipe, tally).run(moments(dice))
            tally.unequal += hashes != references[recipe]
            print(f"{tally.kinds.total()} interruptions, {tally.runs} jobs, {tally.unequal} unequal", flush=True)
            if tally.kinds.total() >= INTERRUPTIONS:
                break
    write_section("Interruptions on SageMaker", _table(tally))
    return int(tally.unequal > 0 or tally.astray > 0)


def _table(tally: Tally) -> str:
    every = SETTINGS["checkpoint_steps"]
    summary = (
        f"{tally.kinds.total()} interruptions of {tally.runs} jobs ({', '.join(RECIPES)}) on the SageMaker of the "
        f"tests, {STEPS} steps with a checkpoint after every {every}. {tally.unequal} adapters differ from the "
        f"uninterrupted job's; {tally.astray} containers went on elsewhere than behind the newest whole checkpoint "
        "in the bucket."
    )
    rows = [f"| {kind} | {count} | {tally.again[kind]} |" for kind, count in sorted(tally.kinds.items())]
    return "\n".join([summary, "", "| what | times | steps done again |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    sys.exit(main())
