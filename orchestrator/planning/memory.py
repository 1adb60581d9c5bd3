"""How much GPU memory a job takes, estimated before a GPU is paid for.

    held     = 4 bytes x all parameters + 12 bytes x trained ones (gradient, AdamW's two moments)
               + 4 bytes x those of an adapter, which come on top of the model's
    training = activations kept for the backward pass: 4 bytes each, or 2 in mixed precision, which also keeps a copy
               of the U-Net's weights in 2 bytes; with gradient checkpointing a share of the 4 bytes and no copy
    drawing  = the decoder's widest tensors for the pictures that are drawn at once
    estimate = held + the larger of training and drawing + 1 GiB (CUDA context, workspaces)

Activations per latent pixel and sample are `11.5 x resnet_channels + 28.5 x transformer_channels` numbers. The two
factors, and the shares below, come from counting the tensors that autograd keeps in the U-Nets of Stable Diffusion 1.5,
2.1 and of the built-in model (`tests/planning/test_memory.py` counts again). They were not measured on a GPU, whose
allocator and kernels add to them: hence the band, which is wide and goes up more than down.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Gpu
from orchestrator.contract.drawing import images_at_once
from orchestrator.contract.footprint import Footprint, ModelSize
from orchestrator.contract.recipe import Optimised, Recipe

BAND = (0.8, 1.3)
"""The truth is expected between these multiples of an estimate."""
GIB = 2**30

_RESNET, _TRANSFORMER, _TEXT = 11.5, 28.5, 34.0  # numbers kept per channel of a block
_KEPT_CHECKPOINTED = 0.27  # block borders, mostly in float32, and the insides of one block at a time
_DECODER_TENSORS = 3  # of the widest, alive together
_OVERHEAD = 1.0 * GIB


class Fit(StrEnum):
    """Whether a job's memory is enough."""

    FITS = "fits"
    DOES_NOT_FIT = "does not fit"
    CANNOT_TELL = "cannot tell"


class MemoryEstimate(BaseModel):
    """GPU memory of a job, GiB."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    gib: float
    """The estimate."""
    low_gib: float
    """Lower end of its error band."""
    high_gib: float
    """Upper end of its error band."""
    parts: dict[str, float]
    """What it is made of."""

    def fit(self, gpu: Gpu) -> Fit:
        """Return whether the whole band fits a GPU, none of it does, or part of it."""
        if self.high_gib <= gpu.usable_gib:
            return Fit.FITS
        return Fit.DOES_NOT_FIT if self.low_gib > gpu.usable_gib else Fit.CANNOT_TELL

    def describe(self) -> str:
        """Return the estimate with its band as text."""
        return f"{self.gib:.1f} GiB of GPU memory ({self.low_gib:.1f} to {self.high_gib:.1f})"


def estimate(recipe: Recipe, size: ModelSize | None) -> MemoryEstimate | None:
    """Return what a recipe takes on one GPU, or None for a model or a recipe whose size is not known."""
    footprint = None if size is None else recipe.footprint(size)
    if size is None or footprint is None:
        return None
    parameters = size.denoiser + size.vae + size.text_encoders + size.clip + footprint.added
    parts = {
        "weights": 4.0 * parameters,
        "gradients and optimizer": 12.0 * footprint.trained,
        "activations": _activations(recipe, size, footprint),
        "drawing": _drawing(recipe, size),
        "overhead": _OVERHEAD,
    }
    total = sum(parts.values()) - min(parts["activations"], parts["drawing"])
    low, high = (total * factor / GIB for factor in BAND)
    rounded = {name: round(part / GIB, 2) for name, part in parts.items()}
    return MemoryEstimate(
        gib=round(total / GIB, 2),
        low_gib=round(low, 2),
        high_gib=round(high, 2),
        parts=rounded,
    )


def _activations(recipe: Recipe, size: ModelSize, footprint: Footprint) -> float:
    """Return the bytes that are kept for the backward pass; a recipe without an optimizer keeps none."""
    if not isinstance(recipe, Optimised):
        return 0.0
    latent_pixels = footprint.samples * (recipe.resolution / size.scale) ** 2
    per_pixel = _RESNET * size.resnet_channels + _TRANSFORMER * size.transformer_channels
    denoiser = latent_pixels * footprint.kept * per_pixel
    text = footprint.samples * _TEXT * size.text_states if footprint.text else 0.0
    if recipe.gradient_checkpointing:
        return 4 * (denoiser + text) * _KEPT_CHECKPOINTED
    if recipe.mixed_precision == "no":
        return 4 * (denoiser + text)
    return 2 * (denoiser + text + size.denoiser)


def _drawing(recipe: Recipe, size: ModelSize) -> float:
    """Return the bytes of the decoder's widest tensors for the pictures that are drawn at once."""
    if not recipe.draws_images:
        return 0.0
    pixels = images_at_once(recipe.resolution, gpu=True) * recipe.resolution**2
    return float(_DECODER_TENSORS * size.decoder_channels * pixels * 4)
