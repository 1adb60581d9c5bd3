"""What we save loads in plain diffusers and draws the picture that we draw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors import safe_open

from entrypoints.adapters.controlnet import ControlNetTuner
from entrypoints.adapters.controls import load_network
from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.full import Full
from entrypoints.adapters.loading import load_adapter
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.low_rank import low_rank_tuner
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from entrypoints.models.sampling import Drawing, DrawRequest, draw, draw_batch
from entrypoints.recipes.dreambooth import make_tuner
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.stop import StopFlag, Stopped
from orchestrator.contract.adapter import HEADER_KEY, AdapterManifest
from orchestrator.contract.figures import FIGURES
from orchestrator.contract.recipe import from_hyperparameters

PROMPT = "a photo of a toy dog"
HEADER = {"format": "pt", HEADER_KEY: "{}"}
GUIDANCE = 7.5


def plain(folder: Path) -> Any:
    """Return the model in plain diffusers, by the class its index names."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(pipeline: Any, prompt: str = PROMPT) -> np.ndarray:
    """Draw a picture and return its pixels, from 0 to 1."""
    generator = torch.Generator("cpu").manual_seed(3)
    options = {"num_inference_steps": 2, "guidance_scale": GUIDANCE, "height": tiny.SIDE, "width": tiny.SIDE}
    pixels: np.ndarray = pipeline(prompt, generator=generator, output_type="np", **options).images[0]
    return pixels


def disturb(tuner: Tuner, strength: float = 0.5) -> None:
    """Stand in for training: move everything that is trained by a lot."""
    random = torch.Generator().manual_seed(0)
    for parameter in tuner.parameters.values():
        parameter.data += strength * torch.randn(parameter.shape, generator=random)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def manifest(
    base: BaseModel, tuner: Tuner, folder: Path, trigger: str, config: dict[str, Any] | None = None
) -> AdapterManifest:
    """Write the manifest of an adapter that was saved to `folder`."""
    return AdapterManifest(
        kind=tuner.kind,
        parts=tuner.parts,
        recipe="dreambooth",
        config=config or {},
        base_model=base.reference,
        dataset_sha256="",
        bundle_sha256="",
        trigger=trigger,
        libraries={},
    ).write(folder)


def assert_loads_everywhere(
    base: BaseModel,
    tuner: Tuner,
    folder: Path,
    prompt: str,
    config: dict[str, Any] | None = None,
    strength: float = 0.5,
) -> None:
    """Save a tuner; its files draw its picture in plain diffusers, and through `load_adapter` in a fresh base model."""
    disturb(tuner, strength)
    folder.mkdir()
    tuner.save(folder, HEADER)
    complete = manifest(base, tuner, folder, "<my-dog>", config)
    ours = picture(base.pipeline, prompt)
    assert difference(ours, picture(plain(base.folder), prompt)) > 0.01  # the adapter does something

    pipe = plain(base.folder)
    exec("\n".join(complete.loading(str(folder))), {"pipe": pipe})  # noqa: S102 - what we tell people to type
    assert difference(ours, picture(pipe, prompt)) <= 1e-5

    fresh = load_base_model(base.folder, "tiny", None, torch.device("cpu"))
    load_adapter(fresh, folder)
    assert difference(ours, picture(fresh.pipeline, prompt)) <= 1e-5


@pytest.mark.parametrize("text_encoder", [False, True])
@pytest.mark.parametrize("alpha", [4, 1, 16])  # scales that do not round: weights as wild as these amplify it
def test_a_lora_draws_the_same_in_diffusers(
    family_base: BaseModel, tmp_path: Path, alpha: float, text_encoder: bool
) -> None:
    tuner = Lora(family_base, rank=4, alpha=alpha, text_encoder=text_encoder, seed=0)
    assert_loads_everywhere(family_base, tuner, tmp_path / "adapter", PROMPT)


EVERY_TUNER = [
    {"tuner": "lora", "targets": "transformer"},
    {"tuner": "lora", "targets": "all"},
    {"tuner": "dora", "train_text_encoder": False},
    {"tuner": "dora", "targets": "all"},
    {"tuner": "lokr", "targets": "all"},
    {"tuner": "loha", "targets": "all"},
    {"tuner": "oft", "targets": "transformer"},
]


@pytest.mark.parametrize("settings", EVERY_TUNER, ids=lambda settings: "-".join(map(str, settings.values())))
def test_every_tuner_draws_the_same_in_diffusers(
    family_base: BaseModel, tmp_path: Path, settings: dict[str, Any]
) -> None:
    recipe = tiny.dreambooth(**{"rank": 4, "alpha": 3, "train_text_encoder": True, **settings})
    tuner = low_rank_tuner(recipe, family_base)
    assert_loads_everywhere(family_base, tuner, tmp_path / "adapter", PROMPT, settings, strength=0.1)


def test_a_word_and_an_adapter_draw_the_same_in_diffusers(family_base: BaseModel, tmp_path: Path) -> None:
    settings = {"pivotal": True, "rare_token": "<my-dog>", "initializer_token": "dog", "tuner": "lora"}
    recipe = tiny.dreambooth(**settings, instance_prompt="a photo of <my-dog> dog", rank=4, alpha=3)
    tuner = make_tuner(recipe, family_base)
    prompt = "a photo of <my-dog> dog"
    assert_loads_everywhere(family_base, tuner, tmp_path / "adapter", prompt, settings, strength=0.2)


def in_pixels(latents: torch.Tensor, base: BaseModel) -> np.ndarray:
    """Decode one picture as the pipeline does: (height, width, 3), from 0 to 1."""
    vae = base.pipeline.vae
    decoded = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    pixels: np.ndarray = base.pipeline.image_processor.postprocess(decoded, output_type="np")[0]
    return pixels


@torch.no_grad()
def drawn_by_parts(base: BaseModel, network: Any, condition: Image.Image) -> np.ndarray:
    """Draw a picture without guidance by the methods that a ControlNet is trained through."""
    scheduler = base.pipeline.scheduler
    scheduler.set_timesteps(2)
    generator = torch.Generator("cpu").manual_seed(3)
    side = tiny.SIDE // base.pipeline.vae_scale_factor
    latents = torch.randn(1, base.denoiser.config.in_channels, side, side, generator=generator)
    latents = latents * scheduler.init_noise_sigma
    conditions = base.encode_prompts([PROMPT])
    shown = torch.from_numpy(np.asarray(condition, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    for time in scheduler.timesteps:
        noisy = scheduler.scale_model_input(latents, time)
        residuals = base.residuals(network, noisy, time[None], conditions, shown)
        prediction = base.predict(noisy, time[None], conditions, residuals)
        latents = scheduler.step(prediction, time, latents, return_dict=False)[0]
    return in_pixels(latents, base)


def test_a_controlnet_draws_the_same_in_diffusers(family_base: BaseModel, tmp_path: Path) -> None:
    base, condition = family_base, tiny.random_image(5)
    tuner = ControlNetTuner(base, seed=0)
    disturb(tuner, 0.1)
    tuner.network.eval()
    folder = tmp_path / "adapter"
    folder.mkdir()
    tuner.save(folder, HEADER)
    complete = manifest(base, tuner, folder, "")
    ours = drawn_by_parts(base, tuner.network, condition)

    named = {"pipe": plain(base.folder)}
    exec("\n".join(complete.loading(str(folder))), named)  # noqa: S102 - what we tell people to type
    options = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "np"}
    theirs = [
        named["pipe"](PROMPT, image=image, generator=torch.Generator("cpu").manual_seed(3), **options).images[0]
        for image in (condition, tiny.random_image(6))
    ]
    assert difference(ours, theirs[0]) <= 1e-5
    assert difference(ours, theirs[1]) > 0.01  # the condition does something

    fresh = load_base_model(base.folder, "tiny", None, torch.device("cpu"))
    assert difference(ours, drawn_by_parts(fresh, load_network(fresh, "edges", folder), condition)) <= 1e-5
    with pytest.raises(TrainingError, match="is a ControlNet"):
        load_adapter(fresh, folder)


@pytest.mark.parametrize("vectors", [1, 3])
def test_an_embedding_draws_the_same_in_diffusers(family_base: BaseModel, tmp_path: Path, vectors: int) -> None:
    tuner = Embedding(family_base, placeholder="<my-dog>", initializer="dog", vectors=vectors)
    assert_loads_everywhere(family_base, tuner, tmp_path / "adapter", "a photo of <my-dog>")


@pytest.mark.parametrize("text_encoder", [False, True])
def test_full_weights_load_in_diffusers(family_base: BaseModel, tmp_path: Path, text_encoder: bool) -> None:
    tuner = Full(family_base, text_encoder=text_encoder)
    assert_loads_everywhere(family_base, tuner, tmp_path / "adapter", PROMPT)


def test_the_alpha_is_in_the_file(base: BaseModel, base_folder: Path, tmp_path: Path) -> None:
    for alpha in (1, 8):
        (tmp_path / str(alpha)).mkdir()
    small = Lora(base, rank=4, alpha=1, text_encoder=False, seed=0)
    disturb(small)
    small.save(tmp_path / "1", HEADER)
    small.scale = 8 / 4
    small.save(tmp_path / "8", HEADER)
    pictures = []
    for alpha in (1, 8):
        loaded = plain(base_folder)
        loaded.load_lora_weights(tmp_path / str(alpha))
        pictures.append(picture(loaded))
    assert difference(*pictures) > 0.02


DRAWING = Drawing(steps=2, guidance=GUIDANCE, size=tiny.SIDE)


def test_a_picture_does_not_depend_on_its_batch(base: BaseModel) -> None:
    requests = [DrawRequest("a red dog", 1), DrawRequest(PROMPT, 3), DrawRequest("a toy", 3)]
    batch = draw_batch(base, requests, DRAWING, StopFlag().check)
    pixels = [np.asarray(image, dtype=float) / 255 for image in batch]
    assert difference(pixels[1], picture(base.pipeline)) <= 1 / 255
    assert difference(pixels[1], pixels[2]) > 1 / 255


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
    assert difference(np.asarray(images[2], dtype=float) / 255, picture(base.pipeline)) <= 1 / 255


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
