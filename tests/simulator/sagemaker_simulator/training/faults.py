"""What can go wrong with a job that was created: chosen by the test before it happens."""

from dataclasses import dataclass

STAGES = ("Starting", "Pending", "Preparing", "Downloading", "Image", "Training", "Uploading")


@dataclass(frozen=True)
class FailIn:
    """The service, not the container, ends the attempt in a stage of STAGES."""

    stage: str
    reason: str
    message: str = "Training job failed"
    retriable: bool = False
    """Whether a RetryStrategy applies."""
    when_logged: str | None = None
    """In Training: as soon as a line of the log contains this, not at once."""

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"{self.stage} is none of {', '.join(STAGES)}")


@dataclass(frozen=True)
class Interruption:
    """Spot capacity is taken back at a moment of the test's choosing: the first that comes true."""

    after_seconds: float | None = None
    """On the clock, from the start of the container."""
    when_logged: str | None = None
    """As soon as a line of the log contains this."""
    when_synced: str | None = None
    """As soon as a checkpoint file whose path contains this has reached S3; later files have not."""
    notice: bool = False
    """Whether the container gets SIGTERM and up to 120 s; otherwise it is gone at once, and nothing more is synced."""


JobFault = FailIn | Interruption


def capacity_shortage() -> FailIn:
    reason = (
        "CapacityError: Unable to provision requested ML compute capacity. "
        "Please retry using a different ML instance type."
    )
    return FailIn("Pending", reason)


def image_pull_failure() -> FailIn:
    reason = (
        "ClientError: Cannot pull algorithm container. "
        "Either the image does not exist or its permissions are incorrect."
    )
    return FailIn("Image", reason)


def internal_server_error(stage: str = "Training", *, when_logged: str | None = None) -> FailIn:
    reason = "InternalServerError: We encountered an internal error. Please try again."
    return FailIn(stage, reason, retriable=True, when_logged=when_logged)


def failed_health_check() -> FailIn:
    reason = "InternalServerError: Instance health check failed. Please try again."
    return FailIn("Preparing", reason, retriable=True)
