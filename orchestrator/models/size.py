"""The figures of a base model that its GPU memory is estimated from: read from a folder, or known for a Hub model.

Of a folder only safetensors headers and configs are read; no weights are loaded.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.contract.families import CLIP_FOLDER, INDEX_FILE, family_in
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.hub_models import known_model

_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format
_LENGTH_BYTES = 8  # of the header's length, little endian, at the start of a safetensors file

Shapes = Mapping[str, Sequence[int]]
"""Tensor name to its shape."""


def of_folder(folder: Path) -> ModelSize:
    """Read a model in the diffusers layout; raises ValueError when it cannot be read like that."""
    try:
        return _measured(folder)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} cannot be measured: {type(error).__name__}: {error}") from error


def of_hub(model_id: str) -> ModelSize | None:
    """Return the figures of a well-known Hugging Face model, or None."""
    known = known_model(model_id)
    return None if known is None else known.size


def _measured(folder: Path) -> ModelSize:
    family = family_in(folder / INDEX_FILE, str(folder))
    denoiser = _config(folder / family.denoiser)
    denoiser_shapes = _shapes(folder / family.denoiser)
    vae_channels = _config(folder / "vae")["block_out_channels"]
    resnets, transformers = block_channels(denoiser)

    text_parameters = text_lora = text_states = text_width = 0
    for part in family.text_encoders:
        config, shapes = _config(folder / part), _shapes(folder / part)
        text_parameters += parameters_of(shapes)
        text_lora += rank_one(shapes, family.text_projections)
        text_states += config["max_position_embeddings"] * config["num_hidden_layers"] * config["hidden_size"]
        text_width += config["hidden_size"]

    return ModelSize(
        denoiser=parameters_of(denoiser_shapes),
        vae=parameters_of(_shapes(folder / "vae")),
        text_encoders=text_parameters,
        clip=parameters_of(_shapes(folder / CLIP_FOLDER)),
        denoiser_lora=rank_one(denoiser_shapes, family.denoiser_projections),
        text_lora=text_lora,
        resnet_channels=resnets,
        transformer_channels=transformers,
        text_states=text_states,
        text_width=text_width,
        decoder_channels=vae_channels[min(1, len(vae_channels) - 1)],
        scale=2 ** (len(vae_channels) - 1),
    )


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor; other precisions of the same weights ("model.fp16...") are left out."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if path.name.count(".") > 1:
            continue
        for name, entry in _header(path).items():
            if name != "__metadata__":
                shapes[name] = entry["shape"]
    return shapes


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > _MAX_HEADER:
            raise ValueError(f"{path.name} is no safetensors file")
        header: dict[str, Any] = json.loads(file.read(length))
    return header


def parameters_of(shapes: Shapes) -> int:
    """Return the parameters of all tensors together."""
    return sum(math.prod(shape) for shape in shapes.values())


def rank_one(shapes: Shapes, projections: Sequence[str]) -> int:
    """Return the parameters of low-rank factors of rank 1: one column and one row for each projection."""
    endings = tuple(f"{projection}.weight" for projection in projections)
    parameters = 0
    for name, shape in shapes.items():
        if name.endswith(endings):
            parameters += sum(shape)
    return parameters


def block_channels(config: Mapping[str, Any]) -> tuple[float, float]:
    """Walk down and up a U-Net and return the channels of its residual and of its transformer blocks.

    A level of half the side has a quarter of the pixels, so its channels count a quarter.
    """
    channels, layers = config["block_out_channels"], config["layers_per_block"]
    depths = config.get("transformer_layers_per_block", 1)  # transformers within a block: one number, or one a level
    if isinstance(depths, int):
        depths = [depths] * len(channels)
    last = len(channels) - 1
    levels = [(level, layers, kind) for level, kind in enumerate(config["down_block_types"])]
    levels += [(last - level, layers + 1, kind) for level, kind in enumerate(config["up_block_types"])]
    resnets = transformers = 0.0
    for level, count, kind in levels:
        share = count * channels[level] / 4**level
        resnets += share
        if kind.startswith("CrossAttn"):
            transformers += share * depths[level]
    middle = channels[last] / 4**last
    return resnets + 2 * middle, transformers + middle * depths[last]
