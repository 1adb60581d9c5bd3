"""Frozen weights in half precision: half their memory on a GPU, and no copy of them in each forward pass.

Trained weights stay in float32: half precision would round small updates to nothing. So do three kinds of frozen ones:
normalisations, which are small and sum up many numbers; tables of embeddings, of which rows may be trained, and whose
type pipelines take for that of their latents; and the autoencoder, which in float16 overflows in some families (SDXL).
"""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import nn

from entrypoints.models.base import BaseModel
from entrypoints.models.parts import load_part
from orchestrator.contract.families import Family
from orchestrator.contract.mixins import Optimised
from orchestrator.contract.recipe import Recipe

PRECISIONS = {
    "no": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""By the recipe's `mixed_precision`."""
_EXACT = (nn.Embedding, nn.GroupNorm, nn.LayerNorm)
"""Modules whose weights stay in float32."""


class Half(NamedTuple):
    """Which parts of a base model hold half-precision weights."""

    dtype: torch.dtype
    parts: Collection[str]
    """By the names of their folders."""


def half_of(recipe: Recipe, family: Family, device: torch.device) -> Half | None:
    """Return what a recipe's base model holds in half precision; None on a CPU, which seldom computes in it."""
    if not isinstance(recipe, Optimised) or recipe.mixed_precision == "no" or device.type == "cpu":
        return None
    parts: list[str] = []
    if not recipe.trains_all_weights:
        parts.append(family.denoiser)
    if not recipe.trains_text_weights:
        parts += family.text_encoders
    return Half(PRECISIONS[recipe.mixed_precision], parts)


def exact_denoiser(base: BaseModel) -> nn.Module:
    """Return the denoiser with the weights of its files in float32: loaded again where the base model's are rounded."""
    denoiser = base.denoiser
    if all(parameter.dtype == torch.float32 for parameter in denoiser.parameters()):
        return denoiser
    exact: nn.Module = load_part(type(denoiser), base.folder, base.family.denoiser)
    return exact


def hold(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Round a frozen module's weights to `dtype`, and have it compute in it, whoever calls it.

    What it is given may have any precision, and what it returns is in float32, as that of other modules.
    """
    from accelerate.utils import convert_outputs_to_fp32

    for layer in module.modules():
        if isinstance(layer, _EXACT):
            continue
        for parameter in layer.parameters(recurse=False):
            parameter.data = parameter.data.to(dtype)
    computing = torch.autocast(device.type, dtype)
    module.forward = convert_outputs_to_fp32(computing(module.forward))
