"""One image on its way: its own latents, generator and scheduler, so that it can share each step with any others."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from entrypoints.models.base import BaseModel, Conditions
from entrypoints.models.control import Control
from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from entrypoints.serving.slots import SlotUse
from orchestrator.contract.buckets import Size


@dataclass(frozen=True)
class Begin:
    """A picture that an image begins with (image to image, arXiv 2108.01073), and where it is drawn anew."""

    picture: Image.Image
    """Of the size of the image."""
    strength: float
    """Share of the steps that are taken: 1 leaves nothing of the picture but where the mask keeps it."""
    mask: Tensor | None = None
    """(1, 1, height, width) of the latents, 1 where it is drawn anew and 0 where the picture stays."""


@dataclass(frozen=True)
class SampleRequest:
    """What one image is drawn from; its prompt is encoded already."""

    conditions: Conditions
    """Of the prompt, first dimension 1; with guidance those of the negative prompt before it, first dimension 2."""
    seed: int
    steps: int
    guidance: float
    """Scale of classifier-free guidance (arXiv 2207.12598); none at 1."""
    size: Size
    """Of the image, pixels."""
    slots: Sequence[SlotUse] = ()
    controls: Sequence[Control] = ()
    begin: Begin | None = None


@dataclass
class Sample:
    """An image that is being drawn."""

    request: SampleRequest
    scheduler: Any  # of diffusers; its own, because a scheduler remembers the steps that it took
    times: Tensor
    """(steps,): those that are taken."""
    options: dict[str, Any]
    """Arguments of the scheduler's step."""
    latents: Tensor
    """(1, channels, height, width)."""
    kept: Tensor | None = None
    """Latents of the picture that it begins with, where a mask keeps some of it."""
    noise: Tensor | None = None
    """With which `kept` is mixed."""
    step: int = 0
    """How many were taken."""
    seconds: float = 0.0
    """That its steps took, each divided among those who shared it."""

    @property
    def is_done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= len(self.times)

    @property
    def rows(self) -> int:
        """Rows that it takes in a batch."""
        return 2 if self.is_guided else 1

    @property
    def is_guided(self) -> bool:
        """Whether it is drawn with guidance."""
        return self.request.guidance > 1

    @property
    def time(self) -> Tensor:
        """The time of the next step."""
        return self.times[self.step]

    def noisy(self) -> Tensor:
        """Return what the denoiser reads next: (rows, channels, height, width)."""
        scaled: Tensor = self.scheduler.scale_model_input(self.latents, self.time)
        return scaled.expand(self.rows, -1, -1, -1)

    def acting(self) -> list[Control]:
        """Return the controls that act in the next step."""
        steps = len(self.times)
        return [control for control in self.request.controls if control.acts(self.step, steps)]

    def advance(self, prediction: Tensor) -> None:
        """Take a step by what the denoiser predicted: (rows, channels, height, width)."""
        if self.is_guided:
            without, with_prompt = prediction.chunk(2)
            direction = with_prompt - without
            prediction = without + self.request.guidance * direction
        (self.latents, *_) = self.scheduler.step(
            prediction,
            self.time,
            self.latents,
            **self.options,
            return_dict=False,
        )
        self.step += 1
        self._keep()

    def _keep(self) -> None:
        """Put back what the mask keeps, with the noise of the step that comes next."""
        begin = self.request.begin
        if begin is None or begin.mask is None or self.kept is None:
            return
        kept = self.kept
        if not self.is_done:
            kept = self.scheduler.add_noise(kept, self.noise, self.time.view(1))
        self.latents = (1 - begin.mask) * kept + begin.mask * self.latents


@torch.no_grad()
def start(
    base: BaseModel,
    request: SampleRequest,
    scheduler_class: Any = None,
) -> Sample:
    """Return an image before its first step, with the noise that diffusers' pipelines draw for this seed.

    Args:
        base: The model, whose configuration makes the scheduler.
        request: What to draw: size in pixels, steps, seed, and the picture that it begins from, if any.
        scheduler_class: One of diffusers; the base model's own when left out.

    Raises TrainingError("steps") for a number of steps that the scheduler cannot take.
    """
    own = base.pipeline.scheduler
    scheduler = (scheduler_class or type(own)).from_config(own.config)
    _set_steps(scheduler, request.steps, base.device)
    generator = torch.Generator("cpu").manual_seed(request.seed)
    options = options_of(scheduler, generator)
    scale = base.pipeline.vae_scale_factor
    width, height = request.size
    shape = (1, base.denoiser.config.in_channels, height // scale, width // scale)
    begin = request.begin
    if begin is None:
        noise = torch.randn(shape, generator=generator)
        noise = noise.to(base.device)
        latents = noise * scheduler.init_noise_sigma
        return Sample(request, scheduler, scheduler.timesteps, options, latents)
    (moments,) = base.encode_images([begin.picture])
    mean, deviation = moments
    drawn = torch.randn(shape[1:], generator=generator)
    drawn = drawn.to(base.device)
    kept = mean + deviation * drawn
    kept = kept.unsqueeze(0)
    noise = torch.randn(shape, generator=generator)
    noise = noise.to(base.device)
    taken = int(request.steps * begin.strength)
    skipped = request.steps - max(1, min(request.steps, taken))
    first = skipped * scheduler.order
    times = scheduler.timesteps[first:]
    if hasattr(scheduler, "set_begin_index"):  # those that count their steps
        scheduler.set_begin_index(first)
    latents = scheduler.add_noise(kept, noise, times[:1])
    if begin.mask is not None and not skipped:  # nothing of the picture is left in what is drawn anew
        latents = noise * scheduler.init_noise_sigma
    return Sample(request, scheduler, times, options, latents, kept, noise)


def _set_steps(
    scheduler: Any,
    steps: int,
    device: torch.device,
) -> None:
    """Have a scheduler take so many steps; raises TrainingError("steps") when it cannot."""
    try:
        scheduler.set_timesteps(steps, device=device)
    except Exception as error:  # a scheduler may raise anything
        if failure_of(error):
            raise
        name = type(scheduler).__name__
        message = f"{name} cannot draw in {steps} steps: {first_line(error)}"
        raise TrainingError(
            "steps",
            message,
            "ask for more steps, or another scheduler",
        ) from error


def options_of(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """Return the arguments of a scheduler's step: some draw noise of their own."""
    known = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {}
    if "eta" in known:
        options["eta"] = 0.0
    if "generator" in known:
        options["generator"] = generator
    return options
