"""Sabotaged runs that the watchdog has to catch in their first tenth, and good runs that it must not disturb.

Each run is a real one of the packaged sample on the built-in base model, with the recipe's defaults, and is cut off
after a tenth of its steps. What a run came to is kept until the code that trains changes: an interrupted measurement
goes on where it was, and one in pieces adds up. Run from the repository's root:
python -m benchmarks.watchdog [--recipes NAME ...] [--good N] [--sabotages NAME ...] [--processes N]
"""

import argparse
import hashlib
import multiprocessing
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ValidationError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from benchmarks import sabotages, sample_job, watched_runs  # noqa: E402
from benchmarks.report import write_section  # noqa: E402
from benchmarks.sabotages import SABOTAGES  # noqa: E402
from benchmarks.sample_job import picture_recipes, sample_recipe  # noqa: E402
from benchmarks.watched_runs import Result, Trial, run, tenth_of  # noqa: E402
from orchestrator.contract.bundle import BundleKind, bundle_files  # noqa: E402
from orchestrator.contract.digest import hash_file, hash_files, tree_sha256  # noqa: E402
from orchestrator.contract.recipe import to_hyperparameters  # noqa: E402
from orchestrator.resources import ASSETS, ENTRYPOINTS, PACKAGE  # noqa: E402

GOOD_RUNS = 100


class Kept:
    """A folder with a JSON file for each run, under a hash of all that its result depends on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def code(self) -> str:
        """Hash of the code that trains and watches, of the libraries, and of the packaged models and samples."""
        files = {
            name: hash_file(path) for name, path in bundle_files(BundleKind.TRAINING, PACKAGE, ENTRYPOINTS).items()
        }
        for module in (sabotages, sample_job, watched_runs):
            files[module.__name__] = hash_file(Path(module.__file__))
        versions = [version(name) for name in ("torch", "diffusers", "peft")]
        return " ".join([tree_sha256({**files, **hash_files(ASSETS)}), *versions])

    def file(self, trial: Trial) -> Path:
        """Return the file of a run."""
        words = [self.code, trial.model_dump_json(), str(to_hyperparameters(trial.declaration()))]
        return self.folder / f"{hashlib.sha256(' '.join(words).encode()).hexdigest()[:16]}.json"

    def find(self, trial: Trial) -> Result | None:
        """Return the result of a run that was made before; None if there is none."""
        try:
            return Result.model_validate_json(self.file(trial).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep(self, result: Result) -> None:
        """Write a result."""
        self.file(result.trial).write_text(result.model_dump_json())


def sabotaged() -> list[Trial]:
    """Return a run for each mistake."""
    trials = []
    for seed, (name, sabotage) in enumerate(SABOTAGES.items()):
        trials.append(Trial(recipe=sabotage.recipe, seed=seed, sabotage=name))
    return trials


def good() -> list[Trial]:
    """Return the good runs: of all recipes in turn."""
    names = picture_recipes()
    trials = []
    for number in range(GOOD_RUNS):
        seed = random.Random(number).randrange(2**31)  # noqa: S311 - seeds of runs
        trials.append(Trial(recipe=names[number % len(names)], seed=seed))
    return trials


def results_of(trials: Sequence[Trial], kept: Kept, processes: int) -> Iterator[Result]:
    """Yield the results of runs, those that are kept first; run the others, so many at once."""
    missing = []
    for trial in trials:
        result = kept.find(trial)
        if result is None:
            missing.append(trial)
        else:
            yield result
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for done in as_completed([pool.submit(run, trial) for trial in missing]):
                result = done.result()
                kept.keep(result)
                yield result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def is_right(result: Result) -> bool:
    """Whether a sabotaged run was caught, or a good one left alone."""
    return bool(result.alarms) == (result.trial.sabotage is not None)


def section(results: Iterable[Result]) -> str:
    """Return the text for the page: each mistake with what was said of it, and the good runs of each recipe."""
    found = {result.trial: result for result in results}
    caught = [found[trial] for trial in sabotaged()]
    undisturbed = [found[trial] for trial in good()]
    right = sum(is_right(result) for result in caught)
    wrong = sum(not is_right(result) for result in undisturbed)
    lines = [
        f"{right} of {len(caught)} sabotaged runs were caught in the first tenth of their steps;",
        f"{wrong} of {len(undisturbed)} good runs were disturbed. All have the defaults of their recipe, the mistake",
        "excepted; seconds are those of the tenth, with loading and images.",
        "",
        "| mistake | recipe | steps taken | what was said |",
        "| --- | --- | --- | --- |",
    ]
    for result in caught:
        said = result.alarms[0].split(". ")[0] if result.alarms else "nothing"
        lines.append(f"| {result.trial.sabotage} | {result.trial.recipe} | {result.steps} | {said} |")
    return "\n".join([*lines, "", *good_rows(undisturbed)])


def good_rows(results: Sequence[Result]) -> list[str]:
    """Return the table of the good runs, and below it what disturbed which of them."""
    by_recipe: Mapping[str, list[Result]] = {name: [] for name in picture_recipes()}
    for result in results:
        by_recipe[result.trial.recipe].append(result)
    lines = ["| good runs | runs | steps of each | disturbed | seconds, mean |", "| --- | --- | --- | --- | --- |"]
    said = []
    for name, own in by_recipe.items():
        wrong = [result for result in own if not is_right(result)]
        seconds = sum(result.seconds for result in own) / len(own)
        tenth = tenth_of(sample_recipe(name))
        lines.append(f"| {name} | {len(own)} | {tenth} | {len(wrong)} | {seconds:.0f} |")
        for result in wrong:
            said.append(f"- {name}, seed {result.trial.seed}: {result.alarms[0].split('. ')[0]}")
    return lines + ([""] if said else []) + said


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs that are missing; the exit status is 1 when a sabotage was missed or a good run disturbed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recipes", nargs="+", choices=picture_recipes(), default=picture_recipes(), help="only their runs"
    )
    parser.add_argument("--good", type=int, default=GOOD_RUNS, help="only the first so many of the good runs")
    parser.add_argument("--sabotages", nargs="*", choices=list(SABOTAGES), help="only these; none without a name")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, each on one thread")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "watchdog", help="folder that keeps the results")
    options = parser.parse_args(arguments)
    kept = Kept(options.work)
    trials = [trial for trial in sabotaged() if options.sabotages is None or trial.sabotage in options.sabotages]
    trials += good()[: options.good]
    trials = [trial for trial in trials if trial.recipe in options.recipes]
    wrong = 0
    for number, result in enumerate(results_of(trials, kept, options.processes), start=1):
        wrong += not is_right(result)
        trial = result.trial
        said = "; ".join(result.alarms) or "nothing said"
        name = trial.sabotage or "good"
        took = f"{result.steps} steps, {result.seconds:.0f} s"
        print(f"{number}/{len(trials)} {trial.recipe}, {name}, seed {trial.seed} ({took}): {said}", flush=True)
    everything = [kept.find(trial) for trial in sabotaged() + good()]
    results = [result for result in everything if result is not None]
    if len(results) == len(everything):
        text = section(results)
        print(text)
        write_section("Watchdog", text)
    else:
        print(f"{len(results)} of all {len(everything)} runs are made; the page is written when they are complete.")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
