"""docs/reinforcement.md: `page.md` with what was measured filled in."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.reinforcement.experiments import (
    AESTHETIC,
    ALIGNMENT,
    DDPO,
    EXPERIMENTS,
    FRUGAL,
    INCOMPRESSIBILITY,
    Experiment,
)
from benchmarks.reinforcement.judging import DIVERSITY, HELD_OUT, SEEDS, Judged
from benchmarks.reinforcement.runs import Raised
from benchmarks.results.page import machine_line, table
from entrypoints.evaluation.bootstrap import Bootstrap
from orchestrator.contract.evaluation_result import Estimate
from orchestrator.contract.plurals import counted

PAGE = Path(__file__).parents[2] / "docs" / "reinforcement.md"
TEMPLATE = Path(__file__).with_name("page.md")
RESAMPLES = 2000
DIGITS = 2
NOTHING = "-"
HACKED = re.compile(r"Reward hacking: from round \d+ to (\d+)")
OTHERS = (INCOMPRESSIBILITY, AESTHETIC, ALIGNMENT, DIVERSITY)

Found = Mapping[str, Sequence[Raised]]
"""What was measured, by the name of the experiment, in the order of the seeds."""


Bases = Mapping[float, Judged]
"""What was measured of the base model, by the guidance of its images."""


def write_page(path: Path, bases: Bases, true: Judged, found: Found) -> None:
    """Write the page; `true` are the scores of true pictures."""
    text = TEMPLATE.read_text(encoding="utf-8").format(
        prompts=HELD_OUT,
        seeds=len(SEEDS),
        table=results(bases, true, found),
        compared=compared(bases, found),
        machine=machine_line(),
    )
    path.write_text(text, encoding="utf-8")


def results(bases: Bases, true: Judged, found: Found) -> str:
    """Return a line for each training."""
    head = ["training", "seed", "queries", "guidance", "judged by", "true", "base", "after", "change"]
    head += ["raised", "of one prompt", "others", "alarm"]
    rows = []
    for experiment in EXPERIMENTS.values():
        for one in found.get(experiment.name, ()):
            rows.append(line(bases[experiment.guidance], true, experiment, one))
    return table(head, rows)


def line(base: Judged, true: Judged, experiment: Experiment, one: Raised) -> list[str]:
    """Return the line of a training."""
    judged_by = experiment.judged_by
    before = mean(base, judged_by)
    after = mean(one.judged, judged_by)
    others = []
    for name in OTHERS:
        if name != judged_by:
            moved = raised(base, one.judged, name)
            others.append(f"{name} {moved.value:+.{DIGITS}f}")
    return [
        one.experiment,
        str(one.seed),
        str(one.queries),
        f"{experiment.guidance:g}",
        judged_by,
        f"{mean(true, judged_by):.3f}",
        f"{before:.3f}",
        f"{after:.3f}",
        f"{after / before - 1:+.0%}",
        raised(base, one.judged, judged_by, experiment.sign).text(DIGITS),
        raised_of_one_prompt(base, one.judged, judged_by, experiment.sign).text(DIGITS),
        ", ".join(others),
        alarm(one),
    ]


def mean(judged: Judged, name: str) -> float:
    """Return the mean score of all images."""
    return float(np.mean(judged.scores[name]))


def raised(base: Judged, after: Judged, name: str, sign: int = 1) -> Estimate:
    """Return how far a reward has risen, in standard deviations of it among all images of the base model."""
    return _risen(base, after, name, sign / np.asarray(base.scores[name]).std())


def raised_of_one_prompt(base: Judged, after: Judged, name: str, sign: int = 1) -> Estimate:
    """Return how far a reward has risen, in standard deviations among the base model's images of one prompt.

    A prompt that names its colours settles most of some rewards, and no training may change that; this leaves out what
    differs from prompt to prompt.
    """
    variances = np.asarray(base.scores[name]).var(axis=1, ddof=1)
    return _risen(base, after, name, sign / np.sqrt(variances.mean()))


def _risen(base: Judged, after: Judged, name: str, scale: float) -> Estimate:
    differences = np.asarray(after.scores[name]) - np.asarray(base.scores[name])
    of_prompts = scale * differences.mean(axis=1)
    return Bootstrap(RESAMPLES, 0).mean(of_prompts)


def alarm(one: Raised) -> str:
    """Return the round in which the job warned of reward hacking."""
    for message in one.alarms:
        hacked = HACKED.search(message)
        if hacked is not None:
            return hacked.group(1)
    return NOTHING


def compared(bases: Bases, found: Found) -> str:
    """Return what nft takes for what ddpo reaches."""
    slow, fast = found.get(DDPO.name), found.get(FRUGAL.name)
    if not slow or not fast:
        return ""
    base = bases[DDPO.guidance]
    ours = raised(base, averaged(fast), FRUGAL.judged_by, FRUGAL.sign)
    theirs = raised(base, averaged(slow), DDPO.judged_by, DDPO.sign)
    share = fast[0].queries / slow[0].queries
    return (
        f"nft with {fast[0].queries} queries, {share:.0%} of those of ddpo, raises the reward by {ours.text(DIGITS)} "
        f"(mean of {counted(len(fast), 'seed')}), ddpo by {theirs.text(DIGITS)} ({counted(len(slow), 'seed')}); CPU "
        f"seconds {mean_seconds(fast):.0f} and {mean_seconds(slow):.0f}."
    )


def mean_seconds(found: Sequence[Raised]) -> float:
    """Return the mean CPU seconds of the seeds of a training."""
    return fmean(one.cpu_seconds for one in found)


def averaged(found: Sequence[Raised]) -> Judged:
    """Return the mean of each score over the seeds of a training."""
    scores = {}
    for name in found[0].judged.scores:
        of_seeds = [one.judged.scores[name] for one in found]
        scores[name] = np.mean(of_seeds, axis=0).tolist()
    return Judged(scores=scores)
