"""Draw images with plain diffusers, in batches, each image from a generator of its own.

An image of a seed is therefore the one that `pipe(prompt, generator=torch.Generator().manual_seed(seed))` draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from entrypoints.models.base import BaseModel
from orchestrator.contract.drawing import images_at_once


@dataclass(frozen=True)
class Drawing:
    """How images are drawn."""

    steps: int
    """Denoising steps."""
    guidance: float
    """Scale of classifier-free guidance."""
    size: int
    """Side of the square images, pixels."""


@dataclass(frozen=True)
class DrawRequest:
    """One image to draw."""

    prompt: str
    seed: int


def batch_size(size: int, device: torch.device) -> int:
    """Return how many images with a side of `size` pixels are drawn at once."""
    return images_at_once(size, gpu=device.type != "cpu")


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
    batch = batch_size(drawing.size, base.device)
    for start in range(0, len(requests), batch):
        images += draw_batch(base, requests[start : start + batch], drawing, check_stop)
        if done:
            done(len(images))
    return images


def draw_batch(
    base: BaseModel, requests: Sequence[DrawRequest], drawing: Drawing, check_stop: Callable[[], None]
) -> list[Image.Image]:
    """Draw some images in one batch."""

    def check_after_step(pipeline: Any, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - diffusers' signature
        check_stop()
        return state

    prompts = []
    generators = []
    for request in requests:
        prompts.append(request.prompt)
        generators.append(torch.Generator("cpu").manual_seed(request.seed))
    images: list[Image.Image] = base.pipeline(
        prompts,
        height=drawing.size,
        width=drawing.size,
        num_inference_steps=drawing.steps,
        guidance_scale=drawing.guidance,
        generator=generators,
        callback_on_step_end=check_after_step,
    ).images
    return images
