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
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.recipes.dreambooth import DreamBooth
from orchestrator.contract.recipes.textual_inversion import TextualInversion
from orchestrator.models.size import Architecture

BAND = (0.8, 1.3)
"""The truth is expected between these multiples of an estimate."""
GIB = 2**30

_RESNET, _TRANSFORMER, _TEXT = 11.5, 28.5, 34.0  # numbers kept per channel of a block
_KEPT = {"full": 1.0, "lora": 0.86, "embedding": 0.79}  # frozen layers keep less
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


class _Work(BaseModel):
    """What a recipe trains, in numbers."""

    kept: float
    added: int = 0
    trained: int
    samples: int
    text: bool


def estimate(recipe: Recipe, model: Architecture | None) -> MemoryEstimate | None:
    """Return what a recipe takes on one GPU, or None for a model or a recipe whose size is not known."""
    work = _work(recipe, model) if model is not None else None
    if model is None or work is None:
        return None
    weights = 4 * (model.unet + model.vae + model.text_encoder + model.clip + work.added)
    parts = {
        "weights": weights,
        "gradients and optimizer": 12 * work.trained,
        "activations": _activations(recipe, model, work),
        "drawing": _drawing(recipe, model),
        "overhead": _OVERHEAD,
    }
    total = sum(parts.values()) - min(parts["activations"], parts["drawing"])
    low, high = (total * factor / GIB for factor in BAND)
    rounded = {name: round(size / GIB, 2) for name, size in parts.items()}
    return MemoryEstimate(gib=round(total / GIB, 2), low_gib=round(low, 2), high_gib=round(high, 2), parts=rounded)


def _work(recipe: Recipe, model: Architecture) -> _Work | None:
    match recipe:
        case DreamBooth(tuner="full"):
            trained = model.unet + (model.text_encoder if recipe.train_text_encoder else 0)
            return _Work(kept=_KEPT["full"], trained=trained, samples=_samples(recipe), text=recipe.train_text_encoder)
        case DreamBooth():
            columns = model.unet_lora + (model.text_lora if recipe.train_text_encoder else 0)
            added = recipe.rank * columns
            return _Work(
                kept=_KEPT["lora"],
                added=added,
                trained=added,
                samples=_samples(recipe),
                text=recipe.train_text_encoder,
            )
        case TextualInversion():
            rows = recipe.vectors * model.text_width
            return _Work(kept=_KEPT["embedding"], added=rows, trained=rows, samples=recipe.batch_size, text=True)
    return None


def _samples(recipe: DreamBooth) -> int:
    """Return the samples of a forward pass: class pictures share it with the subject's."""
    return recipe.batch_size * (2 if recipe.prior_preservation else 1)


def _activations(recipe: Recipe, model: Architecture, work: _Work) -> float:
    pixels = work.samples * (recipe.resolution / model.scale) ** 2
    unet = pixels * work.kept * (_RESNET * model.resnet_channels + _TRANSFORMER * model.transformer_channels)
    text = work.samples * _TEXT * model.text_states if work.text else 0
    if recipe.gradient_checkpointing:
        return 4 * (unet + text) * _KEPT_CHECKPOINTED
    return 4 * (unet + text) if recipe.mixed_precision == "no" else 2 * (unet + text + model.unet)


def _drawing(recipe: Recipe, model: Architecture) -> float:
    if not (recipe.evaluation_prompts or recipe.validation_prompts or getattr(recipe, "prior_preservation", False)):
        return 0.0
    pixels = images_at_once(recipe.resolution, gpu=True) * recipe.resolution**2
    return float(_DECODER_TENSORS * model.decoder_channels * pixels * 4)
