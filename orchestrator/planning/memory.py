"""Estimate the memory of a job, of a GPU and of its instance, before a GPU is paid for.

    weights     = 4 bytes x all parameters, those of an adapter too, which come on top of the model's; in mixed
                  precision 2 bytes x those of frozen parts, but for the autoencoder and tables of embeddings
    optimizer   = 4 bytes x trained parameters for the gradient, and what the optimizer keeps: 8 bytes of AdamW
    activations = those kept for the backward pass: 4 bytes each, or 2.8 in mixed precision, which also keeps a copy of
                  the U-Net's weights in 2 bytes where they are trained; with gradient checkpointing fewer of them
                  and no copy
    drawing     = the decoder's widest tensors for a batch of sampled images
    second copy = the model's weights once more, where training replaces its weights: it draws the images before
    scorer      = 4 bytes x the parameters of a CLIP that the base model does not bring
    rewards     = the same, all the time, where rewards are computed by it

    training    = optimizer + activations, or optimizer + drawing where validation prompts are drawn meanwhile
    evaluation  = second copy + drawing; then, when the copy is gone, scorer
    estimate    = weights + rewards + the largest of training, evaluation and drawing + 1 GiB (CUDA context, workspaces)
    main        = 4 bytes x the model's parameters, those of a scorer too, + 4 GiB (Python, libraries, CUDA's share),
                  for the process of each GPU

Activations per latent pixel and sample are `11.5 x resnet_channels + 28.5 x transformer_channels` numbers, and with
gradient checkpointing `7.8 x resnet_channels`: what goes into the blocks, and one block. The factors, and
the shares in `contract/footprint.py`, come from counting the tensors that autograd keeps in the U-Nets of Stable
Diffusion 1.5, 2.1, SDXL and of the built-in model (`tests/planning/test_memory.py` counts again). That of text encoders
with gradient checkpointing was not counted.

Measured on an H200 with models of random weights in the shapes of Stable Diffusion 1.5 (512 pixels) and SDXL (1024):
what torch allocated at most, with 0.7 GiB for CUDA's context, was 0.64 to 1.00 of the estimate in 14 trainings (lora,
textual inversion, ControlNet and reinforcement learning; float32 and bf16; 1 to 4 samples). Where there is room torch
takes up to 1.6 times that, which it gives back where there is none. The full tuner was not measured.

A server trains nothing:

    serving     = weights + slots + drawing + 1 GiB, with slots = 4 bytes x slots x SLOT_RANK x a LoRA of rank 1,
                  4 GiB at most

Main memory holds the model once, in float32, before it moves to its GPU; a second copy comes when the first has moved.
Checkpoints and adapters are written tensor by tensor, so that what is trained takes no main memory
(`entrypoints/adapters/weights.py`).
"""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Gpu, Instance
from orchestrator.contract.drawing import images_at_once
from orchestrator.contract.families import ATTENTION
from orchestrator.contract.footprint import Footprint, ModelSize
from orchestrator.contract.mixins import Optimised, Rewarded
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.serving import ServerOrder

BAND = (0.6, 1.3)
"""Lower and upper end of the error band, as multiples of the estimate."""
GIB = 2**30

# Numbers kept for each channel of a block:
_RESNET = 11.5
_TRANSFORMER = 28.5
_TEXT = 34.0
_RESNET_CHECKPOINTED = 7.8
_TEXT_CHECKPOINTED = 9.0
_HALF_BYTES = 2.8  # of a number in mixed precision: normalisations, and adapters, keep copies in float32
SLOT_RANK = 64
"""Rank that is counted for each slot of a server."""
_DECODER_TENSORS = 5  # widest tensors that are alive together, with what convolutions work in; 4.1 to 5.1 measured
_VOCABULARY = 49_408  # of CLIP: rows of the tables of embeddings
_OVERHEAD = 1.0 * GIB
_MAIN_OVERHEAD = 4.0 * GIB
_MAIN_USABLE = 0.9  # share of an instance's main memory; the rest is the system's and SageMaker's agent's


class Fit(StrEnum):
    """Whether a job fits the memory of a GPU."""

    FITS = "fits"
    DOES_NOT_FIT = "does not fit"
    CANNOT_TELL = "cannot tell"


class MemoryEstimate(BaseModel):
    """Memory of a job, GiB: on one GPU, and in the main memory of its instance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gib: float
    """The estimate of GPU memory."""
    low_gib: float
    """Lower end of its error band."""
    high_gib: float
    """Upper end of its error band."""
    parts: dict[str, float]
    """The terms of the estimate by name."""
    main_gib: float
    """Main memory of one process; each GPU has one."""

    def fit(self, gpu: Gpu) -> Fit:
        """Return whether all, none or a part of the error band fits a GPU."""
        if self.high_gib <= gpu.usable_gib:
            return Fit.FITS
        if self.low_gib > gpu.usable_gib:
            return Fit.DOES_NOT_FIT
        return Fit.CANNOT_TELL

    def fits_main(self, instance: Instance) -> bool:
        """Return whether the main memory of an instance holds the processes of all its GPUs."""
        return self.main_gib * instance.gpus <= _MAIN_USABLE * instance.memory_gib

    def describe(self) -> str:
        """Return the estimate with its error band as text."""
        return f"{self.gib:.1f} GiB of GPU memory ({self.low_gib:.1f} to {self.high_gib:.1f})"


def estimate(recipe: Recipe, size: ModelSize | None, scorer: int = 0) -> MemoryEstimate | None:
    """Return the memory of a recipe on one GPU, or None when the size of its model or its own is unknown.

    `scorer` is the number of parameters of the CLIP that measures its figures, if the base model does not bring it.
    """
    if size is None:
        return None
    footprint = recipe.footprint(size)
    if footprint is None:
        return None
    model = size.denoiser + size.vae + size.text_encoders + size.clip
    held = 4.0 * model - 2.0 * _halved(recipe, size)
    parts = {
        "weights": held + 4.0 * footprint.added,
        "gradients and optimizer": (4.0 + recipe.state_bytes) * footprint.trained,
        "activations": _activations(recipe, size, footprint),
        "drawing": _drawing(recipe, size),
        "second copy": _second_copy(recipe, held),
        "rewards": 4.0 * scorer if _scores_rewards(recipe) else 0.0,
        "measuring": 4.0 * scorer if recipe.evaluation_prompts else 0.0,
        "overhead": _OVERHEAD,
    }
    total = parts["weights"] + parts["rewards"] + _most_at_once(recipe, parts) + _OVERHEAD
    return _estimated(parts, total, 4.0 * (model + scorer))


def _scores_rewards(recipe: Recipe) -> bool:
    """Whether a CLIP scores the images of each round."""
    if not isinstance(recipe, Rewarded):
        return False
    return any(use.reads_clip for use in recipe.all_rewards)


def serving_estimate(size: ModelSize | None, slots: int, resolution: int) -> MemoryEstimate | None:
    """Return the memory of a server on one GPU, or None when the size of its model is unknown.

    Its weights are float32, each slot is counted as a LoRA of attention with rank SLOT_RANK, and images are decoded as
    training draws them.
    """
    if size is None:
        return None
    model = size.denoiser + size.vae + size.text_encoders
    rank_one = size.denoiser_lora[ATTENTION] + size.text_lora[ATTENTION]
    most_slots = float(ServerOrder.model_fields["slot_bytes"].default)
    pixels = images_at_once(resolution, gpu=True) * resolution**2
    parts = {
        "weights": 4.0 * model,
        "slots": min(4.0 * slots * SLOT_RANK * rank_one, most_slots),
        "drawing": 4.0 * _DECODER_TENSORS * size.decoder_channels * pixels,
        "overhead": _OVERHEAD,
    }
    return _estimated(parts, sum(parts.values()), 4.0 * model)


def _estimated(parts: Mapping[str, float], total: float, in_main: float) -> MemoryEstimate:
    """Return an estimate of these terms, in bytes; `in_main` are those of the models in main memory."""
    low, high = BAND
    rounded = {name: _gib(part) for name, part in parts.items()}
    return MemoryEstimate(
        gib=_gib(total),
        low_gib=_gib(total * low),
        high_gib=_gib(total * high),
        parts=rounded,
        main_gib=_gib(in_main + _MAIN_OVERHEAD),
    )


def _most_at_once(recipe: Recipe, parts: Mapping[str, float]) -> float:
    """Return the bytes of whatever takes most beside the weights: training, drawing and measuring take turns."""
    training = parts["activations"]
    if recipe.draws_meanwhile:
        training = max(training, parts["drawing"])
    training += parts["gradients and optimizer"]
    before = parts["second copy"] + parts["drawing"]
    return max(training, before, parts["measuring"])


def _halved(recipe: Recipe, size: ModelSize) -> int:
    """Return how many of the model's parameters are held in half precision (`entrypoints/models/precision.py`)."""
    if not isinstance(recipe, Optimised) or recipe.mixed_precision == "no":
        return 0
    halved = 0
    if not recipe.trains_all_weights:
        halved += size.denoiser
    if not recipe.trains_text_weights:
        halved += max(0, size.text_encoders - _VOCABULARY * size.text_width)
    return halved


def _second_copy(recipe: Recipe, held: float) -> float:
    """Return the bytes of the copy that draws the images before, where training changes the model's own weights."""
    if not recipe.evaluation_prompts or not recipe.trains_all_weights:
        return 0.0
    return held


def _gib(count: float) -> float:
    """Return a number of bytes in GiB."""
    return round(count / GIB, 2)


def _activations(recipe: Recipe, size: ModelSize, footprint: Footprint) -> float:
    """Return the bytes kept for the backward pass; 0 for a recipe without an optimizer."""
    if not isinstance(recipe, Optimised):
        return 0.0
    is_half = recipe.mixed_precision != "no"
    number_bytes = _HALF_BYTES if is_half else 4.0
    latent_pixels = footprint.samples * (recipe.resolution / size.scale) ** 2
    text_states = footprint.samples * size.text_states if footprint.text else 0
    if recipe.gradient_checkpointing:
        numbers = latent_pixels * _RESNET_CHECKPOINTED * size.resnet_channels
        numbers += text_states * _TEXT_CHECKPOINTED
        return number_bytes * numbers
    per_pixel = _RESNET * size.resnet_channels + _TRANSFORMER * size.transformer_channels
    numbers = latent_pixels * footprint.kept * per_pixel
    numbers += text_states * _TEXT
    copied = 0
    if is_half and recipe.trains_all_weights:  # what is frozen is in half precision already
        copied = size.denoiser
    return number_bytes * numbers + 2 * copied


def _drawing(recipe: Recipe, size: ModelSize) -> float:
    """Return the bytes of the decoder's widest tensors for a batch of sampled images."""
    if not recipe.draws_images:
        return 0.0
    images = min(recipe.images_drawn, images_at_once(recipe.resolution, gpu=True))
    pixels = images * recipe.resolution**2
    numbers = _DECODER_TENSORS * size.decoder_channels * pixels
    return 4.0 * numbers
