"""The objective's formulas against numbers worked out by hand."""

import pytest
import torch

from entrypoints.models.ddpm import Ddpm, add_noise, min_snr_weights, training_target
from entrypoints.runtime.failures import TrainingError
from entrypoints.training.denoising import weighted_mse

SIGNAL = torch.tensor([0.8, 0.5, 0.1])  # signal-to-noise ratios 4, 1 and 1/9
ONES = torch.ones(3, 1, 1, 1)


def test_noise_is_mixed_in_by_the_schedule() -> None:
    mixed = add_noise(ONES * 2, ONES * 3, torch.tensor([1.0, 0.25, 0.0]))
    assert mixed.flatten().tolist() == pytest.approx([2, 0.5 * 2 + 0.75**0.5 * 3, 3])


def test_epsilon_models_are_asked_for_the_noise() -> None:
    noise = torch.randn(3, 1, 1, 1)
    assert torch.equal(training_target("epsilon", ONES, noise, SIGNAL), noise)


def test_v_models_are_asked_for_the_velocity() -> None:
    velocity = training_target("v_prediction", ONES * 2, ONES * 3, SIGNAL).flatten().tolist()
    expected = [a**0.5 * 3 - (1 - a) ** 0.5 * 2 for a in (0.8, 0.5, 0.1)]
    assert velocity == pytest.approx(expected)


def test_the_velocity_and_the_noisy_latents_give_the_latents_back() -> None:
    latents, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    noisy, velocity = add_noise(latents, noise, SIGNAL), training_target("v_prediction", latents, noise, SIGNAL)
    a = SIGNAL.view(-1, 1, 1, 1)
    torch.testing.assert_close(a.sqrt() * noisy - (1 - a).sqrt() * velocity, latents)


def test_another_prediction_type_is_refused() -> None:
    with pytest.raises(TrainingError, match="sample"):
        Ddpm.of_scheduler({"prediction_type": "sample"}, torch.device("cpu"))


def test_betas_of_no_noise_are_refused() -> None:
    config = {"beta_start": 0.0, "beta_end": 0.0, "rescale_betas_zero_snr": True}  # it divides by their range
    with pytest.raises(TrainingError, match="NaN or infinity") as caught:
        Ddpm.of_scheduler(config, torch.device("cpu"))
    assert caught.value.kind == "base-model"


def test_min_snr_weights_by_hand() -> None:
    epsilon = min_snr_weights("epsilon", SIGNAL, gamma=2)
    assert epsilon.tolist() == pytest.approx([2 / 4, 1, 1])
    velocity = min_snr_weights("v_prediction", SIGNAL, gamma=2)
    assert velocity.tolist() == pytest.approx([2 / 5, 1 / 2, 0.1])


@pytest.mark.parametrize(("kind", "weight"), [("epsilon", 1), ("v_prediction", 0)])
def test_min_snr_weights_at_zero_terminal_snr(kind: str, weight: float) -> None:
    assert min_snr_weights(kind, torch.tensor([0.0]), gamma=5).tolist() == [weight]


def test_weights_apply_to_samples() -> None:
    prediction = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    loss = weighted_mse(prediction, torch.zeros_like(prediction), torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx((1 * 1 + 0.5 * 4) / 2)
