"""Rectified flow against its closed forms, and against the scheduler that diffusers draws with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import tiny
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from entrypoints.models.base import BaseModel
from entrypoints.models.rectified_flow import RectifiedFlow
from entrypoints.recipes.dreambooth import captions
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.randomness import generator
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.run import Run

TIMES = torch.tensor([0.0, 0.25, 1.0])


def ones(value: float) -> torch.Tensor:
    return torch.full((3, 1, 1, 1), value)


def test_a_sample_goes_to_noise_in_a_straight_line() -> None:
    flow = RectifiedFlow()
    assert flow.noised(ones(2), ones(6), TIMES).flatten().tolist() == pytest.approx([2, 3, 6])
    assert flow.target(ones(2), ones(6), TIMES).flatten().tolist() == pytest.approx([4, 4, 4])


def test_times_are_the_logistic_of_normal_numbers() -> None:
    drawn = RectifiedFlow(location=-0.5, spread=0.8).times(200_000, generator(0, "times"))
    logits = torch.log(drawn / (1 - drawn))
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert logits.mean().item() == pytest.approx(-0.5, abs=0.01)
    assert logits.std().item() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shift_and_noise_are_those_of_the_scheduler(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    plain = torch.arange(1000, 0, -1) / 1000
    torch.testing.assert_close(RectifiedFlow(shift=shift).shifted(plain), scheduler.sigmas.cpu())
    latents, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    for number in (0, 400, 999):
        ours = RectifiedFlow().noised(latents, noise, scheduler.sigmas[number].expand(3))
        theirs = scheduler.scale_noise(latents, scheduler.timesteps[number].expand(3), noise)
        torch.testing.assert_close(ours, theirs)


def test_the_schedulers_steps_along_the_target_lead_back_to_the_latents() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(4)
    latents, noise = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    velocity, sample = RectifiedFlow().target(latents, noise, TIMES), noise
    for time in scheduler.timesteps:
        sample = scheduler.step(velocity, time, sample).prev_sample
    torch.testing.assert_close(sample, latents)


def test_min_snr_is_refused() -> None:
    with pytest.raises(TrainingError, match="not defined for flow models"):
        RectifiedFlow().weights(TIMES, snr_gamma=5)


@dataclass
class FlowModel:
    """A model whose denoiser knows the answer: what it is asked for shows what the objective is made of."""

    base: BaseModel
    process: RectifiedFlow
    asked: list[torch.Tensor]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, conditions: Mapping[str, Any]) -> torch.Tensor:
        self.asked += [noisy, times]
        assert conditions
        return torch.zeros_like(noisy)


def test_the_objective_takes_a_flow_as_it_takes_ddpm(base: BaseModel, job: Any) -> None:
    recipe = tiny.dreambooth()
    run = Run(job(recipe), recipe)
    model = FlowModel(base, RectifiedFlow(shift=3.0), [])
    images = run.training_images()
    stream = Stream("instance", latents_of(base, recipe, images), captions(images, recipe.instance_prompt))
    losses: Iterator[torch.Tensor] = DenoisingObjective(
        model, recipe, [stream], PromptEncoder(base, frozen=True)
    ).losses(0, Ranks())
    loss = next(losses)
    noisy, times = model.asked
    assert ((times > 0) & (times < 1)).all()
    assert noisy.shape[0] == recipe.batch_size
    # Of a prediction of zero the loss is the mean square of noise minus latents: at least the noise's own.
    assert loss.item() > 0.8
