"""What every target can do with a CreateTrainingJob request."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict

from orchestrator.errors import JobError, OrchestratorError
from orchestrator.requests import Made, Request
from orchestrator.storage import Store
from orchestrator.targets.names import TargetName


class JobStatus(StrEnum):
    """TrainingJobStatus of DescribeTrainingJob, and QUEUED: a local job that waits for others.

    A value that is not listed here becomes UNKNOWN: the service may add some, and a list of jobs must not fail by it.
    """

    QUEUED = "Queued"
    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    DELETING = "Deleting"
    UNKNOWN = "Unknown"

    @classmethod
    def _missing_(cls, value: object) -> "JobStatus":  # noqa: ARG003  (the base class names it so)
        """Return the status for a value that this version does not know."""
        return cls.UNKNOWN

    @property
    def is_final(self) -> bool:
        """Whether the job has ended; only an ended job can be deleted."""
        return self in {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.DELETING}


def deleting(name: str) -> JobError:
    """Return the error for what cannot be done with a job while it is being deleted."""
    return JobError(f"The job {name} is being deleted.", next_step="try again in a minute, when it is gone")


class JobSummary(BaseModel):
    """A job in a list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name of the job."""
    target: TargetName
    """The target that runs it."""
    status: JobStatus
    """Status of its latest attempt."""
    created: AwareDatetime
    """When it was first submitted."""
    region: str | None = None
    """AWS region it runs in. SageMaker only; None for local jobs."""
    recipe: str | None = None
    """Its recipe; None when it is not known."""
    settings: dict[str, Any] = {}
    """Settings of the recipe that differ from their defaults, the prompt among them."""
    scorer: str | None = None
    """URI of the CLIP that measures its figures; None for the base model's own."""
    step: int | None = None
    """Optimizer steps that its latest attempt has reached; None before the first and when that is not known."""
    steps: int | None = None
    """Optimizer steps of the whole run."""


class BilledAttempt(BaseModel):
    """What the service bills for one attempt that has ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instance_type: str
    """Instance type it ran on."""
    instance_count: int
    """Number of instances."""
    region: str
    """AWS region it ran in."""
    seconds: int
    """BillableTimeInSeconds, from which the saving of spot is already subtracted."""


class JobDescription(BaseModel):
    """The current state of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name of the job."""
    target: TargetName
    """The target that runs it."""
    status: JobStatus
    """Status of its latest attempt."""
    stage: str | None = None
    """What the service is doing for it: SecondaryStatus; of a local job in the queue, what it waits for."""
    identity: str
    """Hash of the whole job, from its tag."""
    created: AwareDatetime
    """When it was first submitted."""
    started: AwareDatetime | None = None
    """When its latest attempt started."""
    ended: AwareDatetime | None = None
    """When its latest attempt ended."""
    failure_reason: str | None = None
    """What happened and why, if it failed or was killed."""
    next_step: str | None = None
    """The next command or what to change, if the job itself says so."""
    output: str
    """URI of its adapter, or of whatever else it makes."""
    makes: Made = Made.ADAPTER
    """What it makes: an adapter, the evaluation of one, or images."""
    scorer: str | None = None
    """URI of the CLIP that measures its figures; None for the base model's own."""
    region: str | None = None
    """AWS region it runs in. SageMaker only; None for local jobs."""
    instance_type: str | None = None
    """Instance type of its latest attempt. SageMaker only."""
    instance_count: int = 1
    """Number of instances of its latest attempt."""
    runtime_limit_seconds: int | None = None
    """How long its latest attempt may run. SageMaker only."""
    billed_attempts: tuple[BilledAttempt, ...] = ()
    """What is billed for each attempt that has ended. SageMaker only; empty for local jobs."""


class Target(Protocol):
    """Runs and watches requests."""

    name: TargetName
    """Its name, as `--target` takes it."""
    store: Store
    """Where its finished adapters are."""

    def create(self, request: Request) -> None:
        """Start a job; raises JobExistsError when there is one of that name."""

    def resume(self, name: str, request: Request | None = None) -> None:
        """Start an ended job again from its newest checkpoint, with the request and the code it was submitted with.

        With a `request`, the job takes over its instances, limits and retries (`requests.moved`), and nothing else.
        Raises JobExistsError when the job is running, JobError when it is complete.
        """

    def restart(self, request: Request) -> None:
        """Start an ended job from its beginning, with a new request and without its checkpoints."""

    def discard(self, name: str, *, adapter: bool = False) -> None:
        """Delete an ended job and its files, with `adapter` its adapter too; raises JobError while it runs.

        What an evaluation or a batch left on this machine is among its files; in a bucket it stays.
        """

    def describe(self, name: str) -> JobDescription:
        """Return what is known of a job; raises JobError when there is none."""

    def summaries(self) -> Iterator[JobSummary | OrchestratorError]:
        """Yield every job, the oldest first, in as few calls as a list takes; an error for an unreadable one."""

    def has(self, name: str) -> bool:
        """Return whether there is a job of that name; unlike `names`, in the same time for any number of jobs."""

    def names(self) -> list[str]:
        """Return the names of all jobs, the oldest first."""

    def stop(self, name: str) -> None:
        """Ask a job to save a checkpoint and end; returns at once."""

    def kill(self, name: str) -> None:
        """End a job as fast as the target can, without waiting for a checkpoint; returns at once."""

    def log_lines(
        self,
        name: str,
        *,
        follow: bool,
        latest_attempt: bool = False,
    ) -> Iterator[str]:
        """Yield the log of all attempts or of the latest; with `follow`, yield new lines until the job ends."""

    def wait_for_end(self, name: str, seconds: float) -> bool:
        """Wait until the job has ended, `seconds` at most; return whether it has."""

    def root(self, name: str) -> Path | None:
        """Return the folder of this machine that is the `/opt/ml` of a job; None for a job of another machine."""

    def report(self, name: str) -> str | None:
        """Return the URI of the page that the latest attempt of a job left when it ended; None without one."""
        ...

    def checkpoints(self, name: str) -> str:
        """Return the URI of the folder of a job's checkpoints, in which its exchange of labels is too."""
        ...

    def checkpoint_step(self, name: str) -> int | None:
        """Return the optimizer steps of the newest checkpoint, or None when there is none."""
