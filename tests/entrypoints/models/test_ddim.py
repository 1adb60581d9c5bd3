"""Stochastic DDIM draws what diffusers' scheduler draws, and says how likely that was."""

import math

import pytest
import torch
from diffusers import DDIMScheduler

from entrypoints.models.ddim import StochasticDdim, Transition
from entrypoints.models.ddpm import Ddpm

STEPS = 5  # divides 1000: diffusers rounds the next timestep otherwise than the timesteps it visits


def scheduler_of(prediction_type: str) -> DDIMScheduler:
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=prediction_type == "v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    scheduler.set_timesteps(STEPS)
    return scheduler


@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_each_step_is_that_of_diffusers(prediction_type: str, eta: float) -> None:
    scheduler = scheduler_of(prediction_type)
    process = Ddpm.of_scheduler(scheduler.config, torch.device("cpu"))
    sampler = StochasticDdim.of_scheduler(process, scheduler.config, STEPS, eta)
    assert list(sampler.timesteps) == scheduler.timesteps.tolist()
    random = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 8, 8, generator=random)
    for number, timestep in enumerate(sampler.timesteps):
        prediction = torch.randn(2, 4, 8, 8, generator=random)
        noise = torch.randn(2, 4, 8, 8, generator=random)
        expected = scheduler.step(prediction, timestep, noisy, eta=eta, variance_noise=noise).prev_sample
        transition = sampler.transition(number, noisy, prediction)
        found = transition.mean + transition.deviation * noise
        assert bool(found.isfinite().all())
        if bool(expected.isfinite().all()):  # without signal, diffusers takes the root of a rounding error below 0
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
        else:
            assert number == 0
        noisy = found
    assert float(transition.deviation) == 0


def test_the_probability_is_that_of_a_normal_distribution() -> None:
    mean, found = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    transition = Transition(mean, torch.tensor(0.7))
    expected = torch.distributions.Normal(mean, 0.7).log_prob(found).mean(dim=(1, 2, 3))
    assert torch.allclose(transition.log_prob(found), expected, atol=1e-6)
    other = Transition(found, torch.tensor(0.7))
    normal, reference = torch.distributions.Normal(mean, 0.7), torch.distributions.Normal(found, 0.7)
    divergence = torch.distributions.kl_divergence(normal, reference).mean(dim=(1, 2, 3))
    assert torch.allclose(transition.divergence(other), divergence, atol=1e-6)


def test_half_precision_of_a_prediction_is_not_that_of_the_probability() -> None:
    scheduler = scheduler_of("epsilon")
    process = Ddpm.of_scheduler(scheduler.config, torch.device("cpu"))
    sampler = StochasticDdim.of_scheduler(process, scheduler.config, STEPS, 1.0)
    prediction = torch.randn(1, 4, 8, 8).bfloat16()
    transition = sampler.transition(0, torch.randn(1, 4, 8, 8), prediction)
    assert transition.mean.dtype == torch.float32
    assert math.isfinite(float(transition.log_prob(transition.mean)))
