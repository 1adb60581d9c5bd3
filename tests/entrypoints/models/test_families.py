"""What every family does, and SDXL from a folder to pictures."""

import configparser
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from diffusers import ControlNetModel, DiffusionPipeline
from PIL import Image

from entrypoints.adapters.loading import load_adapter
from entrypoints.models.base import BaseModel, Residuals
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.checkpoint import newest_first
from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest
from orchestrator.contract.families import FAMILIES
from orchestrator.contract.model_check import model_problems
from orchestrator.contract.samples import INDEX_FILE, SAMPLES_FOLDER, parse_index

CPU = torch.device("cpu")


def test_every_family_is_an_entry_and_a_module() -> None:
    modules = {path.stem for path in Path("entrypoints/models").glob("*.py")}
    assert {family.module for family in FAMILIES.values()} <= modules


def test_a_model_knows_its_family(family_folder: Path, family_base: BaseModel) -> None:
    assert model_problems(family_folder) == []
    assert family_base.reference.family == family_base.family.name
    assert list(family_base.text_encoders) == list(family_base.family.text_encoders)
    assert len(family_base.tokenizers) == len(family_base.text_encoders)


def test_all_weights_are_frozen_and_float32(family_base: BaseModel) -> None:
    modules = [family_base.denoiser, family_base.pipeline.vae, *family_base.text_encoders.values()]
    for module in modules:
        assert all(not parameter.requires_grad for parameter in module.parameters())
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_a_condition_of_several_prompts_is_that_of_each(family_base: BaseModel) -> None:
    together = family_base.encode_prompts(["a dog", "a toy"])
    alone = family_base.encode_prompts(["a toy"])
    for name, tensor in together.items():
        torch.testing.assert_close(tensor[1:], alone[name])


def test_a_prediction_is_what_the_pipeline_asks_for(family_base: BaseModel) -> None:
    """Draw one step with the pipeline, and catch what it gives the denoiser and gets."""
    calls: list[tuple[tuple[Any, ...], torch.Tensor]] = []
    hook = family_base.denoiser.register_forward_hook(
        lambda _, arguments, output: calls.append((arguments, output[0].clone()))
    )
    family_base.pipeline("a toy dog", num_inference_steps=1, guidance_scale=1.0, height=tiny.SIDE, width=2 * tiny.SIDE)
    hook.remove()
    (noisy, timestep), theirs = calls[0]
    ours = family_base.predict(noisy, timestep.expand(1), family_base.encode_prompts(["a toy dog"]))
    torch.testing.assert_close(ours, theirs)


def test_encoded_images_have_the_scale_on_which_the_denoiser_was_trained(family_base: BaseModel) -> None:
    """That of the pipeline: its own preprocessing and autoencoder, times the autoencoder's factor."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(2)]
    pipeline = family_base.pipeline
    with torch.no_grad():
        pixels = pipeline.image_processor.preprocess(images)
        expected = pipeline.vae.encode(pixels).latent_dist
        encoded = family_base.encode_images(images)
    factor = pipeline.vae.config.scaling_factor
    assert factor != 1
    torch.testing.assert_close(encoded[:, 0], expected.mean * factor)
    torch.testing.assert_close(encoded[:, 1], expected.std * factor)


def test_residuals_reach_the_denoiser(family_base: BaseModel) -> None:
    noisy, times = torch.randn(1, 4, 16, 16), torch.tensor([500])
    conditions = family_base.encode_prompts(["a dog"])
    plain = family_base.predict(noisy, times, conditions)
    control = ControlNetModel.from_unet(family_base.denoiser)
    shapes = [list(block.shape) for block in _skips(family_base, noisy, times, conditions)]
    zeros = [torch.zeros(shape) for shape in shapes]
    middle = torch.zeros_like(zeros[-1])
    assert len(control.controlnet_down_blocks) == len(zeros)
    torch.testing.assert_close(family_base.predict(noisy, times, conditions, Residuals(zeros, middle)), plain)
    other = family_base.predict(noisy, times, conditions, Residuals(zeros, middle + 1))
    assert (other - plain).abs().max() > 1e-3


def _skips(base: BaseModel, noisy: torch.Tensor, times: torch.Tensor, conditions: Any) -> list[torch.Tensor]:
    """Return the U-Net's skip connections: what its first convolution and its down blocks leave."""
    kept: list[torch.Tensor] = []
    hooks = [base.denoiser.conv_in.register_forward_hook(lambda _, __, output: kept.append(output))]
    for block in base.denoiser.down_blocks:
        hooks.append(block.register_forward_hook(lambda _, __, output: kept.extend(output[1])))
    base.predict(noisy, times, conditions)
    for hook in hooks:
        hook.remove()
    return kept


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_autoencoder_computes_in_float32_under_half_precision(family_base: BaseModel, precision: str) -> None:
    images = [tiny.random_image(0)]
    plain = family_base.encode_images(images)
    with torch.autocast("cpu", torch.bfloat16 if precision == "bf16" else torch.float16):
        inside = family_base.encode_images(images)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


def test_a_model_that_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_base_model(tmp_path / "model", prediction_type="epsilon")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"epsilon"', '"sample"'))
    with pytest.raises(
        TrainingError, match="prediction_type should be 'epsilon' or 'v_prediction', not 'sample'"
    ) as caught:
        load_base_model(folder, "tiny", None, CPU)
    assert caught.value.kind == "base-model"


RECIPES = {
    "lora": tiny.dreambooth(train_text_encoder=True),
    "full": tiny.dreambooth(tuner="full", train_text_encoder=True, learning_rate=1e-3),
    "embedding": tiny.textual_inversion(),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_sdxl_is_trained_and_its_adapter_is_whole(job: Any, run: Any, sdxl_folder: Path, kind: str) -> None:
    environment = job(RECIPES[kind], base_model=sdxl_folder)
    events = run(environment)
    manifest = AdapterManifest.read(environment.model)
    assert manifest.damaged_files(environment.model) == []
    assert (manifest.kind, manifest.base_model.family) == (kind, "sdxl")
    assert {"text_encoder", "text_encoder_2"} <= set(manifest.parts)
    assert [event["step"] for event in events if event["event"] == "step"] == [*range(1, RECIPES[kind].steps + 1)]


def test_an_interrupted_run_of_sdxl_ends_in_the_same_bytes(job: Any, run: Any, sdxl_folder: Path) -> None:
    recipe = tiny.dreambooth(checkpoint_steps=2, evaluation_prompts=0)
    whole, cut = job(recipe, "whole", base_model=sdxl_folder), job(recipe, "cut", base_model=sdxl_folder)
    run(whole)
    run(cut)
    newest = next(iter(newest_first(cut.checkpoints)))
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    events = run(cut)
    assert {"event": "resumed", "step": 2} in events
    files = [environment.model / "pytorch_lora_weights.safetensors" for environment in (whole, cut)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_untouched_sdxl_draws_what_plain_diffusers_draws(sdxl_folder: Path) -> None:
    base, plain = load_base_model(sdxl_folder, "tiny", None, CPU), DiffusionPipeline.from_pretrained(sdxl_folder)
    options = {"num_inference_steps": 2, "height": tiny.SIDE, "width": tiny.SIDE, "output_type": "np"}
    pictures = []
    for pipeline in (base.pipeline, plain):
        seeded = torch.Generator().manual_seed(1)
        pictures.append(torch.from_numpy(pipeline("a toy dog", generator=seeded, **options).images))
    torch.testing.assert_close(*pictures)


def test_one_rank_is_the_first_and_waits_for_nobody() -> None:
    ranks = Ranks()
    assert ranks.is_first
    assert ranks.mean(torch.tensor(2.0)) == 2
    assert not ranks.any(value=False, device=CPU)
    ranks.barrier()


@pytest.mark.parametrize("kind", RECIPES)
def test_an_adapter_of_sdxl_draws_in_plain_diffusers_what_its_run_drew(
    job: Any, run: Any, sdxl_folder: Path, kind: str
) -> None:
    recipe = RECIPES[kind]
    environment = job(recipe, base_model=sdxl_folder)
    run(environment)
    samples = environment.model / SAMPLES_FOLDER
    index = parse_index((samples / INDEX_FILE).read_bytes())
    sample = next(image for image in index.images if image.source == "after")
    drawn = np.asarray(Image.open(samples / sample.file), dtype=float) / 255

    plain = DiffusionPipeline.from_pretrained(sdxl_folder)
    lines = AdapterManifest.read(environment.model).loading(str(environment.model))
    exec("\n".join(lines), {"pipe": plain})  # noqa: S102 - what we tell people to type
    ours = load_base_model(sdxl_folder, "builtin", None, CPU)
    load_adapter(ours, environment.model)

    images = []
    for pipeline in (plain, ours.pipeline):
        image = pipeline(
            sample.prompt,
            generator=torch.Generator().manual_seed(sample.seed),
            num_inference_steps=recipe.inference_steps,
            guidance_scale=recipe.guidance_scale,
            height=recipe.resolution,
            width=recipe.resolution,
            output_type="np",
        ).images[0]
        images.append(image)
    assert np.abs(images[0] - images[1]).max() <= 1e-5
    assert np.abs(images[0] - drawn).max() <= 1 / 255


def test_an_adapter_of_another_base_model_is_refused(job: Any, run: Any, sdxl_folder: Path, base: BaseModel) -> None:
    environment = job(tiny.dreambooth(evaluation_prompts=0), base_model=sdxl_folder)
    run(environment)
    with pytest.raises(TrainingError, match="other weights") as caught:
        load_adapter(base, environment.model)
    assert caught.value.kind == "adapter"


def test_a_damaged_adapter_is_refused_before_it_is_loaded(job: Any, run: Any, sdxl_folder: Path) -> None:
    environment = job(tiny.dreambooth(evaluation_prompts=0), base_model=sdxl_folder)
    run(environment)
    path = environment.model / "pytorch_lora_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    fresh = load_base_model(sdxl_folder, "builtin", None, CPU)
    with pytest.raises(TrainingError, match="is damaged: pytorch_lora_weights"):
        load_adapter(fresh, environment.model)


def test_a_weight_blends_between_base_and_adapter(job: Any, run: Any, sdxl_folder: Path) -> None:
    environment = job(RECIPES["full"], base_model=sdxl_folder)
    run(environment)
    prediction = []
    for weight in (0.0, 0.5, 1.0):
        base = load_base_model(sdxl_folder, "builtin", None, CPU)
        before = base.denoiser.conv_in.weight.clone()
        load_adapter(base, environment.model, weight)
        prediction.append((base.denoiser.conv_in.weight - before).abs().max().item())
    assert prediction[0] == 0
    assert prediction[1] == pytest.approx(prediction[2] / 2, rel=1e-3)
    assert prediction[2] > 1e-4


def test_a_base_model_carries_one_adapter(job: Any, run: Any, sdxl_folder: Path) -> None:
    environment = job(tiny.dreambooth(evaluation_prompts=0), base_model=sdxl_folder)
    run(environment)
    base = load_base_model(sdxl_folder, "builtin", None, CPU)
    load_adapter(base, environment.model)
    with pytest.raises(TrainingError, match="carries an adapter already"):
        load_adapter(base, environment.model)


@pytest.mark.parametrize(("kind", "weight"), [("lora", math.nan), ("lora", math.inf), ("embedding", 0.5)])
def test_a_weight_that_cannot_be_is_refused(job: Any, run: Any, sdxl_folder: Path, kind: str, weight: float) -> None:
    environment = job(RECIPES[kind], base_model=sdxl_folder)
    run(environment)
    base = load_base_model(sdxl_folder, "builtin", None, CPU)
    with pytest.raises(TrainingError, match="weight") as caught:
        load_adapter(base, environment.model, weight)
    assert caught.value.kind == "adapter"


@pytest.mark.parametrize("kind", ["lora", "full", "embedding"])
def test_an_adapter_of_the_first_version_is_loaded(job: Any, run: Any, sdxl_folder: Path, kind: str) -> None:
    environment = job(RECIPES[kind], base_model=sdxl_folder)
    run(environment)
    path = environment.model / MANIFEST_FILE
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in values.items() if name not in ("kind", "parts")}))
    base = load_base_model(sdxl_folder, "builtin", None, CPU)
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    found = load_adapter(base, environment.model)
    assert found.kind == values["kind"]
    if kind == "full":
        assert found.parts == tuple(sorted(values["parts"]))
        assert any(not torch.equal(tensor, before[name]) for name, tensor in base.denoiser.state_dict().items())


def test_a_denoiser_of_another_family_is_refused(sdxl_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(sdxl_folder, folder)
    config = folder / "unet" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "addition_embed_type": None}))
    with pytest.raises(TrainingError, match="calls itself a StableDiffusionXLPipeline, but its unet is another"):
        load_base_model(folder, "tiny", None, CPU)


def test_the_import_rules_know_all_families() -> None:
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[3] / ".importlinter")
    ruled = parser["importlinter:contract:families-independent"]["modules"].split()
    assert ruled == [f"entrypoints.models.{family.module}" for family in FAMILIES.values()]
