"""`python -m benchmarks.reinforcement [NAME ...]`: train and judge what is new, then write docs/reinforcement.md.

What is kept depends on the base model and the settings, not on the code: after a change of the training, name another
--work.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from entrypoints.runtime import libraries  # noqa: E402

libraries.apply_settings()

import torch  # noqa: E402

from benchmarks.reinforcement.experiments import EXPERIMENTS, Experiment  # noqa: E402
from benchmarks.reinforcement.page import PAGE, write_page  # noqa: E402
from benchmarks.reinforcement.runs import Raised, Workplace  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, and write the page of all that was measured."""
    grammar = argparse.ArgumentParser(prog="python -m benchmarks.reinforcement", description=__doc__)
    grammar.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {'; '.join(EXPERIMENTS)}; all by default")
    grammar.add_argument("--work", type=Path, default=ROOT / "build" / "reinforcement", help="folder for the results")
    grammar.add_argument("--page", type=Path, default=PAGE, help="page to write")
    wanted = grammar.parse_args(arguments)
    unknown = [name for name in wanted.names if name not in EXPERIMENTS]
    if unknown:
        grammar.error(f"there is no {', '.join(unknown)}; the names are {'; '.join(EXPERIMENTS)}")
    torch.set_num_threads(1)
    libraries.quieten()
    workplace = Workplace(wanted.work)
    for experiment in EXPERIMENTS.values():
        if wanted.names and experiment.name not in wanted.names:
            continue
        for seed in experiment.seeds:
            if workplace.find(experiment, seed) is None:
                raised = workplace.run(experiment, seed, pairs_job(experiment, seed))
                print(f"{experiment.name}, seed {seed}: {raised.cpu_seconds:.0f} CPU seconds", flush=True)
    bases = {experiment.guidance: workplace.base(experiment.guidance) for experiment in EXPERIMENTS.values()}
    write_page(wanted.page, bases, workplace.true(), kept(workplace))
    print(f"{wanted.page} is written.")


def pairs_job(experiment: Experiment, seed: int) -> str | None:
    """Return the job whose labels an experiment learns from; None for one that draws."""
    if experiment.pairs_of is None:
        return None
    return EXPERIMENTS[experiment.pairs_of].job_name(seed)


def kept(workplace: Workplace) -> dict[str, list[Raised]]:
    """Return all that is kept."""
    found: dict[str, list[Raised]] = {}
    for experiment in EXPERIMENTS.values():
        for seed in experiment.seeds:
            raised = workplace.find(experiment, seed)
            if raised is not None:
                found.setdefault(experiment.name, []).append(raised)
    return found


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on with what is left.")
