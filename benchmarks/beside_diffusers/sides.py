"""What is asked of both sides: a command for a training, and what can be read of how far it is."""

from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen
from typing import NamedTuple, Protocol

from benchmarks.beside_diffusers.cases import Case, Comparison
from benchmarks.process_tree import Usage, measure

ROOT = Path(__file__).parents[2]
VARIABLES = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
"""One thread, and modules compiled once and not in each run, whatever is set here."""
OUTPUT = "output.txt"
"""What the command of a killed training printed, in the folder of the training."""


class Task(NamedTuple):
    """One training of one side."""

    comparison: Comparison
    case: Case
    seed: int
    pictures: Path
    folder: Path
    """A new one, for all that the training writes, so that nothing is known from an earlier one."""

    @property
    def steps(self) -> int:
        """Its steps."""
        return self.comparison.budget.steps


class Figures(NamedTuple):
    """What a training took."""

    cpu_seconds: float
    wall_seconds: float
    first_step: float
    """Seconds from the start of the command to the end of the first training step."""
    peak_bytes: int


class Side(Protocol):
    """Ours or theirs."""

    name: str
    """As the page calls it."""

    def words(self, task: Task, *, again: bool = False) -> list[str]:
        """Return the command, or the one that goes on after a kill."""
        ...

    def variables(self, task: Task) -> Mapping[str, str]:
        """Return its variables of the environment."""
        ...

    def mark(self, task: Task) -> bytes:
        """Return what the command prints after the first step; nothing where that is known otherwise."""
        ...

    def first_step(self, task: Task, usage: Usage) -> float:
        """Return the seconds from the start to the end of the first step."""
        ...

    def weights(self, task: Task) -> Path:
        """Return the file that a finished training has saved."""
        ...

    def steps_done(self, task: Task) -> int:
        """Return the last step that a training which prints to OUTPUT has told of."""
        ...

    def resumed_from(self, task: Task, usage: Usage) -> int | None:
        """Return the step of the checkpoint that a second command has gone on from; None without one."""
        ...

    def kill(self, task: Task, process: "Popen[bytes]") -> None:
        """Kill all processes of a training whose command is `process`."""
        ...


def run(side: Side, task: Task, *, again: bool = False) -> Usage:
    """Run the command of a training to its end, in the training's folder."""
    task.folder.mkdir(parents=True, exist_ok=True)
    variables = {**VARIABLES, **side.variables(task)}
    return measure(side.words(task, again=again), variables, task.folder, mark=side.mark(task))


def train(side: Side, task: Task) -> Figures:
    """Train and return what it took; raises SystemExit with what was printed when the command fails."""
    usage = run(side, task)
    if usage.exit_code != 0:
        raise SystemExit(usage.output.decode(errors="replace"))
    first_step = side.first_step(task, usage)
    return Figures(usage.cpu_seconds, usage.wall_seconds, first_step, usage.peak_bytes)
