"""Draw images with plain diffusers, in batches, each image from a generator of its own.

An image of a seed is therefore the one that `pipe(prompt, generator=torch.Generator().manual_seed(seed))` draws.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import Tensor

from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from orchestrator.contract.buckets import Size
from orchestrator.contract.drawing import images_at_once
from orchestrator.contract.generation import SCHEDULERS, SchedulerName

FEW_STEPS = 4
"""Denoising steps in which every scheduler can draw."""
_USUAL_STEPS = (50, 25, 10)


@dataclass(frozen=True)
class Drawing:
    """How images are drawn."""

    steps: int
    """Denoising steps."""
    guidance: float
    """Scale of classifier-free guidance."""
    size: int
    """Side of square images, pixels; and what is taken for a width or a height that is left out."""
    negative_prompt: str | None = None
    """What not to draw; the model's own idea of nothing when left out."""
    width: int | None = None
    """Of the images, pixels."""
    height: int | None = None
    """Of the images, pixels."""

    @property
    def shape(self) -> Size:
        """Width and height of the images."""
        return Size(self.width or self.size, self.height or self.size)


@dataclass(frozen=True)
class DrawRequest:
    """One image to draw."""

    prompt: str
    seed: int


def batch_size(shape: Size, device: torch.device) -> int:
    """Return how many images of a shape are drawn at once."""
    return images_at_once(*shape, gpu=device.type != "cpu")


def batches(base: BaseModel, requests: Sequence[DrawRequest], drawing: Drawing) -> list[Sequence[DrawRequest]]:
    """Return requests in the batches in which they are drawn."""
    size = batch_size(drawing.shape, base.device)
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def draw(
    base: BaseModel,
    requests: Sequence[DrawRequest],
    drawing: Drawing,
    check_stop: Callable[[], None],
    done: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """Draw images in batches; `done` is told after each batch how many are ready.

    `check_stop` is called between denoising steps, and what it raises ends the drawing.
    """
    images: list[Image.Image] = []
    for batch in batches(base, requests, drawing):
        images += draw_batch(base, batch, drawing, check_stop)
        if done:
            done(len(images))
    return images


def draw_batch(
    base: BaseModel, requests: Sequence[DrawRequest], drawing: Drawing, check_stop: Callable[[], None]
) -> list[Image.Image]:
    """Draw some images in one batch."""
    images: list[Image.Image] = _drawn(base, requests, drawing, check_stop, "pil")
    return images


def draw_latents(
    base: BaseModel, requests: Sequence[DrawRequest], drawing: Drawing, check_stop: Callable[[], None]
) -> Tensor:
    """Draw some images in one batch, and return them before they are decoded: (images, channels, height, width)."""
    latents: Tensor = _drawn(base, requests, drawing, check_stop, "latent")
    return latents


def _drawn(
    base: BaseModel,
    requests: Sequence[DrawRequest],
    drawing: Drawing,
    check_stop: Callable[[], None],
    output_type: str,
) -> Any:
    """Return what the pipeline draws, in the form that diffusers calls `output_type`."""

    def check_after_step(pipeline: Any, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - diffusers' signature
        check_stop()
        return state

    prompts = [request.prompt for request in requests]
    options: dict[str, Any] = {}
    if drawing.negative_prompt is not None:
        options["negative_prompt"] = [drawing.negative_prompt] * len(prompts)
    return base.pipeline(
        prompts,
        height=drawing.shape.height,
        width=drawing.shape.width,
        num_inference_steps=drawing.steps,
        guidance_scale=drawing.guidance,
        generator=generators_of(requests),
        callback_on_step_end=check_after_step,
        output_type=output_type,
        **options,
    ).images


def generators_of(requests: Sequence[DrawRequest]) -> list[torch.Generator]:
    """Return the generator of each image."""
    return [torch.Generator("cpu").manual_seed(request.seed) for request in requests]


def use_scheduler(base: BaseModel, name: SchedulerName) -> None:
    """Have a base model draw by another scheduler, which takes over what the model's own says of its noise."""
    scheduler = getattr(diffusers, SCHEDULERS[name])
    base.pipeline.scheduler = scheduler.from_config(base.pipeline.scheduler.config)


def require_steps(base: BaseModel, steps: int, setting: str) -> None:
    """Raise TrainingError("recipe") when a base model cannot draw in so many steps, which only some schedulers can.

    `setting` is how the number is given, such as "--steps ".
    """
    try:
        rehearse(base.pipeline, steps)
    except Exception as error:  # a scheduler may raise anything
        if failure_of(error):
            raise
        scheduler = type(base.pipeline.scheduler).__name__
        possible = _possible_steps(base.pipeline)
        reason = first_line(error)
        raise TrainingError(
            "recipe",
            f'The base model "{base.reference.id}" cannot draw in {steps} steps with its {scheduler}: {reason}',
            f"draw in another number of steps: {setting}{possible}",
        ) from error


def _possible_steps(pipeline: Any) -> int:
    """Return a usual number of steps in which a pipeline can draw."""
    for steps in _USUAL_STEPS:
        with suppress(Exception):  # which is what this finds out
            rehearse(pipeline, steps)
            return steps
    return FEW_STEPS


@torch.no_grad()
def rehearse(pipeline: Any, steps: int) -> None:
    """Take the steps of a drawing on a few numbers, as the pipeline does but without its denoiser.

    It takes milliseconds, and what only drawing finds out is known before training. Raises what the scheduler raises,
    and ArithmeticError when it ends in something else than numbers.
    """
    drawn_by = pipeline.scheduler
    scheduler = type(drawn_by).from_config(drawn_by.config)
    scheduler.set_timesteps(steps, device="cpu")
    random = torch.Generator("cpu").manual_seed(0)
    options = pipeline.prepare_extra_step_kwargs([random], eta=0.0)
    latents = torch.ones(1, 4, 8, 8) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        noisy = scheduler.scale_model_input(latents, timestep)
        prediction = torch.zeros_like(noisy)
        (latents, *_) = scheduler.step(prediction, timestep, latents, **options, return_dict=False)
    if not latents.isfinite().all():
        raise ArithmeticError(f"{type(scheduler).__name__} draws NaN or infinity")
