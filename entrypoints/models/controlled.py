"""Draw with a ControlNet beside the base model: each image is shown a condition picture of its own."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import diffusers
from PIL import Image
from torch import nn

from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import Drawing, DrawRequest, batch_size, draw_with


def control_pipeline(base: BaseModel, network: nn.Module) -> Any:
    """Return the family's pipeline of diffusers that draws with the base model and a ControlNet."""
    name = base.family.control_pipeline
    if name is None:
        raise ValueError(f"{base.family.title} takes no ControlNet")
    drawn_by = base.pipeline
    pipeline_class = getattr(diffusers, name)
    known = {**drawn_by.config, **drawn_by.components, **base.family.pipeline_arguments, "controlnet": network}
    taken = signature(pipeline_class).parameters
    pipeline = pipeline_class(**{argument: known[argument] for argument in taken if argument in known})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_controlled(
    base: BaseModel,
    network: nn.Module,
    requests: Sequence[DrawRequest],
    pictures: Sequence[Image.Image],
    drawing: Drawing,
    check_stop: Callable[[], None],
    done: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """Draw images in batches, each with its condition picture; `done` is told after each batch how many are ready.

    `check_stop` is called between denoising steps, and what it raises ends the drawing.
    """
    pipeline = control_pipeline(base, network)
    size = batch_size(drawing.size, base.device)
    images: list[Image.Image] = []
    for start in range(0, len(requests), size):
        some = slice(start, start + size)
        images += draw_with(pipeline, requests[some], drawing, check_stop, image=list(pictures[some]))
        if done:
            done(len(images))
    return images
