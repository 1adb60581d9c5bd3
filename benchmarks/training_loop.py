"""Steps per second of our training loop, for each recipe with its defaults, beside the bare step on the same batch.

The bare step of DreamBooth is there twice: with PEFT's own layers, and with ours, whose gradients are written out. Each
kind of step has a model of its own. Those of a recipe are timed in one process on one thread, in turns, so that
whatever else the machine does falls on all; for its peak memory each has a process of its own.
Run from the repository's root: python -m benchmarks.training_loop
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from benchmarks.report import write_section  # noqa: E402
from benchmarks.sample_job import picture_recipes, sample_recipe  # noqa: E402
from benchmarks.training_steps import (  # noqa: E402
    BARE_STEP,
    OUR_LOOP,
    PEFT_STEP,
    BareStep,
    bare_step,
    kinds_of,
    prepare,
    run_loop,
    with_pefts_layers,
)
from entrypoints.runtime.libraries import SETTINGS, quieten  # noqa: E402
from orchestrator.resources import BUILTIN_MODEL  # noqa: E402

LIMIT = 1.10
"""Our loop's time over that of the bare step."""
LAYERS_LIMIT = 0.95
"""The time of the bare step over that of the one with PEFT's layers."""
ROUNDS = 40
WARM_UP = 2  # rounds that are not counted
ROW = "| {} | {} | {:.4f} | {:.2f} | {} | {:.0f} |"
HEAD = """\
| recipe | | seconds a step, median | steps a second | times the bare step | peak MB |
| --- | --- | --- | --- | --- | --- |"""
FOOT = """\
The bare step is forward, loss, backward, clipping and optimizer on one batch that was made beforehand. Our loop is that
of the training, with all that it does for each step, but without checkpoints and images; two steps of a run, those at
which the watchdog looks at its probe, take longer than the median. Peak memory is that of a process which loads the
model, encodes the pictures and takes steps of one kind."""


@dataclass(frozen=True)
class Measured:
    """The steps of one recipe, by their kinds."""

    recipe: str
    seconds: Mapping[str, Sequence[float]]
    """Of each round."""
    peak_bytes: Mapping[str, int]

    def ratio(self, kind: str, other: str) -> float:
        """Return the median of one kind of step over that of another."""
        return statistics.median(self.seconds[kind]) / statistics.median(self.seconds[other])

    @property
    def loop_ratio(self) -> float:
        """Our loop to the bare step."""
        return self.ratio(OUR_LOOP, BARE_STEP)

    @property
    def layers_ratio(self) -> float | None:
        """Our layers to PEFT's, without the loop; None where they are not compared."""
        if PEFT_STEP not in self.seconds:
            return None
        return self.ratio(BARE_STEP, PEFT_STEP)

    @property
    def is_within_limits(self) -> bool:
        """Whether the loop, and our layers, take no longer than they may."""
        layers = self.layers_ratio
        return self.loop_ratio <= LIMIT and (layers is None or layers <= LAYERS_LIMIT)

    def rows(self) -> list[str]:
        """Return the table's rows."""
        rows = []
        for kind, seconds in self.seconds.items():
            median = statistics.median(seconds)
            ratio = "" if kind == BARE_STEP else f"{self.ratio(kind, BARE_STEP):.3f}"
            rows.append(ROW.format(self.recipe, kind, median, 1 / median, ratio, self.peak_bytes[kind] / 1e6))
        return rows


def main() -> None:
    """Write the table; the exit status is 1 when a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--recipes", nargs="+", choices=picture_recipes(), default=picture_recipes())
    parser.add_argument("--base-model", type=Path, default=BUILTIN_MODEL)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quieten()
    found = []
    for recipe in options.recipes:
        measured = measure(recipe, options.rounds, options.base_model)
        print("\n".join(measured.rows()), flush=True)
        found.append(measured)
    text = report(found, options.rounds)
    print(text)
    if set(options.recipes) == set(picture_recipes()) and options.rounds >= ROUNDS:
        write_section("Training loop", text)
    if not all(measured.is_within_limits for measured in found):
        sys.exit(1)


def measure(recipe: str, rounds: int, base_model: Path) -> Measured:
    """Measure the steps of a recipe: first their memory, then their time."""
    peaks = {kind: peak_of(recipe, kind, base_model) for kind in kinds_of(recipe)}
    with tempfile.TemporaryDirectory() as folder:
        prepared = {}
        for number, kind in enumerate(kinds_of(recipe)):
            prepared[kind] = prepare(sample_recipe(recipe), Path(folder) / str(number), base_model)
        ours = prepared.pop(OUR_LOOP)
        if PEFT_STEP in prepared:
            with_pefts_layers(prepared[PEFT_STEP])
        others = {kind: bare_step(each) for kind, each in prepared.items()}
        turns = Turns(others, rounds)
        run_loop(ours, turns.take)
    return Measured(recipe, turns.seconds, peaks)


def peak_of(recipe: str, kind: str, base_model: Path) -> int:
    """Return the peak memory of a process that takes some steps of one kind, in bytes."""
    command = [sys.executable, "-m", "benchmarks.training_steps", recipe, kind, "--base-model", str(base_model)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **SETTINGS}, stdout=subprocess.PIPE, check=True)
    return int(done.stdout)


class Turns:
    """The turns of the bare steps, which come whenever our loop has done a step; the first rounds are not counted."""

    def __init__(
        self,
        others: Mapping[str, BareStep],
        rounds: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.others = others
        self.rounds = rounds
        self.clock = clock
        self.done = 0
        self.seconds: dict[str, list[float]] = {kind: [] for kind in [*others, OUR_LOOP]}
        self._began = clock()

    def take(self) -> bool:
        """Note the time of our loop's step, take and time the others, and return whether that was the last round."""
        self._note(OUR_LOOP)
        for kind, step in self.others.items():
            self._began = self.clock()
            step()
            self._note(kind)
        self.done += 1
        self._began = self.clock()
        return self.done == self.rounds + WARM_UP

    def _note(self, kind: str) -> None:
        """Note what has passed since the latest beginning."""
        passed = self.clock() - self._began
        if self.done >= WARM_UP:
            self.seconds[kind].append(passed)


def report(found: Sequence[Measured], rounds: int) -> str:
    """Return the table, and below it how it compares with the limits."""
    rows = []
    layers = []
    for measured in found:
        rows += measured.rows()
        ratio = measured.layers_ratio
        if ratio is not None:
            layers.append(
                f"{measured.recipe}'s bare step to the one with PEFT's layers {ratio:.3f} (limit {LAYERS_LIMIT:.2f})"
            )
    slowest = max(measured.loop_ratio for measured in found)
    ratios = "; ".join([f"our loop to the bare step at most {slowest:.3f} (limit {LIMIT:.2f})", *layers])
    return "\n".join(
        [
            HEAD,
            *rows,
            "",
            f"Ratios of medians over {rounds} rounds in turns, one thread: {ratios}.",
            "",
            FOOT,
        ]
    )


if __name__ == "__main__":
    main()
