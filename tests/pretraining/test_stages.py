"""All stages fit together: from nothing to a folder that plain diffusers loads, in seconds."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from pretraining.denoiser import build_denoiser, velocity_weights
from pretraining.examples import drawn_scenes
from pretraining.export import BYTE_LIMIT
from pretraining.lessons import EMPHASIS, MIX, emphasis_of
from pretraining.schedule import noise_schedule
from pretraining.stages import QUICK, Stages
from pretraining.training import gradients_in_threads


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(tmp_path_factory.mktemp("stages"), QUICK, seed=3)


def test_the_export_loads_in_plain_diffusers_and_is_not_repeated(stages: Stages, tmp_path: Path) -> None:
    assert stages.export(tmp_path / "base_model") < BYTE_LIMIT
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
    inputs, states, times = torch.randn(4, 8, 16, 16), torch.randn(4, 5, 128), torch.tensor([0, 300, 600, 999])

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


def test_the_clip_of_a_model_that_is_kept_is_exported_as_it_was(stages: Stages, tmp_path: Path) -> None:
    stages.export(tmp_path / "first")
    kept = Stages(tmp_path / "work", QUICK, seed=4, kept_clip=tmp_path / "first" / "clip")
    kept.export(tmp_path / "second")
    for part in ("clip", "text_encoder"):
        for path in (tmp_path / "first" / part).glob("*.safetensors"):
            assert path.read_bytes() == (tmp_path / "second" / part / path.name).read_bytes()
    assert set(kept.progress()) == {"autoencoder", "denoiser", "lessons"}


def test_nearly_clean_latents_weigh_less_and_the_noisiest_as_much_as_any() -> None:
    weights = velocity_weights(noise_schedule())
    assert weights[-1] == weights.max() == 1
    assert 0 < weights[0] < 0.01
    assert (weights.diff() >= 0).all()


def test_errors_count_more_where_something_grows_on_a_head_and_nowhere_on_a_bald_one() -> None:
    scenes = list(drawn_scenes(0, "tests", 24, MIX))
    for scene, emphasis in zip(scenes, emphasis_of(scenes), strict=True):
        assert scene.monster is not None
        rows = (emphasis[0] > 1).any(1).nonzero()
        assert (len(rows) == 0) == (scene.monster.top == "bald")
        if len(rows):
            assert rows.min() < 16 * scene.y  # above its middle
            assert (emphasis == 1).float().mean() > 0.7
            assert emphasis.mean() == pytest.approx(1 + EMPHASIS)
