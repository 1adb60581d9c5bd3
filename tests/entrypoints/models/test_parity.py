"""What we save loads in plain diffusers and draws the picture that we draw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors import safe_open

from entrypoints.adapters.embeddings import Embeddings
from entrypoints.adapters.full import Full
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.sampling import Drawing, DrawRequest, draw, draw_batch
from entrypoints.models.stable_diffusion import BaseModel
from entrypoints.runtime.stop import StopFlag, Stopped
from orchestrator.contract.adapter import HEADER_KEY, AdapterManifest
from orchestrator.contract.figures import FIGURES
from orchestrator.contract.recipe import from_hyperparameters

PROMPT = "a photo of a toy dog"
HEADER = {"format": "pt", HEADER_KEY: "{}"}
GUIDANCE = 7.5


def plain(folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(pipeline: StableDiffusionPipeline, prompt: str = PROMPT) -> Image.Image:
    generator = torch.Generator("cpu").manual_seed(3)
    options = {"num_inference_steps": 2, "guidance_scale": GUIDANCE, "height": tiny.SIDE, "width": tiny.SIDE}
    return pipeline(prompt, generator=generator, **options).images[0]


def disturb(tuner: Tuner) -> None:
    """Stand in for training: move everything that is trained by a lot."""
    random = torch.Generator().manual_seed(0)
    for parameter in tuner.parameters.values():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=random)


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).max())


def assert_same_picture(base: BaseModel, loaded: StableDiffusionPipeline, base_folder: Path, prompt: str) -> None:
    ours = picture(base.pipeline, prompt)
    assert difference(ours, picture(loaded, prompt)) <= 1  # of 255: sums in another order
    assert difference(ours, picture(plain(base_folder), prompt)) > 5  # the adapter does something


@pytest.mark.parametrize("text_encoder", [False, True])
@pytest.mark.parametrize("alpha", [4, 1, 11])
def test_a_lora_draws_the_same_in_diffusers(
    base: BaseModel, base_folder: Path, tmp_path: Path, alpha: float, text_encoder: bool
) -> None:
    tuner = Lora(base, rank=4, alpha=alpha, text_encoder=text_encoder, seed=0)
    disturb(tuner)
    tuner.save(tmp_path, HEADER)
    loaded = plain(base_folder)
    loaded.load_lora_weights(tmp_path)
    assert_same_picture(base, loaded, base_folder, PROMPT)


def test_the_alpha_of_the_file_is_what_counts(base: BaseModel, base_folder: Path, tmp_path: Path) -> None:
    for alpha in (1, 8):
        (tmp_path / str(alpha)).mkdir()
    small = Lora(base, rank=4, alpha=1, text_encoder=False, seed=0)
    disturb(small)
    small.save(tmp_path / "1", HEADER)
    small.configs["unet"].lora_alpha = 8
    small.save(tmp_path / "8", HEADER)
    pictures = []
    for alpha in (1, 8):
        loaded = plain(base_folder)
        loaded.load_lora_weights(tmp_path / str(alpha))
        pictures.append(picture(loaded))
    assert difference(*pictures) > 5


@pytest.mark.parametrize("vectors", [1, 3])
def test_an_embedding_draws_the_same_in_diffusers(
    base: BaseModel, base_folder: Path, tmp_path: Path, vectors: int
) -> None:
    tuner = Embeddings(base, placeholder="<my-dog>", initializer="dog", vectors=vectors)
    disturb(tuner)
    tuner.save(tmp_path, HEADER)
    loaded = plain(base_folder)
    loaded.load_textual_inversion(tmp_path)
    assert_same_picture(base, loaded, base_folder, "a photo of <my-dog>")


def test_full_weights_load_in_diffusers(base: BaseModel, base_folder: Path, tmp_path: Path) -> None:
    tuner = Full(base, text_encoder=True)
    disturb(tuner)
    tuner.save(tmp_path, HEADER)
    loaded = plain(base_folder)
    loaded.unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    loaded.text_encoder = type(loaded.text_encoder).from_pretrained(tmp_path / "text_encoder")
    assert_same_picture(base, loaded, base_folder, PROMPT)


DRAWING = Drawing(steps=2, guidance=GUIDANCE, size=tiny.SIDE)


def test_a_picture_does_not_depend_on_its_batch(base: BaseModel) -> None:
    requests = [DrawRequest("a red dog", 1), DrawRequest(PROMPT, 3), DrawRequest("a toy", 3)]
    batch = draw_batch(base, requests, DRAWING, StopFlag().check)
    assert difference(batch[1], picture(base.pipeline)) <= 1
    assert difference(batch[1], batch[2]) > 1


def test_drawing_ends_between_two_steps_when_the_process_is_asked_to_end(base: BaseModel) -> None:
    steps = []

    def check_stop() -> None:
        steps.append(len(steps))
        StopFlag(asked=True).check()

    with pytest.raises(Stopped):
        draw(base, [DrawRequest(PROMPT, 3)], DRAWING, check_stop)
    assert len(steps) == 1


def test_more_images_than_a_batch_holds_are_drawn_in_several(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.contract.drawing.PIXELS_AT_ONCE_CPU", 2 * tiny.SIDE**2)
    ready: list[int] = []
    requests = [DrawRequest(PROMPT, seed) for seed in (1, 2, 3)]
    images = draw(base, requests, DRAWING, StopFlag().check, ready.append)
    assert ready == [2, 3]
    assert difference(images[2], picture(base.pipeline)) <= 1


def test_a_run_leaves_a_whole_adapter_that_says_what_it_is(job: Any, run: Any, base: BaseModel) -> None:
    environment = job(tiny.dreambooth(alpha=3))
    events = run(environment)
    manifest = AdapterManifest.read(environment.model)
    assert manifest.damaged_files(environment.model) == []
    names = ["index.json", "before-00-00.png", "after-00-00.png", *(f"real-0{number}.png" for number in range(3))]
    samples = {f"samples/{name}" for name in names}
    assert set(manifest.files) == {"pytorch_lora_weights.safetensors", "contact_sheet.png", *samples}
    assert manifest.base_model == base.reference.model_copy(update={"id": "builtin"})
    assert manifest.config == from_hyperparameters(environment.hyperparameters()).model_dump(mode="json")
    assert manifest.trigger == "a photo of sks dog"
    assert {"event": "metrics", "values": manifest.metrics} in events
    assert set(manifest.metrics) == set(FIGURES)
    with safe_open(environment.model / "pytorch_lora_weights.safetensors", framework="pt") as file:
        assert file.metadata()[HEADER_KEY] == manifest.header()[HEADER_KEY]
