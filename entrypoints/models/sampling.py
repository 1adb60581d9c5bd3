"""Drawing pictures with plain diffusers, in batches, each picture from a generator of its own.

A picture of a seed is therefore the one that `pipe(prompt, generator=torch.Generator().manual_seed(seed))` draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from entrypoints.models.base import BaseModel
from entrypoints.training.run import Run

PIXELS_AT_ONCE = 32 * 64 * 64  # of a batch on a CPU: enough to fill two cores
PIXELS_AT_ONCE_GPU = 4 * 512 * 512


@dataclass(frozen=True)
class Wanted:
    """A picture to draw."""

    prompt: str
    seed: int


def batch_size(run: Run) -> int:
    """Return how many pictures are drawn at once."""
    pixels = PIXELS_AT_ONCE if run.device.type == "cpu" else PIXELS_AT_ONCE_GPU
    return max(1, pixels // run.recipe.resolution**2)


def draw(
    run: Run, base: BaseModel, wanted: Sequence[Wanted], done: Callable[[int], None] | None = None
) -> list[Image.Image]:
    """Draw pictures with the recipe's steps and guidance; `done` is told how many are ready.

    Raises Stopped between denoising steps when the process was asked to end.
    """
    images: list[Image.Image] = []
    size = batch_size(run)
    for start in range(0, len(wanted), size):
        images += draw_batch(run, base, wanted[start : start + size])
        if done:
            done(len(images))
    return images


def draw_batch(run: Run, base: BaseModel, wanted: Sequence[Wanted]) -> list[Image.Image]:
    """Draw some pictures at once."""

    def heed_stop(pipeline: Any, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - diffusers' signature
        run.check_stop_alone()
        return state

    recipe = run.recipe
    images: list[Image.Image] = base.pipeline(
        [picture.prompt for picture in wanted],
        height=recipe.resolution,
        width=recipe.resolution,
        num_inference_steps=recipe.inference_steps,
        guidance_scale=recipe.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(picture.seed) for picture in wanted],
        callback_on_step_end=heed_stop,
    ).images
    return images
