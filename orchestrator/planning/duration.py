"""Estimate how long a job runs, before it starts: from operations and the rate of a GPU, or from measured steps.

    forward = 2 x pixels x (multiply-adds for each pixel + 2 x pixels x self-attention + 2 x tokens x cross-attention)
    step    = samples x passes x forward
    image   = (denoising steps x 2, for guidance, + what the rest takes) x forward

where pixels are those of the latents. `forward` is within 5 % of the operations that torch counts in the U-Nets of
Stable Diffusion 1.5 (0.80e12 at 512 pixels), SDXL (6.8e12 at 1024) and the built-in model
(`tests/planning/test_duration.py` counts again). Left out: CLIP, and in training text encoders and autoencoder, about a
tenth; with random_crop the autoencoder encodes in every step, which is more.

A step takes at least the time in which its kernels are started, one after the other by one thread: on a fast GPU that
is nearly all. On an H200 whose CPU was slow, steps of Stable Diffusion 1.5 at 512 pixels took 0.12 to 0.29 seconds,
0.04 to 0.1 a pass, with batches of 1 to 4 alike; of SDXL at 1024 pixels 1.0 to 1.6, 0.33 to 0.5 a pass (a low-rank
adapter on bf16 with gradient checkpointing). Nothing was measured on other GPUs: the band is wide, and the default time
limit lies well above it.

A measured duration is compared with what it measured. A pass is not in proportion to its samples: those of a small one
cost little more than its start. With another number of samples a pass takes something between as long and in
proportion, and these are the two ends of the band.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Gpu
from orchestrator.aws.rates import rate
from orchestrator.contract.drawing import images_at_once
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.mixins import Optimised
from orchestrator.contract.plurals import counted
from orchestrator.contract.recipe import BUILTIN, Recipe
from orchestrator.contract.tokens import CLIP_LENGTH
from orchestrator.specs.compute import LONGEST_MINUTES, START_SECONDS

# Low and high end of each figure.
_UTILISATION = (0.6, 0.25)  # share of a GPU's peak rate that training and drawing reach
_LAUNCH = (1e-4, 7e-4)  # seconds to start the kernels of one layer in one pass, which a pass takes at least
_CONTAINER_START = (120.0, 480.0)  # seconds to pull the image and import the libraries
_DOWNLOAD = (200e6, 50e6)  # bytes per second
_UPLOAD = (100e6, 50e6)
_CPU_RATE = (150e9, 15e9)  # operations per second of two to sixteen cores, for a first run of the built-in model
_ALIKE = (0.8, 1.4)  # error of a duration that was measured with the same settings
_ANOTHER_JOB = (0.5, 2.0)  # and with other settings
_ANOTHER_SPEED = (0.2, 5.0)  # and in another precision, or on other processors: fp16 is slow on a CPU, fast on a GPU
_ANOTHER_MODEL = (0.15, 5.0)  # and with another model: large ones keep a machine busier than small ones

_IMAGE_PASSES = 3  # passes that text encoders, autoencoder and PNG take for an image, beside its denoising steps
_PROCESS_START = 15.0  # seconds on this machine from the start to the first step, without class images
_UPLOAD_START = 60  # seconds
_UNKNOWN_UPLOAD = 300  # seconds, for a result of unknown size
_LIMIT_FACTOR = 3  # of the high end
_LEAST_LIMIT_MINUTES = 30
_UNKNOWN_LIMIT_MINUTES = 240
_LIMIT_STEP_MINUTES = 10
_LONGEST_IN_UNIT = 100  # seconds, minutes or hours; above it the next unit is easier to read
_UNITS = (  # seconds in each
    (1, "second"),
    (60, "minute"),
    (3600, "hour"),
    (24 * 3600, "day"),
)
_YEAR = 365 * 24 * 3600  # seconds
_ONE_FIGURE = 0.1  # share of a duration, below which a band is one figure: the estimate is not that precise

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

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class DrawnBatch(NamedTuple):
    """Images that were drawn at once."""

    images: int
    """How many."""
    seconds: float
    """How long it took."""


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
    start_seconds: float | None = None
    """Time from its start to its first class image or step; None where its log does not tell."""
    batch: DrawnBatch | None = None
    """Images that it drew at once; None before it drew any."""
    same_processors: bool = True
    """Whether it had the processors that the next job will have."""


class _Planned(NamedTuple):
    """A job whose duration is asked for."""

    recipe: Recipe
    """Its settings."""
    base_model: str
    """As in `MeasuredRun`."""
    size: ModelSize | None
    """Sizes of its base model, if they are known."""
    work: Work | None
    """Its operations, if they are known."""


Ends = tuple[float, float]
"""The low and the high end of a band, or the factors for them."""


def work_of(recipe: Recipe, size: ModelSize | None) -> Work | None:
    """Return the operations of a recipe, or None when they are unknown."""
    if size is None:
        return None
    forward = _forward(size, recipe.resolution)
    image = _passes_of_an_image(recipe) * forward
    if not recipe.trains:
        return Work(step=0.0, passes=0, image=image)
    footprint = recipe.footprint(size)
    if footprint is None or not isinstance(recipe, Optimised):
        return None
    passes = footprint.passes
    if recipe.gradient_checkpointing:
        passes += 1
    samples = footprint.samples * recipe.gradient_accumulation
    return Work(
        step=samples * passes * forward,
        passes=passes * recipe.gradient_accumulation,
        image=image,
    )


def on_gpu(recipe: Recipe, size: ModelSize | None, gpu: Gpu, devices: int = 1) -> Duration | None:
    """Return how long a job runs on instances with a GPU, or None when its operations or the GPU's rate are unknown.

    That is the time to start the container, to download the model, for all steps and images, and to upload the result.
    A step takes as long as its operations or as the start of its kernels, whichever is longer. Images are drawn by so
    many `devices`, each its share.
    """
    peak = rate(gpu.name)
    work = work_of(recipe, size)
    if size is None or peak is None or work is None:
        return None
    images = math.ceil(recipe.images_drawn / devices)
    in_a_batch = images_at_once(recipe.resolution, gpu=True)
    batches = math.ceil(images / in_a_batch)
    training_peak = peak.operations(_precision(recipe))
    drawing_peak = peak.operations("no")  # images are drawn in float32
    downloaded = model_bytes(size)
    published_bytes = result_bytes(recipe, size)
    ends = []
    for end in range(2):
        utilisation = _UTILISATION[end]
        launch = _LAUNCH[end] * size.denoiser_layers
        training_rate = training_peak * utilisation
        drawing_rate = drawing_peak * utilisation
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
    basis = (
        f"counted operations at {slowest:.0%} to {quickest:.0%} of the {gpu.name}'s rate, and the start of kernels; "
        "not measured"
    )
    return Duration(low_seconds=low, high_seconds=high, basis=basis)


def here(
    recipe: Recipe,
    base_model: str,
    size: ModelSize | None,
    runs: Sequence[MeasuredRun],
) -> Duration | None:
    """Return how long a job runs on this machine, or None when nothing was measured that tells.

    `runs` are those of this machine, the newest first. The one that is most alike is compared with.
    """
    work = work_of(recipe, size)
    planned = _Planned(
        recipe=recipe,
        base_model=base_model,
        size=size,
        work=work,
    )
    telling = [run for run in runs if _tells(planned, run)]
    if telling:
        most_alike = min(telling, key=lambda run: _differences(planned, run))
        return _by_run(planned, most_alike)
    if work is None or recipe.base_model != BUILTIN:
        return None
    quick, slow = _CPU_RATE
    low = _seconds(recipe, work, quick)
    high = _seconds(recipe, work, slow)
    return _band((low, high), "a rough figure: nothing was measured on this machine yet")


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
    """Return the bytes of one checkpoint: trained weights in float32, and what the optimizer keeps; 0 when unknown."""
    trained = result_bytes(recipe, size) // 4
    return trained * (4 + recipe.state_bytes)


def model_bytes(size: ModelSize) -> int:
    """Return the bytes of a base model's files in float32."""
    parameters = size.denoiser + size.vae + size.text_encoders + size.clip
    return 4 * parameters


def default_limit(recipe: Recipe, expected: Duration | None) -> int:
    """Return the time limit in seconds of a job that sets none; it depends on the job and the instance type alone.

    Three times the high end of what is expected, and time for two checkpoints. At its limit a job is asked to stop, and
    saves another.
    """
    if expected is None:
        return _UNKNOWN_LIMIT_MINUTES * 60
    high_minutes = expected.high_seconds / 60
    likely = _LIMIT_FACTOR * high_minutes
    # Rare checkpoints raise the limit of a short job, but do not let it cost without end.
    two_checkpoints = START_SECONDS / 60 + 2 * recipe.checkpoint_minutes
    two_checkpoints = min(two_checkpoints, _UNKNOWN_LIMIT_MINUTES)
    minutes = max(likely, two_checkpoints, _LEAST_LIMIT_MINUTES)
    limit_steps = math.ceil(minutes / _LIMIT_STEP_MINUTES)
    rounded = limit_steps * _LIMIT_STEP_MINUTES
    return 60 * min(rounded, LONGEST_MINUTES)


def _forward(size: ModelSize, resolution: int) -> float:
    """Return the operations of one sample's pass through the U-Net."""
    pixels = (resolution / size.scale) ** 2
    self_attention = 2 * pixels * size.attention_channels
    cross_attention = 2 * CLIP_LENGTH * size.transformer_channels
    macs_per_pixel = size.denoiser_macs + self_attention + cross_attention
    return 2 * pixels * macs_per_pixel


def _passes_of_an_image(recipe: Recipe) -> int:
    """Return the passes that an image takes: with guidance, each denoising step takes one without the prompt too."""
    in_a_step = 1
    if recipe.guidance_scale > 1:
        in_a_step = 2
    return in_a_step * recipe.inference_steps + _IMAGE_PASSES


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


def _precision(recipe: Recipe) -> str:
    """Return the setting mixed_precision of a recipe; one that only draws does so in float32."""
    if isinstance(recipe, Optimised):
        return recipe.mixed_precision
    return "no"


def _tells(planned: _Planned, run: MeasuredRun) -> bool:
    """Return whether a run says anything of a job: its steps were the same, or both can be counted."""
    same_model = run.base_model == planned.base_model
    if same_model and _same_steps(planned, run):
        return True
    measured = work_of(run.recipe, run.size)
    return planned.work is not None and measured is not None


def _same_steps(planned: _Planned, run: MeasuredRun) -> bool:
    """Return whether a run and a job have the same settings that the time of a step depends on."""
    settings = _step_settings(run.recipe)
    return settings == _step_settings(planned.recipe)


class _Differences(NamedTuple):
    """In what a run differs from a job: what matters most comes first, so that the least is the most alike."""

    model: bool
    """The base model; models of the same size are as fast."""
    processors: bool
    """The processors of the machine."""
    precision: bool
    """The precision of the steps."""
    recipe: bool
    """The recipe, whatever its settings."""
    steps: bool
    """What else the time of a step depends on."""
    images: bool
    """Whether the run drew none, so that it tells nothing of them."""


def _differences(planned: _Planned, run: MeasuredRun) -> _Differences:
    """Return in what a run differs from a job."""
    same_size = planned.size is not None and run.size == planned.size
    same_model = same_size or run.base_model == planned.base_model
    same_name = run.recipe.recipe_name() == planned.recipe.recipe_name()
    return _Differences(
        model=not same_model,
        processors=not run.same_processors,
        precision=_precision(run.recipe) != _precision(planned.recipe),
        recipe=not same_name,
        steps=not _same_steps(planned, run),
        images=run.batch is None,
    )


def _by_run(planned: _Planned, run: MeasuredRun) -> Duration:
    """Return the duration by that of a run: start, steps and images, each by its own.

    The more the run differs from the job, the wider is the band.
    """
    differences = _differences(planned, run)
    basis = f"by the rate that {run.job} reached here"
    of_images = _ALIKE  # they are drawn in float32, whatever the precision of the steps
    if differences.model:
        of_steps = of_images = _ANOTHER_MODEL
        basis = f"{basis} with another model"
    elif differences.processors:
        of_steps = of_images = _ANOTHER_SPEED
        basis = f"{basis} with other processors"
    elif differences.precision:
        of_steps = _ANOTHER_SPEED
        basis = f"{basis} in another precision"
    elif differences.steps:
        of_steps = _ANOTHER_JOB
        basis = f"{basis} with other settings"
    else:
        of_steps = _ALIKE
        basis = f"measured here: {run.seconds_per_step:.2g} s a step in {run.job}"
    start = _PROCESS_START
    if run.start_seconds is not None and not differences.model:
        start = run.start_seconds
    steps = _times(_steps(planned, run), of_steps)
    images = _images(planned, run)
    if images is None:
        basis = f"{basis}, without class images and evaluation"
        images = 0.0, 0.0
    elif run.batch is None:  # by the rate of the steps, with at least the error of another job
        quicker = min(of_steps[0], _ANOTHER_JOB[0])
        slower = max(of_steps[1], _ANOTHER_JOB[1])
        images = _times(images, (quicker, slower))
    else:
        low, high = images
        if high > 2 * low:
            basis = f"{basis}, which drew {counted(run.batch.images, 'image')} at a time"
        images = _times(images, of_images)
    starts = _times((start, start), _ALIKE)
    low = starts[0] + steps[0] + images[0]
    high = starts[1] + steps[1] + images[1]
    return _band((low, high), basis)


def _steps(planned: _Planned, run: MeasuredRun) -> Ends:
    """Return how long the steps of a job take by those of a run, in seconds.

    Steps of other operations take longer in proportion. With as many passes of the same model they differ in samples
    alone, and then take something between as long and in proportion.
    """
    seconds = planned.recipe.steps * run.seconds_per_step
    work = planned.work
    measured = work_of(run.recipe, run.size)
    if work is None or measured is None:  # the same steps
        return seconds, seconds
    in_proportion = seconds * work.step / measured.step
    if work.passes != measured.passes or planned.size != run.size:
        return in_proportion, in_proportion
    return _between(seconds, in_proportion)


def _images(planned: _Planned, run: MeasuredRun) -> Ends | None:
    """Return how long the images of a job take by those of a run, or by its steps, in seconds; None when neither tells.

    Images are drawn several at once. A last batch of few may take as long as a full one, or less in proportion.
    """
    recipe = planned.recipe
    images = recipe.images_drawn
    if images == 0:
        return 0.0, 0.0
    work = planned.work
    measured = work_of(run.recipe, run.size)
    if run.batch is None:
        if work is None or measured is None:
            return None
        operations = measured.step / run.seconds_per_step  # per second
        seconds = images * work.image / operations
        return seconds, seconds
    drawn = run.batch
    longer = _passes_of_an_image(recipe) / _passes_of_an_image(run.recipe)
    if work is not None and measured is not None:
        longer = work.image / measured.image
    batch_seconds = longer * drawn.seconds
    in_proportion = batch_seconds * images / drawn.images
    most_without_gpu = images_at_once(run.recipe.resolution, gpu=False)
    has_gpu = drawn.images > most_without_gpu
    in_a_batch = images_at_once(recipe.resolution, gpu=has_gpu)
    batches = math.ceil(images / in_a_batch)
    as_long = batch_seconds * batches
    return _between(in_proportion, as_long)


def _between(one: float, other: float) -> Ends:
    """Return two durations as the ends of a band, the shorter one first."""
    low, high = sorted((one, other))
    return low, high


def _seconds(recipe: Recipe, work: Work, operations: float) -> float:
    """Return the seconds of a run on this machine, which does so many operations per second."""
    steps = recipe.steps * work.step
    images = recipe.images_drawn * work.image
    return _PROCESS_START + (steps + images) / operations


def _times(ends: Ends, factors: Ends) -> Ends:
    """Return the ends of a band, each times its error."""
    low, high = ends
    quicker, slower = factors
    return low * quicker, high * slower


def _band(ends: Ends, basis: str) -> Duration:
    """Return a duration between two figures in seconds."""
    low, high = ends
    return Duration(
        low_seconds=math.ceil(low),
        high_seconds=math.ceil(high),
        basis=basis,
    )


def _unit_for(duration: int) -> tuple[int, str]:
    """Return the smallest unit that suits a duration in seconds: its seconds and its name."""
    for seconds, name in _UNITS:
        if duration < _LONGEST_IN_UNIT * seconds:
            return seconds, name
    return _UNITS[-1]


def _span(low: int, high: int) -> str:
    """Return two durations as text, in the unit that suits the longer one: "3 to 8 minutes", "about 1 minute"."""
    if low > _YEAR:
        return "more than a year"
    seconds_in_unit, unit = _unit_for(high)
    shortest = max(1, math.floor(low / seconds_in_unit))
    longest = math.ceil(high / seconds_in_unit)
    if longest - shortest <= longest * _ONE_FIGURE:
        return f"about {counted(longest, unit)}"
    return f"{shortest} to {counted(longest, unit)}"
