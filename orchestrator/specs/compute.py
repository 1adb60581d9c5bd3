"""The machines of a job and its budget. SageMaker only; ignored for local jobs.

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
SPOT_WAIT_MINUTES = 12 * 60  # for capacity, when a job sets no max_wait_minutes
MAX_USD = 10_000_000  # more than a hundred of the most expensive instances cost in the longest run
START_SECONDS = 300  # from the start of a run to its first step


class Compute(BaseModel):
    """Where a job runs on SageMaker, and for how long at most."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    instance_type: str | None = None
    """Instance type, such as ml.g5.xlarge; by default the cheapest whose GPU memory is estimated to suffice."""
    instance_count: int = Field(1, ge=1, le=100)
    """Number of instances; every GPU of every instance trains, each on a batch of its own."""
    volume_gb: int = Field(50, ge=1, le=16384)
    """Disk space in GB that the job needs; the built-in disk of an instance type has to be as large."""
    spot: bool = False
    """Use spot capacity: cheaper, but AWS may reclaim it at any time; the job then resumes from a checkpoint."""
    max_runtime_minutes: int | None = Field(None, ge=SHORTEST_MINUTES, le=LONGEST_MINUTES)
    """Stop the job after this many minutes of running; by default well above what it is expected to take."""
    max_wait_minutes: int | None = Field(None, ge=SHORTEST_MINUTES, le=LONGEST_MINUTES)
    """With spot: minutes for waiting and running together; by default the time limit and twelve hours."""
    retry_attempts: int = Field(2, ge=0, le=30)
    """How often SageMaker restarts the job after an internal error of the service."""
    network_isolation: bool | None = None
    """Run the container without network; by default on, unless the job downloads its model from the Hub."""

    @field_validator("instance_type")
    @classmethod
    def _check_instance_type(cls, value: str | None) -> str | None:
        if value is not None:
            instance(value)  # raises ValueError for one that cannot train
        return value

    @model_validator(mode="after")
    def _check_wait(self) -> Self:
        wait = self.max_wait_minutes
        run = self.max_runtime_minutes
        if wait is not None and not self.spot:
            raise ValueError("max_wait_minutes is for spot only; add spot: true, or leave it out")
        if wait is not None and run is not None and wait < run:
            raise ValueError(
                f"max_wait_minutes ({wait}) includes the run; it must be at least max_runtime_minutes ({run})"
            )
        return self

    def wait_seconds(self, runtime_seconds: int) -> int | None:
        """Return MaxWaitTimeInSeconds for a run of this many seconds; None without spot."""
        if not self.spot:
            return None
        if self.max_wait_minutes is not None:
            return self.max_wait_minutes * 60
        seconds = runtime_seconds + SPOT_WAIT_MINUTES * 60
        return min(seconds, LONGEST_MINUTES * 60)


class Budget(BaseModel):
    """What a job may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_usd: Decimal | None = Field(None, gt=0, le=MAX_USD)
    """What the job may cost in US dollars: it sets the time limit, with an allowance for stopping and uploading."""


def require_checkpoint(recipe: Recipe, compute: Compute, runtime_seconds: int) -> None:
    """Raise ValueError for a spot job without a checkpoint: each interruption would restart it from the beginning."""
    if not compute.spot:
        return
    if recipe.checkpoint_steps is not None and recipe.checkpoint_steps < recipe.steps:
        return
    first_checkpoint_seconds = START_SECONDS + recipe.checkpoint_minutes * 60
    if first_checkpoint_seconds >= runtime_seconds:
        every = f"checkpoint_minutes={recipe.checkpoint_minutes:g}"
        minutes = runtime_seconds // 60
        raise ValueError(
            f"spot needs checkpoints, and with {every} a run of {minutes} minutes writes none; "
            "lower checkpoint_minutes, set checkpoint_steps, or leave spot out"
        )
