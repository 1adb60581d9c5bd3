"""From the cosines of images to the figures of the page, with bootstrap intervals over their prompts and seeds."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.defaults.grid import Bar
from benchmarks.defaults.results import Grid, Result

RESAMPLES = 2000
RANDOM_SEED = 0
PERCENTILES = (2.5, 97.5)
"""Ends of a 95 % interval."""

Values = NDArray[np.float64]
Number = TypeVar("Number", float, Values)


class Estimate(NamedTuple):
    """A figure with its interval."""

    value: float
    low: float
    high: float


class Figures(NamedTuple):
    """The figures of one trial, or the means over several."""

    closed: Estimate
    """Share of the gap of subject fidelity that is closed."""
    lost: Estimate
    """Share of prompt fidelity that is lost."""

    def clears(self, bar: Bar) -> bool:
        """Whether both figures reach the bar."""
        return self.closed.value >= bar.closed and self.lost.value <= bar.lost


def gap_closed(before: Number, after: Number, ceiling: float) -> Number:
    """Return how much of the way from the base model to the subject's own pictures is covered; 1 is all of it."""
    return (after - before) / (ceiling - before)


def fidelity_lost(before: Number, after: Number) -> Number:
    """Return how much of the fidelity to the prompt is gone; less than 0 is a gain."""
    return 1 - after / before


def figures_of(results: Sequence[Result]) -> Figures:
    """Return the mean figures of results of one subject, whose images have the same prompts and seeds.

    A resample takes the same prompts and seeds of the images before and after and of every result.
    """
    closed = []
    lost = []
    for result in results:
        subject_before, subject_after = resampled_means(result.before.subject), resampled_means(result.after.subject)
        prompt_before, prompt_after = resampled_means(result.before.prompt), resampled_means(result.after.prompt)
        closed.append(gap_closed(subject_before, subject_after, result.ceiling))
        lost.append(fidelity_lost(prompt_before, prompt_after))
    return Figures(_estimate(closed), _estimate(lost))


def perfect_figures(result: Result) -> tuple[float, float]:
    """Return the share of the gap that perfect images would close and the share of fidelity that they would lose."""
    subject = gap_closed(mean_of(result.before.subject), mean_of(result.perfect.subject), result.ceiling)
    prompt = fidelity_lost(mean_of(result.before.prompt), mean_of(result.perfect.prompt))
    return subject, prompt


def mean_of(values: Grid) -> float:
    """Return the mean of a figure over all images."""
    return float(np.mean(values))


def resampled_means(values: Grid) -> Values:
    """Return the mean of a figure over all images, then that of each resample: shape (1 + RESAMPLES,).

    A resample draws as many prompts as there are, with replacement, and likewise seeds: both have an effect of their
    own on every image that they make, so that images cannot be drawn one by one. Equal shapes get equal resamples.
    """
    table = np.asarray(values, dtype=np.float64)
    prompts, seeds = table.shape
    random = np.random.default_rng(RANDOM_SEED)
    rows = random.integers(0, prompts, size=(RESAMPLES, prompts, 1))
    columns = random.integers(0, seeds, size=(RESAMPLES, 1, seeds))
    means = table[rows, columns].mean(axis=(1, 2))
    return np.concatenate([[table.mean()], means])


def _estimate(values: Sequence[Values]) -> Estimate:
    """Return the mean of what is first and the interval of what follows it, each a mean over results."""
    means = np.mean(values, axis=0)
    low, high = np.percentile(means[1:], PERCENTILES)
    return Estimate(float(means[0]), float(low), float(high))


class ClassFigures(NamedTuple):
    """What became of the class, means over results."""

    variety_before: float
    variety_after: float
    drift: float
    """How much nearer to the subject images of the class are than the base model's."""


def class_figures_of(results: Sequence[Result]) -> ClassFigures | None:
    """Return what became of the class; None where it was not drawn."""
    before = []
    after = []
    drift = []
    for result in results:
        if result.class_before is None or result.class_after is None:
            return None
        before.append(result.class_before.variety)
        after.append(result.class_after.variety)
        drift.append(result.class_after.subject - result.class_before.subject)
    return ClassFigures(float(np.mean(before)), float(np.mean(after)), float(np.mean(drift)))


def held_drift(plain: Sequence[Result], held: Sequence[Result]) -> Estimate | None:
    """Return by how much less the class drifts in `held` than in `plain`: results of equal subjects and seeds.

    The images have the same prompt and seeds and are resampled together; those of the base model cancel out.
    None where a result lacks the figures of single images.
    """
    differences = []
    for one, other in zip(plain, held, strict=True):
        if one.class_after is None or other.class_after is None:
            return None
        if not one.class_after.images or not other.class_after.images:
            return None
        differences.append(np.asarray(one.class_after.images) - np.asarray(other.class_after.images))
    mean_differences = np.mean(differences, axis=0)
    as_seeds = (tuple(mean_differences.tolist()),)
    return _estimate([resampled_means(as_seeds)])
