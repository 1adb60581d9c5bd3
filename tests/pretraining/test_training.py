"""The training loop: a resumed run ends where the uninterrupted one does."""

from pathlib import Path

import pytest
import torch

from pretraining.machine import machine_name
from pretraining.training import StageSettings, finished, fit, gradients_of, progress_of, randomness

PLAN = StageSettings("line", steps=8, batch=4, learning_rate=0.1, warm_up=2, save_every=3)


class KilledError(Exception):
    """Stands for a killed process."""


def train(folder: Path, stop_before: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)

    def loss(step: int) -> torch.Tensor:
        if step == stop_before:
            raise KilledError
        points = torch.randn(PLAN.batch, 3, generator=randomness(PLAN, step))
        return (network(points) - points.sum(1, keepdim=True)).square().mean()

    fit(network, PLAN, gradients_of(loss), folder)
    return network.state_dict()


@pytest.mark.parametrize("stop_before", [3, 5, 7])
def test_a_resumed_run_is_bit_equal(tmp_path: Path, stop_before: int) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "parts", stop_before)
    assert not finished(tmp_path / "parts" / "line.safetensors", PLAN.steps)
    resumed = train(tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert finished(tmp_path / "parts" / "line.safetensors", PLAN.steps)
    assert progress_of(tmp_path / "parts" / "line.safetensors").machines == (machine_name(),)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    settings = StageSettings("longer", steps=200, batch=16, learning_rate=0.05, warm_up=5)
    torch.manual_seed(0)
    network, losses = torch.nn.Linear(3, 1), []

    def loss(step: int) -> torch.Tensor:
        points = torch.randn(settings.batch, 3, generator=randomness(settings, step))
        losses.append((network(points) - points.sum(1, keepdim=True)).square().mean())
        return losses[-1]

    fit(network, settings, gradients_of(loss), tmp_path)
    assert losses[-1].item() < 0.1 * losses[0].item()
