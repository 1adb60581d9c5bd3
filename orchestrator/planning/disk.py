"""Estimate what a job writes to the disk of its machine, before it starts."""

import math

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.mixins import Optimised
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.samples import CELL, MOST_REAL
from orchestrator.planning.duration import checkpoint_bytes, model_bytes, result_bytes

_PNG_PIXEL = 3  # bytes, where there is nothing to compress
_PNG = 500  # bytes of a file beside its pixels
_COPIES_OF_RESULT = 2  # where it is trained, and where it is published
_FILE_SYSTEM = 1.05  # share that the file system takes of a disk
_GB = 10**9


class DiskUse(BaseModel):
    """What a job writes, bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoints: int
    """Checkpoints that are kept and the next one, until the adapter is published."""
    adapter: int
    """The adapter, and its draft until it is published."""
    images: int
    """Images that the job draws, and its contact sheet."""
    inputs: int
    """Training images and code, unless they are stored already."""

    @property
    def total(self) -> int:
        """Everything together."""
        return self.checkpoints + self.adapter + self.images + self.inputs


def disk_use(recipe: Recipe, size: ModelSize | None, inputs: int) -> DiskUse | None:
    """Return what a job with so many bytes of inputs writes at most, or None when the size of its model is unknown."""
    if recipe.shares_images:  # with the checkpoints, and where they are published
        return DiskUse(checkpoints=0, adapter=0, images=_COPIES_OF_RESULT * _image_bytes(recipe), inputs=inputs)
    result = result_bytes(recipe, size)
    if not result:
        return None
    kept = recipe.keep_checkpoints
    if isinstance(recipe, Optimised):
        kept = min(kept, recipe.steps)
    return DiskUse(
        checkpoints=(kept + 1) * checkpoint_bytes(recipe, size) + _kept_bytes(recipe, size),
        adapter=_COPIES_OF_RESULT * result,
        images=_image_bytes(recipe),
        inputs=inputs,
    )


def _kept_bytes(recipe: Recipe, size: ModelSize | None) -> int:
    """Return the bytes of what lies beside the checkpoints."""
    if size is None:
        return 0
    return recipe.bytes_beside_checkpoints(size)


def _image_bytes(recipe: Recipe) -> int:
    """Return the bytes of all images at most; samples and contact sheet are a part of the adapter, and copied with it.

    The rest, class images and those of the validation prompts, stay where they are drawn.
    """
    image = _PNG_PIXEL * recipe.resolution**2 + _PNG
    judged = recipe.images_judged
    others = image * (recipe.images_drawn - judged)
    if judged == 0:
        return others
    on_sheet = judged + MOST_REAL
    cell = _PNG_PIXEL * CELL**2 + _PNG  # with the paper around it, which takes next to nothing
    return others + _COPIES_OF_RESULT * on_sheet * (image + cell)


def disk_of_instance(
    recipe: Recipe,
    size: ModelSize | None,
    *,
    scorer: int,
    inputs: int,
) -> int | None:
    """Return the GB that a job takes at most of an instance's disk, which gets a copy of its base model too.

    `scorer` is the parameters of a CLIP of its own, `inputs` the bytes of its images. None when the size of the model
    is unknown.
    """
    use = disk_use(recipe, size, inputs)
    if use is None or size is None:
        return None
    whole = use.total + model_bytes(size) + 4 * scorer
    return math.ceil(_FILE_SYSTEM * whole / _GB)
