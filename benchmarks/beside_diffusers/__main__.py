"""Recipes of ours beside the example scripts of diffusers: the same libraries, model, pictures and budget.

The scripts are no part of this repository. Fetch them from examples/ of diffusers into one folder. They need
torchvision and datasets too: `--python` names the Python of an environment that has these beside the libraries of this
one. Linux only. Run from the repository's root: python -m benchmarks.beside_diffusers --scripts FOLDER
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.beside_diffusers.cases import COMPARISONS, Case, Comparison
from benchmarks.beside_diffusers.ours import Ours
from benchmarks.beside_diffusers.page import Measured, section, title
from benchmarks.beside_diffusers.resumption import Resumption, resumption
from benchmarks.beside_diffusers.sides import ROOT, VARIABLES, Figures, Side, Task, train
from benchmarks.beside_diffusers.theirs import Theirs
from benchmarks.report import PAGE, write_section

ADDRESS = "https://github.com/huggingface/diffusers/blob/v{}/examples/{}"
IMAGES = 4
_MINIMUM = re.compile(r'check_min_version\("([^"]+)"\)')


class Trainings:
    """The trainings of a recipe by both sides, in a folder of their own."""

    def __init__(self, comparison: Comparison, sides: Sequence[Side], materials: Path, folder: Path) -> None:
        self.comparison = comparison
        self.sides = sides
        self.materials = materials
        self.folder = folder
        self.figures: dict[tuple[str, str], list[Figures]] = {}
        self.load = 0.0
        """Of the machine, the highest that a training has begun with."""

    def task(self, case: Case, side: Side, purpose: str, seed: int = 0) -> Task:
        """Return a training in a folder of its own."""
        number = self.comparison.cases.index(case)
        place = self.sides.index(side)
        folder = self.folder / f"{purpose}-{number}-{place}-{seed}"
        return Task(self.comparison, case, seed, self.materials / case.pictures, folder)

    def measure(self, rounds: int) -> None:
        """Train in turns, in each round with another seed."""
        for seed in range(rounds):
            for case in self.comparison.cases:
                for side in self.sides_of(case):
                    self.load = max(self.load, os.getloadavg()[0])
                    figures = train(side, self.task(case, side, "round", seed))
                    self.figures.setdefault((case.name, side.name), []).append(figures)
                    print(seed, case.name, side.name, figures, flush=True)

    def judge(self, rounds: int, images: int) -> dict[tuple[str, str, int], dict[str, str]]:
        """Return the quality of what the results draw, by case, side and seed."""
        keys = []
        files = []
        for case in self.comparison.cases:
            if not case.is_judged:
                continue
            for side in self.sides_of(case):
                asked_as = "" if side is self.sides[0] else self.comparison.asked_as
                for seed in range(rounds):
                    keys.append((case.name, side.name, seed))
                    file = side.weights(self.task(case, side, "round", seed))
                    files.append([str(file), asked_as])
        words = ["quality", self.comparison.recipe, str(images), json.dumps(files)]
        rows = json.loads(in_process(words).splitlines()[-1])
        return dict(zip(keys, rows, strict=True))

    def sides_of(self, case: Case) -> Sequence[Side]:
        """Return who trains a case."""
        if case.by_default:
            return self.sides[:1]
        return self.sides

    def kill(self) -> dict[tuple[str, str], Resumption]:
        """Return what comes of kills."""
        found = {}
        for case in self.comparison.cases:
            if not case.is_killed:
                continue
            for side in self.sides:
                uninterrupted = side.weights(self.task(case, side, "round"))
                one = resumption(side, self.task(case, side, "kill"), uninterrupted)
                found[case.name, side.name] = one
                print(case.name, side.name, one, flush=True)
        return found


def in_process(words: Sequence[str]) -> str:
    """Run a module of this package in a process of its own and return what it prints."""
    module, *arguments = words
    command = [sys.executable, "-m", f"{__package__}.{module}", *arguments]
    variables = {**os.environ, **VARIABLES}  # with more threads torch spins where other work runs beside it
    return subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout


def compare(comparison: Comparison, options: argparse.Namespace, materials: Path, folder: Path) -> Measured:
    """Measure all there is of a recipe."""
    scripts = options.scripts.resolve()
    sides: list[Side] = [Ours(), Theirs(options.python, scripts)]
    trainings = Trainings(comparison, sides, materials, folder)
    trainings.measure(options.rounds)
    asked_for = _MINIMUM.search((scripts / comparison.script_name).read_text(encoding="utf-8"))
    return Measured(
        comparison=comparison,
        sides=[side.name for side in sides],
        asked_for=asked_for[1] if asked_for else "no version",
        rounds=options.rounds,
        images=options.images,
        figures=trainings.figures,
        load=trainings.load,
        quality=trainings.judge(options.rounds, options.images),
        kills=trainings.kill(),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Write the section of each recipe that was asked for, as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside_diffusers", description=__doc__)
    parser.add_argument("--scripts", type=Path, help="folder of the fetched scripts")
    parser.add_argument("--python", default=sys.executable, help="runs the scripts; by default the Python of this")
    parser.add_argument("--recipes", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS), metavar="RECIPE")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each, with seeds from 0")
    parser.add_argument("--steps", type=int, help="of every training, to try it out; by default each recipe's own")
    parser.add_argument("--images", type=int, default=IMAGES, help="images of each prompt, for quality")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to write the sections of")
    options = parser.parse_args(words)
    if options.steps is not None and options.page == PAGE:
        parser.error(f"trainings of other lengths do not belong on {PAGE.name}; name another page: --page PATH")
    asked = [COMPARISONS[name] for name in options.recipes]
    for comparison in asked:
        address = ADDRESS.format(version("diffusers"), comparison.script)
        if options.scripts is None or not (options.scripts / comparison.script_name).is_file():
            parser.error(f"fetch {address} into a folder and name it: --scripts FOLDER")
    with tempfile.TemporaryDirectory() as folder:
        materials = Path(folder) / "materials"
        materials.mkdir()
        in_process(["materials", str(materials)])
        for comparison in asked:
            own = comparison if options.steps is None else comparison.with_steps(options.steps)
            measured = compare(own, options, materials, Path(folder) / comparison.recipe)
            text = section(measured)
            print(text, flush=True)
            write_section(title(comparison.recipe), text, options.page)


if __name__ == "__main__":
    main()
