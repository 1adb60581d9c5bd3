"""Frozen weights in half precision: chosen for a GPU, tried here with bfloat16 on a CPU."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

from entrypoints.adapters.controlnet import new_network
from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.low_rank import low_rank_tuner
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.image_cache import ImageCache
from entrypoints.models.loading import load_base_model
from entrypoints.models.precision import Half, half_of
from entrypoints.models.sampling import Drawing, DrawRequest, draw
from entrypoints.recipes.dreambooth import captions, make_tuner
from entrypoints.runtime.history import read_history
from entrypoints.runtime.machine import this_machine
from entrypoints.runtime.pictures import list_images
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.run import Run
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.families import SDXL, STABLE_DIFFUSION, Family
from orchestrator.contract.mixins import Optimised

CPU, GPU = torch.device("cpu"), torch.device("cuda")
HALF = {"mixed_precision": "bf16"}
WORD = {"pivotal": True, "rare_token": "<my-dog>", "instance_prompt": "a photo of <my-dog> dog"}


def test_only_what_is_frozen_on_a_gpu_is_held_in_half_precision() -> None:
    texts = SDXL.text_encoders
    for recipe, parts in (
        (tiny.dreambooth(**HALF), ("unet", *texts)),
        (tiny.dreambooth(tuner="full", **HALF), texts),
        (tiny.dreambooth(tuner="full", train_text_encoder=True, **HALF), ()),
        (tiny.textual_inversion(**HALF), ("unet", *texts)),
    ):
        found = half_of(recipe, SDXL, GPU)
        assert found is not None
        assert (found.dtype, tuple(found.parts)) == (torch.bfloat16, parts)
        assert half_of(recipe, SDXL, CPU) is None
    assert half_of(tiny.dreambooth(), STABLE_DIFFUSION, GPU) is None


def load(folder: Path, recipe: Optimised, *, half: bool) -> BaseModel:
    """Load a model as a run of the recipe on a GPU does."""

    def of_gpu(family: Family) -> Half | None:
        return half_of(recipe, family, GPU) if half else None

    return load_base_model(folder, "tiny", None, CPU, half=of_gpu)


def tuner_of(recipe: Any, base: BaseModel) -> Tuner:
    if recipe.recipe_name() == "dreambooth":
        return make_tuner(recipe, base)
    if recipe.recipe_name() == "lora":
        return low_rank_tuner(recipe, base)
    return Embedding(base, placeholder="<my-dog>", initializer="dog", vectors=2)


RECIPES = {
    "lora on all layers": tiny.captioned_lora(train_text_encoder=True, targets="all", **HALF),
    "dora": tiny.captioned_lora(tuner="dora", **HALF),
    "lokr": tiny.captioned_lora(tuner="lokr", **HALF),
    "loha": tiny.captioned_lora(tuner="loha", **HALF),
    "oft": tiny.captioned_lora(tuner="oft", **HALF),
    "full": tiny.dreambooth(tuner="full", prior_preservation=False, **HALF),
    "embedding": tiny.textual_inversion(**HALF),
    "pivotal": tiny.dreambooth(prior_preservation=False, **WORD, **HALF),
}


def gradients(base: BaseModel, recipe: Any, folder: Path) -> Tensor:
    """Return the gradients of a first loss as one vector; an adapter is first moved from where it begins."""
    tuner = tuner_of(recipe, base)
    random = torch.Generator().manual_seed(3)
    for _, parameter in sorted(tuner.parameters.items()):
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=random)
    images = list_images(folder)
    stream = Stream("images", latents_of(base, recipe, images), captions(images, "a photo of <my-dog> dog"))
    encoder = PromptEncoder(base, frozen=not tuner.trains_text_encoder)
    objective = DenoisingObjective(base, recipe, [stream], encoder)
    with torch.autocast("cpu", torch.bfloat16):
        loss = next(objective.losses(0, Ranks()))
    loss.backward()
    assert loss.isfinite()
    found = []
    for _, parameter in sorted(tuner.parameters.items()):
        assert parameter.dtype == torch.float32
        if parameter.grad is not None:  # SDXL does not read the last layer of its text encoders
            found.append(parameter.grad.flatten())
    probe = objective.probe(4)  # outside of autocast
    assert probe is not None
    assert bool(probe.losses.isfinite().all())
    return torch.cat(found)


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_of_float32_weights_are_near_those_beside_float32(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipe = RECIPES[name]
    model = request.getfixturevalue("sdxl_folder" if name == "lora on all layers" else "base_folder")
    folder = tiny.write_pictures(tmp_path / "pictures")
    base = load(model, recipe, half=True)
    halved = gradients(base, recipe, folder)
    exact = gradients(load(model, recipe, half=False), recipe, folder)
    assert torch.nn.functional.cosine_similarity(halved, exact, dim=0) > 0.98
    frozen = [parameter for parameter in base.denoiser.parameters() if not parameter.requires_grad]
    trained = recipe.trains_all_weights
    assert any(parameter.dtype == torch.bfloat16 for parameter in frozen) != trained
    assert base.pipeline.vae.dtype == torch.float32


def test_a_trained_copy_of_frozen_weights_begins_with_those_of_the_files(base_folder: Path) -> None:
    recipe = tiny.controlnet(**HALF)
    rounded = load(base_folder, recipe, half=True)
    assert rounded.denoiser.conv_in.weight.dtype == torch.bfloat16
    found = new_network(rounded, seed=1).state_dict()
    exact = new_network(load(base_folder, recipe, half=False), seed=1).state_dict()
    for name, tensor in exact.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor), name
    assert rounded.denoiser.conv_in.weight.dtype == torch.bfloat16


class OnGpu(Run):
    """A run that loads its base model as on a GPU."""

    def load_base_model(self) -> BaseModel:
        folder, _ = self._base_model_source
        return load(folder, self.recipe, half=True)


@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        (tiny.dreambooth(train_text_encoder=True, **HALF), "base_folder"),
        (tiny.dreambooth(output_preservation=True, **WORD, **HALF), "sdxl_folder"),
    ],
    ids=["lora", "pivotal"],
)
def test_a_run_trains_draws_and_publishes(recipe: Any, model: str, job: Any, request: pytest.FixtureRequest) -> None:
    environment = job(recipe, base_model=request.getfixturevalue(model))
    run = OnGpu(environment, recipe)
    import_module(f"entrypoints.recipes.{recipe.recipe_name().replace('-', '_')}").train(recipe, run)
    assert len(read_history(environment.checkpoints)) == recipe.steps
    manifest = AdapterManifest.read(environment.model)
    adapter = {name: file for name, file in manifest.files.items() if name.endswith(".safetensors")}
    assert adapter
    for name in adapter:
        tensors = load_file(environment.model / name)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_images_are_near_those_drawn_in_float32_and_are_kept_apart_from_them(base_folder: Path, tmp_path: Path) -> None:
    recipe = tiny.dreambooth(**HALF)
    requests, drawing = [DrawRequest("a photo of toy dog", 5)], Drawing(steps=4, guidance=3.0, size=tiny.SIDE)
    images, paths = [], []
    for half in (True, False):
        base = load(base_folder, recipe, half=half)
        (image,) = draw(base, requests, drawing, lambda: None)
        images.append(np.asarray(image, dtype=np.float32))
        held = half_of(recipe, base.family, GPU) if half else None
        paths += ImageCache.of(tmp_path, base, this_machine(CPU), drawing, held).paths(requests)
    assert 0 < np.abs(images[0] - images[1]).mean() < 4  # of 255
    assert paths[0] != paths[1]


def test_an_adapter_is_not_rounded_into_half_precision_weights(base_folder: Path) -> None:
    recipe = tiny.captioned_lora(**HALF)
    base = load(base_folder, recipe, half=True)
    tuner = low_rank_tuner(recipe, base)
    before = {name: weight.clone() for name, weight in base.denoiser.state_dict().items()}
    for parameter in tuner.parameters.values():
        parameter.data += 0.1
    tuner.fuse()
    for name, weight in base.denoiser.state_dict().items():
        assert "lora_" in name or torch.equal(weight, before[name])
