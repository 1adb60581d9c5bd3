"""Alarms of reinforcement learning on series whose truth is known, because they are made here."""

import random
from collections.abc import Callable
from statistics import NormalDist

import pytest

from entrypoints.training.rewards.alarms import Limits, Measured, Round, alarms, change, new_alarms

PROMPTS = 16
IMAGES = 4
ROUNDS = 12
TRIES = 170
"""Of each of six kinds of honest runs, 1,020 together."""


class Series:
    """Rounds of one run: every prompt has its own level, and every image its own noise, both of deviation 1."""

    def __init__(self, seed: int, *, same_prompts: bool = True) -> None:
        self.random = random.Random(seed)
        self.same_prompts = same_prompts
        self.levels = [self.random.gauss(0, 1) for _ in range(PROMPTS)]
        self.rounds: list[Round] = []

    def measured(self, mean: float, scale: float = 1.0) -> Measured:
        number = len(self.rounds)
        values = {}
        for prompt, level in enumerate(self.levels):
            unit = f"prompt {prompt}" if self.same_prompts else f"prompt {prompt} of round {number}"
            own = level if self.same_prompts else self.random.gauss(0, 1)
            values[unit] = tuple(mean + scale * (own + self.random.gauss(0, 1)) for _ in range(IMAGES))
        return Measured(values=values)

    def add(self, reward: float, evaluation: float, diversity: float) -> None:
        """Add a round by its true means; each round's policy also wanders a little."""
        wander = self.random.gauss(0, 0.1)
        one = Round(
            number=len(self.rounds),
            reward=self.measured(reward + wander),
            evaluation={"other": self.measured(evaluation + wander)},
            diversity=self.measured(diversity, scale=0.05),
        )
        self.rounds.append(one)


def first_alarm(series: Series) -> int | None:
    """Return the round of the first alarm of reward hacking."""
    for end in range(1, len(series.rounds) + 1):
        if any(alarm.kind == "reward-hacking" for alarm in alarms(series.rounds[:end])):
            return end - 1
    return None


def hacked_evaluation(series: Series) -> None:
    for number in range(4):
        series.add(1.2 * number, -1.5 * number, 0.6)


def hacked_diversity(series: Series) -> None:
    for number in range(4):
        series.add(1.2 * number, 0.0, 0.6 * 0.7**number)


def hacked_late(series: Series) -> None:
    """Both rise for 10 rounds, and then only the one that is trained on."""
    for number in range(10):
        series.add(0.2 * number, 0.2 * number, 0.6)
    for number in range(1, 4):
        series.add(1.8 + 1.2 * number, 1.8 - 1.5 * number, 0.6)


@pytest.mark.parametrize("same_prompts", [True, False])
@pytest.mark.parametrize(("hack", "begins"), [(hacked_evaluation, 0), (hacked_diversity, 0), (hacked_late, 9)])
def test_a_hacked_reward_sounds_within_three_rounds(
    hack: Callable[[Series], None], begins: int, *, same_prompts: bool
) -> None:
    for seed in range(30):
        series = Series(seed, same_prompts=same_prompts)
        hack(series)
        found = first_alarm(series)
        assert found is not None, seed
        assert begins < found <= begins + 3, seed


def steady(series: Series, number: int) -> None:
    """The other reward stays, and a fifth of the diversity goes: optimisation costs something of it."""
    series.add(0.15 * number, 0.0, 0.6 * (1 - 0.2 * number / ROUNDS))


def helped(series: Series, number: int) -> None:
    """The other reward rises with the one that is trained on."""
    series.add(0.15 * number, 0.1 * number, 0.6)


def costly(series: Series, number: int) -> None:
    """The other reward falls by less than can be seen."""
    series.add(0.3 * number, -0.25 * number / ROUNDS, 0.6)


@pytest.mark.parametrize("same_prompts", [True, False])
@pytest.mark.parametrize("honest", [steady, helped, costly])
def test_honest_noisy_runs_are_silent(honest: Callable[[Series, int], None], *, same_prompts: bool) -> None:
    sounded = 0
    for seed in range(TRIES):
        series = Series(seed, same_prompts=same_prompts)
        for number in range(ROUNDS):
            honest(series, number)
        if first_alarm(series) is not None:
            sounded += 1
    assert sounded == 0


def test_a_fall_without_a_rise_is_no_hacking() -> None:
    series = Series(0)
    for number in range(4):
        series.add(0.0, -2.0 * number, 0.6)
    assert first_alarm(series) is None


def test_students_t_is_as_unlikely_as_the_normal_deviate() -> None:
    """Two-sided 1 % points of Student's t by degrees of freedom, from any table."""
    expected = NormalDist().inv_cdf(0.995)
    for freedom, t in ((5, 4.0321), (10, 3.1693), (30, 2.7500)):
        count = freedom + 1
        # Differences with a mean of t standard errors: alternating around it.
        offsets = [(-1) ** place for place in range(count)]
        middle = sum(offsets) / count
        deviation = (sum((offset - middle) ** 2 for offset in offsets) / (count - 1)) ** 0.5
        mean = t * deviation / count**0.5
        before = Measured(values={str(place): (0.0,) for place in range(count)})
        after = Measured(values={str(place): (mean + offset - middle,) for place, offset in enumerate(offsets)})
        assert change(before, after).errors == pytest.approx(expected, abs=0.02)


def quiet(number: int = 0, **figures: object) -> Round:
    return Round(number=number, reward=Measured(values={"a": (0.0,)}), **figures)


@pytest.mark.parametrize(
    ("figures", "kind", "told"),
    [
        ({"flat_groups": 0.75}, "flat-groups", "75%"),
        ({"kl": 3.0}, "kl", "KL 3"),
        ({"kl": float("nan")}, "kl", "KL nan"),
        ({"clip_fraction": 0.9}, "clip-fraction", "90%"),
        ({"first_ratio_error": 1e-7}, "ratio", "off by 1e-07"),
        ({"ratios": (0.5, 40.0)}, "ratio", "from 0.5 to 40"),
        ({"ratios": (0.5, float("nan"))}, "ratio", "to nan"),
    ],
)
def test_a_figure_beyond_its_limit_is_named(figures: dict[str, object], kind: str, told: str) -> None:
    (alarm,) = alarms([quiet(**figures)], Limits(kl=1.0))
    assert alarm.kind == kind
    assert told in alarm.message


def test_figures_within_their_limits_are_silent() -> None:
    within = quiet(flat_groups=0.5, kl=1.0, clip_fraction=0.8, first_ratio_error=0.0, ratios=(0.1, 10.0))
    assert alarms([within], Limits(kl=1.0)) == []
    assert alarms([quiet()]) == []
    assert alarms([]) == []


def test_an_alarm_is_said_once() -> None:
    rounds = [quiet(0, clip_fraction=0.1), quiet(1, clip_fraction=0.9), quiet(2, clip_fraction=0.95)]
    assert [alarm.kind for alarm in new_alarms(rounds[:2])] == ["clip-fraction"]
    assert new_alarms(rounds) == []
    assert alarms(rounds)


def test_rounds_that_were_saved_give_the_same_alarms() -> None:
    series = Series(3)
    hacked_evaluation(series)
    saved = [one.model_dump_json() for one in series.rounds]
    restored = [Round.model_validate_json(text) for text in saved]
    assert alarms(restored) == alarms(series.rounds) != []
