"""Estimate how long a job runs, before it starts: from operations and the rate of a GPU, or from measured steps.

    forward = 2 x pixels x (multiply-adds for each pixel + 2 x pixels x self-attention + 2 x tokens x cross-attention)
    step    = samples x passes x forward
    image   = denoising steps x 2, for guidance, x forward

where pixels are those of the latents. `forward` is within 5 % of the operations that torch counts in the U-Nets of
Stable Diffusion 1.5 (0.80e12 at 512 pixels), SDXL (6.8e12 at 1024) and the built-in model
(`tests/planning/test_duration.py` counts again). Left out: text encoders, autoencoder and CLIP, together about a tenth;
with random_crop the autoencoder encodes in every step, which is more. Durations on a GPU were not measured: the band is
wide, and the default time limit lies well above it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Gpu
from orchestrator.aws.rates import rate
from orchestrator.contract.drawing import images_at_once
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.plurals import counted
from orchestrator.contract.recipe import BUILTIN, Optimised, Recipe
from orchestrator.contract.tokens import CLIP_LENGTH
from orchestrator.specs.compute import LONGEST_MINUTES, START_SECONDS

# Low and high end of each figure.
_UTILISATION = (0.6, 0.25)  # share of a GPU's peak rate that training and drawing reach
_LAUNCH = (0.01, 0.04)  # seconds to start the kernels of one pass through a U-Net, which small ones take at least
_CONTAINER_START = (120.0, 480.0)  # seconds to pull the image and import the libraries
_DOWNLOAD = (200e6, 50e6)  # bytes per second
_UPLOAD = (100e6, 50e6)
_CPU_RATE = (150e9, 15e9)  # operations per second of two to sixteen cores, for a first run of the built-in model
_ANOTHER_JOB = (0.5, 2.0)  # error of a rate that was measured with other settings
_ANOTHER_MODEL = (0.15, 3.0)  # and with another model: large ones keep a machine busier than small ones
_SAME_STEPS = (0.8, 1.4)  # error of steps that were measured with the same settings

_PROCESS_START = 15.0  # seconds on this machine from the start to the first step, without class images
_UPLOAD_START = 60  # seconds
_UNKNOWN_UPLOAD = 300  # seconds, for a result of unknown size
_LIMIT_FACTOR = 3  # of the high end
_LEAST_LIMIT_MINUTES = 30
_UNKNOWN_LIMIT_MINUTES = 240
_LIMIT_STEP_MINUTES = 10
_LONGEST_IN_UNIT = 100  # seconds, minutes or hours; above it the next unit is easier to read
_UNITS = ((1, "second"), (60, "minute"), (3600, "hour"), (24 * 3600, "day"))  # seconds in each
_YEAR = 365 * 24 * 3600  # seconds
_ALIKE = 0.1  # share of a duration, below which a band is one figure: the estimate is not that precise

# Settings that the time of a step depends on.
_STEP_SETTINGS = {
    "resolution",
    "batch_size",
    "gradient_accumulation",
    "gradient_checkpointing",
    "mixed_precision",
    "prior_preservation",
    "random_crop",
    "train_text_encoder",
    "tuner",
}


class Duration(BaseModel):
    """How long a job is expected to run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    low_seconds: int
    """Low end of the band."""
    high_seconds: int
    """High end of the band."""
    basis: str
    """What the estimate rests on, in words."""

    def describe(self) -> str:
        """Return the band and its basis as text: "3 to 8 minutes (...)"."""
        span = _span(self.low_seconds, self.high_seconds)
        return f"{span} ({self.basis})"


class Work(NamedTuple):
    """The operations of a run on one device."""

    step: float
    """Operations of an optimizer step."""
    passes: int
    """Passes through the denoiser in a step."""
    image: float
    """Operations of one drawn image."""


class MeasuredRun(NamedTuple):
    """A run on this machine, and how fast it was."""

    job: str
    """Name of the job."""
    base_model: str
    """URI of its folder, or its name on the Hub."""
    size: ModelSize | None
    """Sizes of its base model, if they are known."""
    recipe: Recipe
    """Its settings."""
    seconds_per_step: float
    """Mean duration of its optimizer steps."""
    other_seconds: float | None
    """Time of everything else: start, drawing, evaluation; None unless it ran through in one attempt."""


def work_of(recipe: Recipe, size: ModelSize | None) -> Work | None:
    """Return the operations of a recipe, or None when they are unknown."""
    if size is None or not isinstance(recipe, Optimised):
        return None
    footprint = recipe.footprint(size)
    if footprint is None:
        return None
    forward = _forward(size, recipe.resolution)
    passes = footprint.passes
    if recipe.gradient_checkpointing:
        passes += 1
    samples = footprint.samples * recipe.gradient_accumulation
    forwards = _forwards_of_an_image(recipe)
    return Work(
        step=samples * passes * forward,
        passes=passes * recipe.gradient_accumulation,
        image=forwards * forward,
    )


def on_gpu(recipe: Recipe, size: ModelSize | None, gpu: Gpu) -> Duration | None:
    """Return how long a job runs on instances with a GPU, or None when its operations or the GPU's rate are unknown."""
    peak = rate(gpu.name)
    work = work_of(recipe, size)
    if peak is None or work is None:
        return None
    if size is None or not isinstance(recipe, Optimised):
        return None
    images = recipe.images_drawn
    batches = math.ceil(images / images_at_once(recipe.resolution, gpu=True))
    downloaded = model_bytes(size)
    published_bytes = result_bytes(recipe, size)
    ends = []
    for end in range(2):
        training_rate = peak.operations(recipe.mixed_precision) * _UTILISATION[end]
        drawing_rate = peak.operations("no") * _UTILISATION[end]  # images are drawn in float32
        launch = _LAUNCH[end]
        computed = work.step / training_rate
        launched = work.passes * launch
        step_seconds = max(computed, launched)
        computed = images * work.image / drawing_rate
        launched = batches * recipe.inference_steps * launch
        drawing_seconds = max(computed, launched)
        seconds = _CONTAINER_START[end]
        seconds += recipe.steps * step_seconds
        seconds += drawing_seconds
        seconds += downloaded / _DOWNLOAD[end]
        seconds += published_bytes / _UPLOAD[end]
        ends.append(math.ceil(seconds))
    low, high = ends
    quickest, slowest = _UTILISATION
    basis = f"counted operations at {slowest:.0%} to {quickest:.0%} of the {gpu.name}'s rate; not measured"
    return Duration(low_seconds=low, high_seconds=high, basis=basis)


def here(
    recipe: Recipe,
    base_model: str,
    size: ModelSize | None,
    runs: Sequence[MeasuredRun],
) -> Duration | None:
    """Return how long a job runs on this machine, or None when nothing was measured that tells.

    `runs` are those of this machine, the newest first. One with the same steps tells most, then the same model.
    """
    work = work_of(recipe, size)
    settings = _step_settings(recipe)
    same_model: list[MeasuredRun] = []
    same_steps: list[MeasuredRun] = []
    others: list[MeasuredRun] = []
    for run in runs:
        if run.base_model != base_model:
            others.append(run)
            continue
        same_model.append(run)
        if _step_settings(run.recipe) == settings:
            same_steps.append(run)
    if same_steps:
        same_steps.sort(key=_is_partly_measured)
        return _from_same_steps(recipe, work, same_steps[0])
    if work is None:
        return None
    for run in (*same_model, *others):
        measured = work_of(run.recipe, run.size)
        if measured is None:
            continue
        operations = measured.step / run.seconds_per_step  # per second
        seconds = _seconds(recipe, work, operations)
        reached = f"by the rate that {run.job} reached here"
        if run.base_model != base_model:
            return _band(seconds, seconds, _ANOTHER_MODEL, f"{reached} with another model")
        return _band(seconds, seconds, _ANOTHER_JOB, f"{reached} with other settings")
    if recipe.base_model != BUILTIN:
        return None
    quick, slow = _CPU_RATE
    low = _seconds(recipe, work, quick)
    high = _seconds(recipe, work, slow)
    return _band(low, high, (1.0, 1.0), "a rough figure: nothing was measured on this machine yet")


def one_after_another(durations: Sequence[Duration | None]) -> Duration | None:
    """Return how long several jobs run that do not overlap, or None when one of them is unknown."""
    low = high = 0
    basis = ""
    for duration in durations:
        if duration is None:
            return None
        low += duration.low_seconds
        high += duration.high_seconds
        basis = duration.basis
    return Duration(low_seconds=low, high_seconds=high, basis=basis)


def upload_seconds(recipe: Recipe, size: ModelSize | None) -> int:
    """Return the time to allow for what is uploaded after a job was stopped: the result and the last checkpoint.

    It is billed, and the service promises no upper end to it.
    """
    if size is None or recipe.footprint(size) is None:
        return _UNKNOWN_UPLOAD
    left = result_bytes(recipe, size) + checkpoint_bytes(recipe, size)
    _, slowest = _UPLOAD
    return _UPLOAD_START + math.ceil(left / slowest)


def checkpoint_bytes(recipe: Recipe, size: ModelSize | None) -> int:
    """Return the bytes of one checkpoint: trained weights and AdamW's two moments in float32; 0 when unknown."""
    return 3 * result_bytes(recipe, size)


def model_bytes(size: ModelSize) -> int:
    """Return the bytes of a base model's files in float32."""
    return 4 * (size.denoiser + size.vae + size.text_encoders + size.clip)


def default_limit(recipe: Recipe, expected: Duration | None) -> int:
    """Return the time limit in seconds of a job that sets none; it depends on the job and the instance type alone.

    Three times the high end of what is expected, and time for two checkpoints. At its limit a job is asked to stop, and
    saves another.
    """
    if expected is None:
        return _UNKNOWN_LIMIT_MINUTES * 60
    likely = _LIMIT_FACTOR * expected.high_seconds / 60
    # Rare checkpoints raise the limit of a short job, but do not let it cost without end.
    two_checkpoints = START_SECONDS / 60 + 2 * recipe.checkpoint_minutes
    two_checkpoints = min(two_checkpoints, _UNKNOWN_LIMIT_MINUTES)
    minutes = max(likely, two_checkpoints, _LEAST_LIMIT_MINUTES)
    rounded = math.ceil(minutes / _LIMIT_STEP_MINUTES) * _LIMIT_STEP_MINUTES
    return min(rounded, LONGEST_MINUTES) * 60


def _forward(size: ModelSize, resolution: int) -> float:
    """Return the operations of one sample's pass through the U-Net."""
    pixels = (resolution / size.scale) ** 2
    self_attention = 2 * pixels * size.attention_channels
    cross_attention = 2 * CLIP_LENGTH * size.transformer_channels
    macs_per_pixel = size.denoiser_macs + self_attention + cross_attention
    return 2 * pixels * macs_per_pixel


def _forwards_of_an_image(recipe: Recipe) -> int:
    """Return how many passes draw an image: with guidance, each denoising step takes one without the prompt too."""
    if recipe.guidance_scale > 1:
        return 2 * recipe.inference_steps
    return recipe.inference_steps


def result_bytes(recipe: Recipe, size: ModelSize | None) -> int:
    """Return the bytes of the trained weights in float32; 0 when unknown."""
    if size is None:
        return 0
    footprint = recipe.footprint(size)
    if footprint is None:
        return 0
    return 4 * footprint.trained


def _step_settings(recipe: Recipe) -> tuple[str, dict[str, object]]:
    """Return what the time of a step depends on."""
    name = recipe.recipe_name()
    settings = recipe.model_dump(include=_STEP_SETTINGS)
    return name, settings


def _is_partly_measured(run: MeasuredRun) -> bool:
    return run.other_seconds is None


def _from_same_steps(recipe: Recipe, work: Work | None, run: MeasuredRun) -> Duration:
    """Return the duration by a run whose steps were the same, which may differ in their number and in its images."""
    seconds = _PROCESS_START + recipe.steps * run.seconds_per_step
    forwards = recipe.images_drawn * _forwards_of_an_image(recipe)
    measured_forwards = run.recipe.images_drawn * _forwards_of_an_image(run.recipe)
    basis = f"measured here: {run.seconds_per_step:.2g} s a step in {run.job}"
    if run.other_seconds is not None and measured_forwards:
        drawing = max(0.0, run.other_seconds - _PROCESS_START)
        seconds += drawing * forwards / measured_forwards
    elif work is not None:
        operations = work.step / run.seconds_per_step  # per second
        seconds += recipe.images_drawn * work.image / operations
    elif forwards:
        basis = f"{basis}, without class images and evaluation"
    return _band(seconds, seconds, _SAME_STEPS, basis)


def _seconds(recipe: Recipe, work: Work, operations: float) -> float:
    """Return the seconds of a run on this machine, which does so many operations per second."""
    steps = recipe.steps * work.step
    images = recipe.images_drawn * work.image
    return _PROCESS_START + (steps + images) / operations


def _band(low: float, high: float, factors: tuple[float, float], basis: str) -> Duration:
    """Return a duration between two figures in seconds, each times its error."""
    quicker, slower = factors
    return Duration(
        low_seconds=math.ceil(low * quicker),
        high_seconds=math.ceil(high * slower),
        basis=basis,
    )


def _span(low: int, high: int) -> str:
    """Return two durations as text, in the unit that suits the longer one: "3 to 8 minutes", "about 1 minute"."""
    if low > _YEAR:
        return "more than a year"
    seconds_in_unit, unit = _UNITS[-1]
    for seconds, name in _UNITS[:-1]:
        if high < _LONGEST_IN_UNIT * seconds:
            seconds_in_unit, unit = seconds, name
            break
    shortest = max(1, math.floor(low / seconds_in_unit))
    longest = math.ceil(high / seconds_in_unit)
    if longest - shortest <= longest * _ALIKE:
        return f"about {counted(longest, unit)}"
    return f"{shortest} to {counted(longest, unit)}"
