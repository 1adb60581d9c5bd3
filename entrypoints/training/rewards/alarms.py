"""Alarms of reinforcement learning, from the figures of its rounds alone.

The one that matters most is of reward hacking: the reward that is trained on rises while what nobody trains on, another
reward or the diversity of images of one prompt, falls. Both have to be more than noise, and the fall large enough to
be seen: optimisation always costs a little of everything else.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

RISEN = 3.0
"""Standard errors of a rise that is no noise."""
FALLEN = 4.5
"""Standard errors of a fall that is no noise, between rounds with the same units. Higher, because each round is
compared with the best of many. In 30,000 simulated runs of 12 rounds without hacking, of 8 to 32 prompts, none sounded.
"""
FALLEN_APART = 5.0
"""The same between rounds with units of their own, whose noise is larger: 3 of 30,000, all of them of runs in which the
other reward fell a little."""
FALLEN_OF_LOOKS = 3.0
"""The same between looks at prompts that are drawn from the same noise every time: there are six of them in a run, and
each is compared with two. Of 2,000 simulated runs without a fall 1 to 9 sounded, of 200 with one of 1.5 deviations 164
to 199, by the number of prompts and seeds. What training really loses differs more from prompt to prompt than in that
simulation: measured falls of 1.2, 2.1 and 4.8 deviations were 3.3, 3.6 and 4.5 standard errors."""
LEAST_FALL = 1.0
"""How far an evaluation reward has to fall, in standard deviations of it among the images of the first round. The
policy wanders a little from round to round, which the standard errors within one do not show."""
LEAST_LOSS = 0.35
"""Share of the diversity of a group that can be seen."""
_FEWEST = 2
"""Units that have a standard error."""


class Measured(BaseModel):
    """One figure of a round: what was measured on each of several units, which are independent of each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: Mapping[str, tuple[float, ...]]
    """Unit to its values. A unit is a prompt with the values of its images, or a prompt with a seed if that is drawn in
    every round: rounds that have the same units are compared unit by unit, which leaves little noise."""

    @cached_property
    def means(self) -> Mapping[str, float]:
        """Unit to the mean of its values."""
        return {unit: fmean(values) for unit, values in self.values.items()}

    @cached_property
    def mean(self) -> float:
        """The mean of all units."""
        return fmean(self.means.values())

    @property
    def spread(self) -> float:
        """The standard deviation of all values."""
        every: list[float] = []
        for values in self.values.values():
            every += values
        if len(every) < _FEWEST:
            return 0.0
        return math.sqrt(_variance(every))


class Round(BaseModel):
    """The figures of one round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    """The round, from 0."""
    reward: Measured
    """The reward that is trained on."""
    evaluation: Mapping[str, Measured] = {}
    """Rewards that are not, by name."""
    diversity: Measured | None = None
    """Mean distance of images of one group, as `diversity.py` measures it."""
    flat_groups: float | None = None
    """Share of groups whose images all have the same reward, so that nothing is learned of them."""
    kl: float | None = None
    """Divergence of the policy from the base model."""
    clip_fraction: float | None = None
    """Share of samples whose importance ratio was clipped."""
    first_ratio_error: float | None = None
    """Largest difference from 1 of an importance ratio before the first update, when both policies are the same."""
    ratios: tuple[float, float] | None = None
    """The least and the greatest importance ratio."""


class Limits(NamedTuple):
    """What figures of a round may be; None for no limit."""

    fallen: float = FALLEN
    """Standard errors of a fall, between rounds with the same units."""
    fallen_apart: float = FALLEN_APART
    """The same between rounds with units of their own."""
    flat_groups: float = 0.5
    kl: float | None = None
    clip_fraction: float = 0.8
    first_ratio_error: float = 0.0
    ratios: tuple[float, float] = (0.1, 10.0)


class Alarm(NamedTuple):
    """Something that a person should look at."""

    kind: str
    """A stable word for it, for programs: "reward-hacking", "flat-groups", "kl", "clip-fraction", "ratio"."""
    message: str
    """What was seen, and what to do about it, in whole sentences."""


class Change(NamedTuple):
    """How a figure has changed between two rounds."""

    difference: float
    errors: float
    """The same in standard errors, of a normal distribution however few units there are."""
    is_paired: bool
    """Whether both have the same units."""


DEFAULT_LIMITS = Limits()
LIMITS_OF_LOOKS = Limits(fallen=FALLEN_OF_LOOKS)


def alarms(rounds: Sequence[Round], limits: Limits = DEFAULT_LIMITS) -> list[Alarm]:
    """Return the alarms of the last of some rounds; the same rounds have the same alarms.

    Args:
        rounds: All rounds so far, the first of them before any training. A run that is resumed has to bring them along.
        limits: What figures may be, and how sure a fall has to be.
    """
    if not rounds:
        return []
    last = rounds[-1]
    found = [
        _hacking(rounds, limits),
        _flat_groups(last, limits),
        _divergence(last, limits),
        _clipping(last, limits),
        _ratio(last, limits),
    ]
    return [alarm for alarm in found if alarm is not None]


def new_alarms(rounds: Sequence[Round], limits: Limits = DEFAULT_LIMITS) -> list[Alarm]:
    """Return the alarms of the last round that no round before it gave, so that each is said once.

    A figure that stays beyond its limit is no news, and a log full of one alarm hides the others.
    """
    before: set[str] = set()
    for end in range(1, len(rounds)):
        for alarm in alarms(rounds[:end], limits):
            before.add(alarm.kind)
    return [alarm for alarm in alarms(rounds, limits) if alarm.kind not in before]


def change(before: Measured, after: Measured) -> Change:
    """Compare two rounds: unit by unit if they have the same ones (paired t-test), else by Welch's test.

    Images of one prompt resemble each other, so a unit counts once, with the mean of its values. A single unit has no
    noise that could be known, and its change is taken for noise.
    """
    difference = after.mean - before.mean
    fewest = min(len(before.means), len(after.means))
    is_paired = before.means.keys() == after.means.keys()
    if fewest < _FEWEST:
        return Change(difference, 0.0, is_paired)
    if is_paired:
        squared_error, freedom = _paired(before.means, after.means)
    else:
        squared_error, freedom = _unpaired(before.means, after.means)
    errors = 0.0
    if squared_error:
        t = difference / math.sqrt(squared_error)
        errors = _normal(t, freedom)
    elif difference:  # all units have changed alike
        errors = math.copysign(math.inf, difference)
    return Change(difference, errors, is_paired)


def _paired(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float]:
    """Return the squared standard error of the mean difference, and its degrees of freedom."""
    differences = []
    for unit, mean in before.items():
        differences.append(after[unit] - mean)
    count = len(differences)
    return _variance(differences) / count, count - 1


def _unpaired(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float]:
    """Return the same of two samples of their own, with the degrees of freedom of Welch and Satterthwaite."""
    squared_error = 0.0
    squares = 0.0
    for means in (before, after):
        count = len(means)
        own = _variance(means.values()) / count
        squared_error += own
        squares += own**2 / (count - 1)
    if not squares:
        return 0.0, 1.0
    return squared_error, squared_error**2 / squares


def _variance(values: Collection[float]) -> float:
    """Return the unbiased variance; statistics.variance computes in fractions, a hundred times slower."""
    mean = fmean(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return squares / (len(values) - 1)


def _normal(t: float, freedom: float) -> float:
    """Return the normal deviate that is as unlikely as Student's t (Wallace 1959, doi 10.1214/aoms/1177706084)."""
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    inner = math.log1p(t * t / freedom)
    deviate = scale * math.sqrt(freedom * inner)
    return math.copysign(deviate, t)


def _hacking(rounds: Sequence[Round], limits: Limits) -> Alarm | None:
    """Return an alarm if a figure that nobody trains on falls in the last round while the reward rises.

    The evaluation rewards come first, in their order, and then diversity: one alarm is enough to look at the images.
    """
    for name in rounds[-1].evaluation:
        figures = [one.evaluation.get(name) for one in rounds]
        before = figures[0]
        if before is None:
            continue
        least = LEAST_FALL * before.spread
        what = f'the evaluation reward "{name}"'
        alarm = _fallen(rounds, figures, least, what, limits)
        if alarm is not None:
            return alarm
    varied = [one.diversity for one in rounds]
    before = varied[0]
    if before is None:
        return None
    least = LEAST_LOSS * before.mean
    return _fallen(rounds, varied, least, "the diversity of images of one prompt", limits)


def _fallen(
    rounds: Sequence[Round],
    figures: Sequence[Measured | None],
    least: float,
    what: str,
    limits: Limits,
) -> Alarm | None:
    """Return an alarm if a figure, measured in each round, fell by more than noise and `least` as the reward rose."""
    last = rounds[-1]
    after = figures[-1]
    if after is None:
        return None
    for place in _compared(figures[:-1]):
        earlier = rounds[place]
        before = figures[place]
        if before is None:
            continue
        fall = change(before, after)
        rise = change(earlier.reward, last.reward)
        certain = limits.fallen if fall.is_paired else limits.fallen_apart
        if fall.errors > -certain or fall.difference > -least or rise.errors < RISEN:
            continue
        was = earlier.reward.mean
        now = last.reward.mean
        message = (
            f"Reward hacking: from round {earlier.number} to {last.number} the reward rose from {was:.4g} to {now:.4g} "
            f"while {what} fell from {before.mean:.4g} to {after.mean:.4g}. Look at the images of these rounds; then "
            "stop earlier, raise kl_weight, lower learning_rate, or add a reward for what is lost."
        )
        return Alarm("reward-hacking", message)
    return None


def _compared(figures: Sequence[Measured | None]) -> list[int]:
    """Return the rounds that the last one is compared with: the first, and the one with the best figure.

    A reward that helps at first and is overdone later has its best round in between, from which a fall is seen sooner.
    """
    best = None
    most = -math.inf
    for place, figure in enumerate(figures):
        if figure is not None and figure.mean > most:
            best = place
            most = figure.mean
    if best is None:
        return []
    if best == 0:
        return [0]
    return [0, best]


def _flat_groups(last: Round, limits: Limits) -> Alarm | None:
    """Return an alarm if many groups teach nothing.

    The advantage of an image is how much better it is than the others of its group: where all are equal, there is none.
    """
    if not _exceeds(last.flat_groups, limits.flat_groups):
        return None
    message = (
        f"In round {last.number} the images of {last.flat_groups:.0%} of the groups all have the same reward, so that "
        "nothing is learned of them. Draw more images of each prompt, or choose a reward with finer steps."
    )
    return Alarm("flat-groups", message)


def _divergence(last: Round, limits: Limits) -> Alarm | None:
    """Return an alarm if the policy has left the base model.

    How much is too much depends on how the algorithm measures it, so there is no limit unless one is given.
    """
    if not _exceeds(last.kl, limits.kl):
        return None
    message = (
        f"In round {last.number} the policy is further from the base model than it should be: KL {last.kl:.4g}, limit "
        f"{limits.kl:.4g}. Raise kl_weight, lower learning_rate, or stop earlier."
    )
    return Alarm("kl", message)


def _clipping(last: Round, limits: Limits) -> Alarm | None:
    """Return an alarm if most samples of a round are thrown away.

    The gradient of a sample is zero once its importance ratio has left the range (PPO, arXiv 1707.06347, eq. 7).
    """
    if not _exceeds(last.clip_fraction, limits.clip_fraction):
        return None
    message = (
        f"In round {last.number} {last.clip_fraction:.0%} of the importance ratios were clipped, which wastes their "
        "samples. Lower learning_rate or updates, or raise clip_range."
    )
    return Alarm("clip-fraction", message)


def _ratio(last: Round, limits: Limits) -> Alarm | None:
    """Return an alarm if importance ratios cannot be right, or are too far from 1 to correct anything.

    Before the first update of a round the policy is the one that drew, so any other ratio than 1 shows an error of
    computation: latents that were stored in half precision are the usual one.
    """
    number = last.number
    if _exceeds(last.first_ratio_error, limits.first_ratio_error):
        message = (
            f"In round {number} the importance ratio before the first update is not 1 but off by "
            f"{last.first_ratio_error:.3g}: training does not compute the probabilities that sampling did. Train with "
            "mixed_precision=no."
        )
        return Alarm("ratio", message)
    if last.ratios is None:
        return None
    least, most = last.ratios
    lowest, highest = limits.ratios
    if lowest <= least and most <= highest:
        return None
    message = (
        f"In round {number} importance ratios were from {least:.3g} to {most:.3g}: the updates of one round move the "
        "policy too far. Lower learning_rate or updates."
    )
    return Alarm("ratio", message)


def _exceeds(value: float | None, limit: float | None) -> bool:
    """Whether a value is beyond its limit; NaN is beyond every limit."""
    if value is None or limit is None:
        return False
    return not value <= limit
