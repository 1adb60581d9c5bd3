"""Estimate what a job writes to the disk of this machine, before it starts."""

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.samples import CELL, MOST_REAL
from orchestrator.planning.duration import checkpoint_bytes, result_bytes
from orchestrator.planning.plan import Plan
from orchestrator.specs.job import JobSpec

_PNG_PIXEL = 3  # bytes, where there is nothing to compress
_PNG = 500  # bytes of a file beside its pixels
_COPIES_OF_RESULT = 2  # where it is trained, and where it is published


class DiskUse(BaseModel):
    """What a job writes, bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

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


def disk_use(spec: JobSpec, plan: Plan, size: ModelSize | None) -> DiskUse | None:
    """Return what a job writes at most, or None when the size of its model is unknown."""
    recipe = spec.recipe
    result = result_bytes(recipe, size)
    if not result:
        return None
    return DiskUse(
        checkpoints=(recipe.keep_checkpoints + 1) * checkpoint_bytes(recipe, size),
        adapter=_COPIES_OF_RESULT * result,
        images=_image_bytes(recipe),
        inputs=sum(tree.bytes for tree in plan.trees),
    )


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
