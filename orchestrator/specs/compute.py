"""The machines of a job and its money. SageMaker only; ignored for local jobs.

The limits are those of CreateTrainingJob:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from decimal import Decimal
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orchestrator.aws.instances import instance
from orchestrator.contract.recipe import Recipe

LONGEST_MINUTES = 28 * 24 * 60  # of MaxRuntimeInSeconds
SHORTEST_MINUTES = 5  # pulling the image and loading the model take this long
SPOT_PATIENCE_MINUTES = 12 * 60
MOST_USD = 10_000_000  # more than a hundred of the dearest instances cost in the longest run
START_SECONDS = 300  # of a run go by before its first step


class Compute(BaseModel):
    """Where a job runs on SageMaker, and for how long at most."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    instance_type: str | None = None
    """Instance type, as in ml.g5.xlarge; when left out, the cheapest whose GPU memory is estimated to suffice."""
    instance_count: int = Field(1, ge=1, le=100)
    """Number of instances; every GPU of every instance trains, each on a batch of its own."""
    volume_gb: int = Field(50, ge=1, le=16384)
    """Disk in GB, for instance types that have none built in."""
    spot: bool = False
    """Use spare capacity: cheaper, but AWS may take it back at any time; the job then goes on from a checkpoint."""
    max_runtime_minutes: int = Field(240, ge=SHORTEST_MINUTES, le=LONGEST_MINUTES)
    """The service stops the job after so many minutes of running: what bounds its price."""
    max_wait_minutes: int | None = Field(None, ge=SHORTEST_MINUTES, le=LONGEST_MINUTES)
    """With spot: minutes for waiting and running together; twelve hours more than the run when left out."""
    retry_attempts: int = Field(2, ge=0, le=30)
    """How often the service starts the job again after a failure of its own."""
    network_isolation: bool | None = None
    """Cut the container off from every network; when left out, on unless the job fetches its model from the Hub."""

    @field_validator("instance_type")
    @classmethod
    def _can_train(cls, value: str | None) -> str | None:
        if value is not None:
            instance(value)
        return value

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.max_wait_minutes is not None and not self.spot:
            raise ValueError("max_wait_minutes is for spot only; add spot: true, or leave it out")
        if self.max_wait_minutes is not None and self.max_wait_minutes < self.max_runtime_minutes:
            raise ValueError(
                f"max_wait_minutes ({self.max_wait_minutes}) holds the run too; "
                f"it must be at least max_runtime_minutes ({self.max_runtime_minutes})"
            )
        return self

    def wait_seconds(self, runtime_seconds: int) -> int | None:
        """Return MaxWaitTimeInSeconds for a run of that length, or None without spot."""
        if not self.spot:
            return None
        if self.max_wait_minutes is not None:
            return self.max_wait_minutes * 60
        return min(runtime_seconds + SPOT_PATIENCE_MINUTES * 60, LONGEST_MINUTES * 60)


class Budget(BaseModel):
    """What a job may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_usd: Decimal | None = Field(None, gt=0, le=MOST_USD)
    """Most dollars the job may cost: the service stops it before it costs more."""


def require_checkpoint(recipe: Recipe, compute: Compute, runtime_seconds: int) -> None:
    """Raise ValueError for a spot job that would be cut off before its first checkpoint, each time anew."""
    if not compute.spot or (recipe.checkpoint_steps is not None and recipe.checkpoint_steps < recipe.steps):
        return
    first = START_SECONDS + recipe.checkpoint_minutes * 60
    if first >= runtime_seconds:
        raise ValueError(
            f"spot needs checkpoints, and with checkpoint_minutes={recipe.checkpoint_minutes:g} none lands in a run of "
            f"{runtime_seconds // 60} minutes; lower checkpoint_minutes, set checkpoint_steps, or leave spot out"
        )
