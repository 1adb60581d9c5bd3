"""What can go wrong with an endpoint or a component that was created: chosen by the test before it happens."""

from dataclasses import dataclass

STAGES = ("Provisioning", "Downloading", "Image", "Adapter")


@dataclass(frozen=True)
class FailLaunch:
    """A launch of containers fails in a stage of STAGES."""

    stage: str
    reason: str
    """FailureReason; `{variant}` in it becomes the variant's name."""

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"{self.stage} is none of {', '.join(STAGES)}")


@dataclass(frozen=True)
class UnhealthyContainer:
    """Whatever /ping says, the health check does not pass; the launch fails when its time is over."""


@dataclass(frozen=True)
class ServerDeath:
    """The container ends without an answer when it gets a request; the service starts it again."""

    after_requests: int = 0
    """Requests that it answers first."""


HostingFault = FailLaunch | UnhealthyContainer | ServerDeath

NOT_HEALTHY = (
    "The primary container for production variant {variant} did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)
NOT_STARTED = (
    "CannotStartContainerError. Please ensure the model container for variant {variant} starts correctly when invoked "
    "with 'docker run <image> serve'"
)


def insufficient_capacity() -> FailLaunch:
    reason = (
        "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. "
        "Please retry using a different ML instance type or after some time."
    )
    return FailLaunch("Provisioning", reason)


def model_download_timeout() -> FailLaunch:
    reason = "The model data download for production variant {variant} timed out. Please retry with a longer timeout."
    return FailLaunch("Downloading", reason)


def serving_image_failure() -> FailLaunch:
    return FailLaunch("Image", NOT_STARTED)


def hosting_internal_error(stage: str = "Provisioning") -> FailLaunch:
    return FailLaunch(stage, "Request to service failed. If failure persists after retry, contact customer support.")
