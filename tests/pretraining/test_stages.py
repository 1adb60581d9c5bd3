"""All stages fit together: from nothing to a folder that plain diffusers loads, in seconds."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from pretraining.denoiser import build_denoiser
from pretraining.stages import QUICK, Stages
from pretraining.training import gradients_in_threads


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(tmp_path_factory.mktemp("stages"), QUICK, seed=3)


def test_the_export_loads_in_plain_diffusers_and_is_not_repeated(stages: Stages, tmp_path: Path) -> None:
    assert stages.export(tmp_path / "base_model") < 16_000_000
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "base_model", local_files_only=True)
    assert pipe.vae.config.scaling_factor == stages.autoencoder().config.scaling_factor
    states = {path: path.stat().st_mtime_ns for path in stages.work.glob("*.safetensors")}
    stages.export(tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in states} == states
    for path in (tmp_path / "base_model").rglob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "base_model")).read_bytes()


def test_gradients_in_threads_are_those_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    network = build_denoiser().to(memory_format=torch.channels_last)
    inputs, states, times = torch.randn(4, 4, 16, 16), torch.randn(4, 5, 128), torch.tensor([0, 300, 600, 999])

    def loss(part: slice) -> torch.Tensor:
        return network(inputs[part], times[part], states[part]).sample.square().mean()

    value = gradients_in_threads(network, lambda _: [lambda: loss(slice(0, 2)), lambda: loss(slice(2, 4))])(0)
    parted = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    assert all(weight.grad.stride() == weight.stride() for weight in network.parameters())
    network.zero_grad()
    whole = loss(slice(0, 4))
    whole.backward()
    assert value == pytest.approx(whole.item(), rel=1e-5)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(parted[name], weight.grad, rtol=1e-3, atol=1e-6)
