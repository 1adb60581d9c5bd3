"""`python -m benchmarks.results [NAME ...]`: train and evaluate what is new, then write docs/results.md.

What is kept depends on the base model and the settings, not on the code: after a change of the training, name another
--work.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results.experiments import EXPERIMENTS
from benchmarks.results.page import PAGE, write_page
from benchmarks.results.runs import Measured, Workplace

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, and write the page of all that was measured."""
    grammar = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    grammar.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {'; '.join(EXPERIMENTS)}; all by default")
    grammar.add_argument("--work", type=Path, default=ROOT / "build" / "results", help="folder that keeps the results")
    grammar.add_argument("--page", type=Path, default=PAGE, help="page to write")
    wanted = grammar.parse_args(arguments)
    unknown = [name for name in wanted.names if name not in EXPERIMENTS]
    if unknown:
        grammar.error(f"there is no {', '.join(unknown)}; the names are {'; '.join(EXPERIMENTS)}")
    workplace = Workplace(wanted.work)
    for experiment in EXPERIMENTS.values():
        if wanted.names and experiment.name not in wanted.names:
            continue
        for seed in experiment.seeds:
            if workplace.find(experiment, seed) is None:
                measured = workplace.run(experiment, seed)
                print(f"{experiment.name}, seed {seed}: {measured.cpu_seconds:.0f} CPU seconds", flush=True)
    write_page(wanted.page, kept(workplace))
    print(f"{wanted.page} is written.")


def kept(workplace: Workplace) -> dict[str, list[Measured]]:
    """Return all that is kept."""
    found: dict[str, list[Measured]] = {}
    for experiment in EXPERIMENTS.values():
        for seed in experiment.seeds:
            measured = workplace.find(experiment, seed)
            if measured is not None:
                found.setdefault(experiment.name, []).append(measured)
    return found


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on with what is left.")
