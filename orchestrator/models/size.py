"""The sizes of a base model, from which memory and time are estimated: read from a folder, or known for a Hub model.

Only safetensors headers and configs of a folder are read; no weights are loaded.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.contract.control_network import condition_widths
from orchestrator.contract.families import INDEX_FILE, family_in
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.hub_models import known_model
from orchestrator.contract.model_file import read_object
from orchestrator.contract.model_layout import CLIP_FOLDER, clip_names, find_weights, names_of
from orchestrator.contract.safetensors_header import read_header
from orchestrator.specs.base_model import Hub, ModelSource

Shapes = Mapping[str, Sequence[int]]
"""Tensor name to its shape."""
Config = dict[str, Any]
"""A model part's `config.json`."""


_NOT_FOR_EACH_PIXEL = (
    "time_",  # once for each sample
    "add_embedding",
    "attn2.to_k",  # for each token of the prompt
    "attn2.to_v",
)


_FIRST_HALF = (
    "conv_in.",
    "time_embedding.",
    "class_embedding.",
    "add_embedding.",
    "down_blocks.",
    "mid_block.",
)
"""What a ControlNet copies of a U-Net."""


def of_source(source: ModelSource) -> ModelSize | None:
    """Return the sizes of a base model, or None when unknown: other checks say what is wrong with a folder."""
    if isinstance(source, Hub):
        return of_hub(source.id)
    try:
        return of_folder(source.folder)
    except ValueError:
        return None


def of_folder(folder: Path) -> ModelSize:
    """Measure a model in the diffusers layout; raises ValueError when its files cannot be read."""
    try:
        return _measured(folder)
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise ValueError(f"{folder} cannot be measured: {kind}: {error}") from error


def of_scorer(folder: Path | None) -> int:
    """Return the parameters of a checked CLIP in a folder of its own; 0 without one."""
    if folder is None:
        return 0
    weights = find_weights(CLIP_FOLDER, clip_names(folder))
    parameters = 0
    if weights is not None:
        for file in weights.files:
            header = read_header(folder / file)
            for entry in header.values():
                parameters += math.prod(entry.shape)
    return parameters


def of_hub(model_id: str) -> ModelSize | None:
    """Return the sizes of a well-known Hugging Face model, or None."""
    known = known_model(model_id)
    if known is None:
        return None
    return known.size


def _measured(folder: Path) -> ModelSize:
    """Return the sizes of a model; raises whatever its files cause."""
    index = folder / INDEX_FILE
    family = family_in(index, str(folder))
    denoiser_shapes = _shapes(folder, family.denoiser)
    denoiser_config = _config(folder, family.denoiser)
    resnet_channels, transformer_channels = block_channels(denoiser_config)
    levels = len(denoiser_config["block_out_channels"])
    vae_shapes = _shapes(folder, "vae")
    vae_config = _config(folder, "vae")
    vae_channels = vae_config["block_out_channels"]
    halvings = len(vae_channels) - 1  # how often the VAE halves the side of an image
    clip_shapes = _shapes(folder, CLIP_FOLDER)

    text_parameters = 0
    text_lora = dict.fromkeys(family.text_targets, 0)
    text_states = 0
    text_width = 0
    for part in family.text_encoders:
        shapes = _shapes(folder, part)
        config = _config(folder, part)
        tokens = config["max_position_embeddings"]
        layers = config["num_hidden_layers"]
        width = config["hidden_size"]
        text_parameters += parameters_of(shapes)
        for targets, parameters in _lora_sizes(shapes, family.text_targets).items():
            text_lora[targets] += parameters
        text_states += tokens * layers * width
        text_width += width

    return ModelSize(
        denoiser=parameters_of(denoiser_shapes),
        vae=parameters_of(vae_shapes),
        text_encoders=text_parameters,
        clip=parameters_of(clip_shapes),
        control=control_parameters(denoiser_shapes, denoiser_config, halvings),
        denoiser_lora=_lora_sizes(denoiser_shapes, family.denoiser_targets),
        text_lora=text_lora,
        resnet_channels=resnet_channels,
        transformer_channels=transformer_channels,
        attention_channels=attention_channels(denoiser_shapes, levels),
        denoiser_macs=macs_per_pixel(denoiser_shapes, levels),
        denoiser_layers=layers_of(denoiser_shapes),
        text_states=text_states,
        text_width=text_width,
        decoder_channels=vae_channels[min(1, halvings)],
        scale=2**halvings,
    )


def _config(folder: Path, part: str) -> Config:
    """Return the configuration of a model part."""
    return read_object(folder / part / "config.json")


def _shapes(folder: Path, part: str) -> Shapes:
    """Return the shape of each tensor in the weight files that are read of a part."""
    shapes: dict[str, Sequence[int]] = {}
    weights = find_weights(part, names_of(folder))
    if weights is None:
        return shapes
    for file in weights.files:
        header = read_header(folder / part / file)
        for name, entry in header.items():
            shapes[name] = entry.shape
    return shapes


def parameters_of(shapes: Shapes) -> int:
    """Return the number of parameters of all tensors."""
    parameters = 0
    for shape in shapes.values():
        parameters += math.prod(shape)
    return parameters


def _lora_sizes(shapes: Shapes, layers: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the parameters of a LoRA of rank 1, by the recipe's `targets`."""
    return {targets: rank_one(shapes, names) for targets, names in layers.items()}


def layers_of(shapes: Shapes) -> int:
    """Return the number of convolutions and linear layers."""
    return sum(1 for shape in shapes.values() if len(shape) > 1)


def rank_one(shapes: Shapes, layers: Sequence[str]) -> int:
    """Return the number of parameters of a LoRA of rank 1: one column and one row for each layer.

    A convolution's row has its inputs at each place of its kernel.
    """
    endings = tuple(f".{name}.weight" for name in layers)
    parameters = 0
    for name, shape in shapes.items():
        if name.endswith(endings):
            outputs, *inputs = shape
            parameters += outputs + math.prod(inputs)
    return parameters


def control_parameters(shapes: Shapes, config: Config, halvings: int) -> int:
    """Return the parameters of a ControlNet (arXiv 2302.05543, sec. 3.1): a copy of the first half of a U-Net and more.

    That is one convolution of 1x1 for each skip connection and for the middle block, and the small network that brings
    the condition from pixels to latents, which are smaller by `halvings`.
    """
    copied = 0
    for name, shape in shapes.items():
        if name.startswith(_FIRST_HALF):
            copied += math.prod(shape)
    channels: Sequence[int] = config["block_out_channels"]
    layers: int = config["layers_per_block"]
    first = channels[0]
    widths = [first]  # of the skip connections: one comes before the first block
    for width in channels:
        widths += [width] * layers
        widths.append(width)  # of what halves the sides; behind the last level, of the middle block
    zero = 0
    for width in widths:
        zero += width * width + width
    condition = _condition_parameters(condition_widths(halvings), first)
    return copied + zero + condition


def _condition_parameters(widths: Sequence[int], outputs: int) -> int:
    """Return the parameters of the network that brings a condition to latents: convolutions of 3x3."""
    parameters = _convolution(3, widths[0])  # from red, green and blue
    for narrow, wide in pairwise(widths):
        parameters += _convolution(narrow, narrow)
        parameters += _convolution(narrow, wide)
    parameters += _convolution(widths[-1], outputs)
    return parameters


def _convolution(inputs: int, outputs: int) -> int:
    """Return the parameters of a convolution of 3x3."""
    return 9 * inputs * outputs + outputs


def macs_per_pixel(shapes: Shapes, levels: int) -> float:
    """Return the multiply-adds of a U-Net for each latent pixel, in convolutions and linear layers.

    A weight is used once for each pixel of its level, and each level has a quarter of the pixels of the one above.
    """
    macs = 0.0
    for name, shape in shapes.items():
        is_matrix = len(shape) > 1
        is_for_each_pixel = not any(part in name for part in _NOT_FOR_EACH_PIXEL)
        if is_matrix and is_for_each_pixel:
            level = _level(name, levels)
            macs += math.prod(shape) / 4**level
    return macs


def attention_channels(shapes: Shapes, levels: int) -> float:
    """Return the channels of all self-attention of a U-Net, each divided by the square of its share of the pixels."""
    channels = 0.0
    for name, shape in shapes.items():
        if name.endswith("attn1.to_q.weight"):
            level = _level(name, levels)
            channels += shape[0] / 16**level
    return channels


def _level(name: str, levels: int) -> int:
    """Return the level of a U-Net's tensor by its name, such as "up_blocks.2.upsamplers.0.conv.weight"."""
    last = levels - 1
    kind, _, rest = name.partition(".")
    number, _, layer = rest.partition(".")
    if kind == "mid_block":
        return last
    if kind == "down_blocks":
        halved = layer.startswith("downsamplers")  # writes the pixels of the next level
        return int(number) + halved
    if kind == "up_blocks":
        doubled = layer.startswith("upsamplers")
        return last - int(number) - doubled
    return 0


class _Block(NamedTuple):
    """A block of a U-Net."""

    level: int
    """0 at the full size of the latents; each level has half the side of the one before."""
    layers: int
    """Residual blocks, each followed by one of transformers in some kinds."""
    kind: str
    """Such as "CrossAttnDownBlock2D"."""


def block_channels(config: Config) -> tuple[float, float]:
    """Return the sums of the channels of a U-Net's residual blocks and of its transformer blocks.

    A level with half the side has a quarter of the pixels, so its channels count a quarter.
    """
    channels = config["block_out_channels"]
    layers = config["layers_per_block"]
    depths = config.get("transformer_layers_per_block", 1)  # transformers in a block: one number, or one per level
    if isinstance(depths, int):
        depths = [depths] * len(channels)
    last = len(channels) - 1
    down_blocks = config["down_block_types"]
    up_blocks = config["up_block_types"]
    blocks: list[_Block] = []
    for level, kind in enumerate(down_blocks):
        blocks.append(_Block(level, layers, kind))
    for position, kind in enumerate(up_blocks):
        level = last - position
        blocks.append(_Block(level, layers + 1, kind))
    resnets = 0.0
    transformers = 0.0
    for block in blocks:
        level = block.level
        weighted = block.layers * channels[level] / 4**level
        resnets += weighted
        if block.kind.startswith("CrossAttn"):
            transformers += weighted * depths[level]
    # The middle block: two residual blocks around one of transformers.
    middle = channels[last] / 4**last
    resnets += 2 * middle
    transformers += middle * depths[last]
    return resnets, transformers
