"""`python -m benchmarks.defaults [RECIPE]`: train what is new of the grid, then write docs/defaults.md.

An interrupted grid goes on where it was. What is kept depends on the base model, the settings, the subject and the
evaluation, not on the code: after a change of the training, name another --work.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from benchmarks.defaults.figures import figures_of
from benchmarks.defaults.grid import GRID, SEEDS, Trial, rows_of, trials_of
from benchmarks.defaults.page import PAGE, write_page
from benchmarks.defaults.results import Result, Workplace
from benchmarks.defaults.subjects import SUBJECTS
from benchmarks.defaults.trial import Order
from entrypoints.train import LAUNCHER_VARIABLE
from orchestrator.resources import BUILTIN_MODEL

ROOT = Path(__file__).parents[2]
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOG_LINES = 15
"""Of a failed trial, that are shown."""


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    grammar = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=__doc__)
    grammar.add_argument("recipe", nargs="?", choices=list(GRID), help="only the trials of one recipe")
    grammar.add_argument("--base-model", type=Path, default=BUILTIN_MODEL, help="folder of the built-in model to train")
    grammar.add_argument("--processes", type=int, default=2, help="trials at once, each on one thread")
    grammar.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    grammar.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="seeds of the training")
    grammar.add_argument("--rows", nargs="+", metavar="ROW", help="names of rows in grid.py; all when left out")
    grammar.add_argument("--work", type=Path, default=ROOT / "build" / "defaults", help="folder that keeps the results")
    grammar.add_argument("--page", type=Path, default=PAGE, help="page to write from all results that are kept")
    return grammar


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials and write the page; return 1 when a trial failed."""
    wanted = parser().parse_args(arguments)
    workplace = Workplace.prepare(wanted.work, wanted.base_model, list(SUBJECTS))
    recipes = [wanted.recipe] if wanted.recipe else list(GRID)
    trials = chosen(recipes, wanted.rows, wanted.subjects, wanted.seeds)
    failed = run_all(trials, workplace, wanted.processes)
    write_page(wanted.page, kept(workplace), workplace)
    print(f"{wanted.page} is written.")
    if failed:
        print(f"{failed} of {len(trials)} trials failed; the same command tries them again.")
    return int(failed > 0)


def chosen(recipes: list[str], rows: list[str] | None, subjects: list[str], seeds: list[int]) -> list[Trial]:
    """Return the trials that are asked for; raises SystemExit for a row that no recipe has."""
    trials = []
    unknown = set(rows or ())
    for recipe in recipes:
        known = list(rows_of(recipe))
        names = [row for row in known if rows is None or row in rows]
        unknown.difference_update(known)
        trials += trials_of(recipe, names, subjects, seeds)
    if unknown:
        known = [row for recipe in recipes for row in rows_of(recipe)]
        raise SystemExit(f"There is no row {', '.join(sorted(unknown))}; the rows are {'; '.join(known)}.")
    return trials


def kept(workplace: Workplace) -> list[Result]:
    """Return all results of the grid as it is now that are kept, whichever were asked for this time."""
    results = []
    for recipe in GRID:
        for trial in trials_of(recipe, list(rows_of(recipe)), list(SUBJECTS), list(SEEDS)):
            result = workplace.find(trial)
            if result is not None:
                results.append(result)
    return results


def run_all(trials: Sequence[Trial], workplace: Workplace, processes: int) -> int:
    """Run the trials that have no result yet, so many at once; return how many failed."""
    missing = [trial for trial in trials if workplace.find(trial) is None]
    print(f"{len(trials)} trials, {len(missing)} of them new.", flush=True)
    failed = 0
    with ThreadPoolExecutor(processes) as pool:
        running = {pool.submit(run_one, trial, workplace): trial for trial in missing}
        try:
            for number, done in enumerate(as_completed(running), start=1):
                print(f"{number}/{len(missing)} {describe(running[done])}: {done.result()}", flush=True)
                failed += workplace.find(running[done]) is None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def run_one(trial: Trial, workplace: Workplace) -> str:
    """Run one trial in a process of its own and return what came of it."""
    folder = workplace.folder(trial)
    folder.mkdir(parents=True, exist_ok=True)
    # The process ends with this one, as a rank ends with its launcher.
    variables = {**os.environ, LAUNCHER_VARIABLE: str(os.getpid())} | dict.fromkeys(ONE_THREAD, "1")
    order = Order(trial=trial, workplace=workplace)
    began = time.monotonic()
    log = folder / "log"
    with log.open("wb") as output:
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.defaults.trial"],
            cwd=ROOT,
            env=variables,
            input=order.model_dump_json().encode(),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    result = workplace.find(trial)
    if ended.returncode or result is None:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join([f"failed with status {ended.returncode}; the end of {log}:", *lines])
    found = figures_of([result])
    took = time.monotonic() - began
    return (
        f"closed {found.closed.value:.0%}, lost {found.lost.value:.1%}; "
        f"trained in {result.seconds:.0f} CPU seconds, {took:.0f} s in all"
    )


def describe(trial: Trial) -> str:
    """Return a trial in a few words."""
    return f"{trial.recipe}, {trial.row}, {trial.subject}, seed {trial.seed}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on with what is left.")
