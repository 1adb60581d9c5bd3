"""Estimate what a job writes to the disk of this machine, before it starts."""

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.footprint import ModelSize
from orchestrator.planning.duration import checkpoint_bytes, result_bytes
from orchestrator.planning.plan import Plan
from orchestrator.specs.job import JobSpec

_PNG = 2.0  # bytes of a pixel
_COPIES_OF_RESULT = 2  # where it is trained, and where it is published


class DiskUse(BaseModel):
    """What a job writes, bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    checkpoints: int
    """Checkpoints that are kept and the next one, until the adapter is published."""
    adapter: int
    """The adapter, and its draft until it is published."""
    images: int
    """Images that the job draws."""
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
    drawn = recipe.images_drawn * recipe.resolution**2
    return DiskUse(
        checkpoints=(recipe.keep_checkpoints + 1) * checkpoint_bytes(recipe, size),
        adapter=_COPIES_OF_RESULT * result,
        images=int(_PNG * drawn),
        inputs=sum(tree.bytes for tree in plan.trees),
    )
