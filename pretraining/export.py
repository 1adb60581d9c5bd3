"""Assembles the trained networks into one folder that plain diffusers reads as a `StableDiffusionPipeline`.

Weights are stored in half precision under the default file names; every config states float32, so that loading without
a word about types computes in float32 on a CPU. `clip/` beside the pipeline holds both towers of the CLIP.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTextModel

from pretraining.pictures import SIZE
from pretraining.schedule import sampler_config
from pretraining.tokenizer import write_json

BYTE_LIMIT = 48_000_000
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "clip")


def export(
    folder: Path, clip: CLIPModel, autoencoder: AutoencoderKL, denoiser: UNet2DConditionModel, tokenizer: Path
) -> int:
    """Write the whole base model; return the bytes of its weights. Each file is replaced at once, never half-written.

    Raises ValueError when the weights are larger than the repository's limit of 48 MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        fresh = Path(name)
        save_network(clip, fresh / "clip")
        save_network(text_tower(clip), fresh / "text_encoder")
        name_as_transformers_4(fresh / "text_encoder" / "model.safetensors")
        save_network(autoencoder, fresh / "vae")
        save_network(denoiser, fresh / "unet")
        shutil.copytree(tokenizer, fresh / "tokenizer")
        write_json(fresh / "clip" / "preprocessor_config.json", picture_preparation())
        (fresh / "scheduler").mkdir()
        write_json(fresh / "scheduler" / "scheduler_config.json", sampler_config())
        write_json(fresh / "model_index.json", pipeline_index())
        size = weight_bytes(fresh)
        if size > BYTE_LIMIT:
            message = f"The weights are {size:,} bytes, more than the limit of {BYTE_LIMIT:,}: make a network smaller."
            raise ValueError(message)
        replace_files(fresh, folder)
    return size


def picture_preparation() -> dict[str, object]:
    """Return how the picture tower wants its input: 64x64, values from -1 to 1."""
    edge = {"height": SIZE, "width": SIZE}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": SIZE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": edge,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
    }


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """Return the CLIP's text tower as the model that a diffusion pipeline loads (same weights)."""
    tower = CLIPTextModel(clip.config.text_config)
    tower.load_state_dict(clip.text_model.state_dict())
    return tower.eval()


def name_as_transformers_4(file: Path) -> None:
    """Write a text tower's file again with "text_model." before each name, which transformers 4 needs and 5 reads."""
    weights: dict[str, torch.Tensor] = {}
    for name, weight in load_file(file).items():
        weights[f"text_model.{name}"] = weight
    save_file(weights, file, {"format": "pt"})


def save_network(network: torch.nn.Module, folder: Path) -> None:
    """Save a network's config and its half-precision weights, leaving the network itself as it is."""
    halves = {
        name: value.to(torch.float16) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    copy = untrained_copy(network)
    copy.half().load_state_dict(halves)
    copy.save_pretrained(folder)
    if isinstance(network, transformers.PreTrainedModel):
        state_float32(folder / "config.json")


def untrained_copy(network: torch.nn.Module) -> torch.nn.Module:
    """Return a new network of the same class and config."""
    kind = type(network)
    if isinstance(network, transformers.PreTrainedModel):
        return kind(network.config)
    # diffusers lists the fields that were never given, and would reset them although they were registered since
    return kind.from_config({name: value for name, value in network.config.items() if name != "_use_default_values"})


def state_float32(path: Path) -> None:
    """Let a transformers config ask for float32, whatever type the weights are stored in."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = "float32"
    write_json(path, config)


def pipeline_index() -> dict[str, object]:
    """Return model_index.json: which class reads which folder."""
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def weight_bytes(folder: Path) -> int:
    """Return the bytes of all weight files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def replace_files(source: Path, target: Path) -> None:
    """Move every file into the target, one atomic rename each; a reader sees the old file or the new one."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.chmod(0o644)
            os.replace(path, place)  # noqa: PTH105 - says that it replaces
