"""Alarms of a run that learns nothing: each is raised when it should be, says why, and is silent for a good run."""

from collections.abc import Iterator
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from entrypoints.runtime.failures import TrainingError
from entrypoints.training.watchdog import CAPTIONS_PROBED, DOUBTED, FEWEST_STEPS, SEVERAL, Probe, Watchdog

STEPS = 100
NOISE = torch.linspace(-0.01, 0.01, 16)


class Probes:
    """An objective whose probes are given: at the start, with the captions of others, and then one for each look."""

    def __init__(
        self,
        *losses: torch.Tensor,
        others: torch.Tensor | None = None,
        told: torch.Tensor | None = None,
        spread: float = 1.0,
        falls: bool = True,
        more: torch.Tensor | None = None,
    ) -> None:
        self.more = more
        self.losses: Iterator[torch.Tensor] = iter(losses)
        self.others = others
        self.told = told
        self.spread = spread
        self.falls = falls

    def probe(self, samples: int, *, told: float = 1.0, shift: int = 0) -> Probe | None:
        if shift > 3:
            return None
        if samples == DOUBTED:
            losses = self.more
        elif samples == CAPTIONS_PROBED:
            losses = self.others if shift else START
        else:
            losses = self.told if told != 1 else next(self.losses)
        return None if losses is None else Probe(losses, torch.ones(16), self.spread, self.falls)


def watched(objective: object, norms: list[float] | None = None, *, moves: bool = True, steps: int = STEPS) -> None:
    """Take steps with the watchdog looking on, until a tenth of the run is over."""
    weight = nn.Parameter(torch.zeros(3))
    watchdog = Watchdog({"w": weight}, objective, steps)
    watchdog.before_training()
    for step in range(1, max(len(norms or []), steps // 10) + 1):
        if moves:
            weight.data += 1
        watchdog.after_step(step, norms[step - 1] if norms else 1.0)


def warnings(capfd: pytest.CaptureFixture[str]) -> str:
    return "\n".join(line for line in capfd.readouterr().out.splitlines() if '"warning"' in line)


START = 0.2 + NOISE
BETTER = START - 0.02 + NOISE / 10


def test_a_good_run_raises_no_alarm(capfd: pytest.CaptureFixture[str]) -> None:
    watched(Probes(START, BETTER, BETTER - 0.01, others=START + 0.05 + NOISE / 5))
    watched(Probes(START, START - NOISE / 10, BETTER))  # slow at first
    watched(object())  # an objective that cannot be probed
    assert warnings(capfd) == ""


def test_gradients_that_are_zero_end_the_run_at_once() -> None:
    with pytest.raises(TrainingError, match="gradients of step 3 are all zero") as caught:
        watched(object(), [1.0, 1.0, 0.0])
    assert caught.value.kind == "learns-nothing"


def test_weights_that_do_not_change_end_the_run_after_a_few_steps() -> None:
    with pytest.raises(TrainingError, match=f"no trained weight has changed in {SEVERAL} steps"):
        watched(object(), [1.0] * 10, moves=False)


def test_steps_that_half_precision_leaves_out_are_no_alarm() -> None:
    watched(object(), [float("inf")] * 10, moves=False)


def test_weights_that_the_model_does_not_use_end_the_run() -> None:
    with pytest.raises(TrainingError, match="predicts exactly what it predicted at the start"):
        watched(Probes(START, START.clone()))


def test_a_loss_that_rises_ends_the_run_with_a_lower_rate_as_advice() -> None:
    with pytest.raises(TrainingError, match=r"10\.0 % higher than at the start") as caught:
        watched(Probes(START, START + 0.02 + NOISE / 10))
    assert "-s learning_rate=" in caught.value.next_step


def test_a_loss_that_does_not_fall_is_warned_of_after_a_tenth(capfd: pytest.CaptureFixture[str]) -> None:
    watched(Probes(START, START + NOISE / 7, START + NOISE.flip(0) / 9))
    assert "has not fallen" in warnings(capfd)


def test_a_loss_that_the_frozen_model_keeps_low_is_not_expected_to_fall(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A ControlNet's: whether it learns is seen in what it draws."""
    watched(Probes(START, START + NOISE / 7, START + NOISE.flip(0) / 9, falls=False))
    assert warnings(capfd) == ""


def test_a_base_model_that_does_not_fit_the_images_is_warned_of(capfd: pytest.CaptureFixture[str]) -> None:
    bad = 0.95 + 50 * NOISE  # up to 1.45: some of it is predicted much worse than by zeros
    watched(Probes(bad, bad - 0.1 + NOISE / 9, bad - 0.2, more=bad))
    assert "scaling_factor" in warnings(capfd)


def test_one_sample_that_is_predicted_badly_is_not_warned_of(capfd: pytest.CaptureFixture[str]) -> None:
    start = 0.82 + NOISE
    more = START.clone()
    more[0] = 1.4
    watched(Probes(start, start - 0.1 + NOISE / 9, start - 0.2, more=more))
    assert warnings(capfd) == ""


def test_a_few_samples_alone_are_no_reason_for_doubt(capfd: pytest.CaptureFixture[str]) -> None:
    unlucky = 0.9 + 50 * NOISE
    watched(Probes(unlucky, unlucky - 0.1 + NOISE / 9, unlucky - 0.2, more=0.75 + NOISE))
    assert warnings(capfd) == ""


def test_images_in_a_style_that_is_foreign_to_the_base_model_are_not_warned_of(
    capfd: pytest.CaptureFixture[str],
) -> None:
    foreign = 0.9 + 20 * NOISE
    watched(Probes(foreign, foreign - 0.1 + NOISE / 9, foreign - 0.2, more=foreign))
    assert warnings(capfd) == ""


@pytest.mark.parametrize("spread", [0.18, 5.5])
def test_latents_that_are_not_scaled_are_warned_of(spread: float, capfd: pytest.CaptureFixture[str]) -> None:
    watched(Probes(START, BETTER, BETTER, spread=spread))
    assert f"standard deviation of {spread:.2f}" in warnings(capfd)


def test_a_model_that_is_told_the_wrong_times_is_warned_of(capfd: pytest.CaptureFixture[str]) -> None:
    watched(Probes(START, BETTER, BETTER, told=START - 0.05 + NOISE / 9))
    assert "0.5 times the time of the noise" in warnings(capfd)


def test_captions_that_fit_other_images_as_well_are_warned_of(capfd: pytest.CaptureFixture[str]) -> None:
    watched(Probes(START, BETTER, BETTER, others=START + NOISE / 7))
    assert "captions describe their own images no better" in warnings(capfd)


def test_gradients_that_stay_far_above_what_they_were_are_warned_of_once(capfd: pytest.CaptureFixture[str]) -> None:
    watched(object(), [1.0] * 20 + [5000.0] * 20)
    assert warnings(capfd).count("1000 times what they were") == 1


def test_a_short_run_is_not_probed() -> None:
    watched(Probes(), steps=FEWEST_STEPS - 1)


def test_a_run_that_is_looked_at_takes_the_same_steps(job: Any, run: Any) -> None:
    """A real run of every kind is looked at: the probe draws nothing that the steps draw."""
    for recipe in (tiny.captioned_lora(steps=40), tiny.textual_inversion(steps=40), tiny.dreambooth(steps=40)):
        quiet = recipe.model_copy(update={"evaluation_prompts": 0, "lr_schedule": "constant"})
        short = quiet.model_copy(update={"steps": 39})
        name = recipe.recipe_name()
        long_losses, short_losses = (
            [event["loss"] for event in run(job(one, f"{name}-{one.steps}")) if event["event"] == "step"]
            for one in (quiet, short)
        )
        assert long_losses[:39] == short_losses
