"""What every host of endpoints can do."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict

from orchestrator.endpoints.deployment import Deployment, Lease
from orchestrator.endpoints.names import HostName, Mode
from orchestrator.errors import OrchestratorError


class EndpointStatus(StrEnum):
    """EndpointStatus of DescribeEndpoint, as far as endpoints of all hosts have it.

    A value that is not listed here becomes UNKNOWN.
    """

    CREATING = "Creating"
    IN_SERVICE = "InService"
    UPDATING = "Updating"
    FAILED = "Failed"
    STOPPED = "Stopped"
    """A server on this machine that has ended."""
    DELETING = "Deleting"
    UNKNOWN = "Unknown"

    @classmethod
    def _missing_(cls, value: object) -> "EndpointStatus":  # noqa: ARG003  (the base class names it so)
        """Return the status for a value that this version does not know."""
        return cls.UNKNOWN


class EndpointDescription(BaseModel):
    """The current state of an endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Its name."""
    host: HostName
    """Where it runs."""
    mode: Mode
    """How it is called."""
    status: EndpointStatus
    """What the host says of it."""
    base_model: str
    """Its base model, as it was named."""
    adapters: tuple[str, ...]
    """Names of its adapters."""
    created: AwareDatetime
    """When it was first deployed."""
    lease: Lease
    """When it ends by itself, and what it may cost."""
    last_used: AwareDatetime | None = None
    """When it was called last, as far as the host knows."""
    expired: str | None = None
    """Why `endpoints gc` would delete it; None while its lease lasts."""
    finished: bool = True
    """Whether all that was asked for was set up; `endpoints gc` goes on with what nobody waited for."""
    failure_reason: str | None = None
    """What happened and why, if it failed."""
    next_step: str | None = None
    """The next command or what to change."""
    url: str | None = None
    """Where it listens. Local endpoints only."""
    region: str | None = None
    """AWS region it runs in. SageMaker only."""
    instance_type: str | None = None
    """Instance type. SageMaker only."""
    instances: int | None = None
    """Instances that run now. SageMaker only."""
    usd_per_hour: float | None = None
    """What these instances cost by the price list; None on this machine, and when no price is known."""


class DeploymentPlan(Protocol):
    """All that a deployment will create, before anything is."""

    @property
    def deployment(self) -> Deployment:
        """What was asked for."""
        ...

    @property
    def facts(self) -> Sequence[tuple[str, str]]:
        """Label and value of each fact to show: what is created, its dollars an hour and a day."""

    @property
    def usd_per_hour(self) -> float | None:
        """Dollars per hour of its fewest instances, by the price list; None on this machine, and when unknown."""


class Answer(NamedTuple):
    """What an endpoint answers to a request."""

    content: bytes
    """The body."""
    media_type: str
    """Of the body: application/json, image/png, ..."""
    headers: Mapping[str, str] = {}


class Contents(NamedTuple):
    """What an endpoint draws with, by hashes: images depend on it."""

    base_model: str
    """What tells its base model from others: the hash of its weights, or its name on the Hub with its commit."""
    adapters: Mapping[str, str]
    """What tells the content of each adapter from others, by its name."""


class Host(Protocol):
    """Runs endpoints. All its methods are idempotent, and raise OrchestratorError."""

    name: HostName
    """Its name, as `--host` takes it."""

    def plan(self, deployment: Deployment, *, keeps_base: bool = False) -> DeploymentPlan:
        """Check a deployment and return what it will create; creates nothing.

        With `keeps_base` its base model is the one that the endpoint of that name has, wherever its files are.
        """

    def deploy(self, plan: DeploymentPlan) -> EndpointDescription:
        """Create an endpoint, or update the one of that name to what is asked for; returns once that has begun."""

    def wait_until_in_service(self, name: str, seconds: float) -> EndpointDescription:
        """Wait until an endpoint is no longer created or updated, `seconds` at most, and describe it."""

    def describe(self, name: str) -> EndpointDescription:
        """Return what is known of an endpoint; raises EndpointError when there is none."""

    def summaries(self) -> Iterator[EndpointDescription | OrchestratorError]:
        """Yield every endpoint; an error for an unreadable one."""

    def deployment(self, name: str) -> Deployment:
        """Return what was asked for when an endpoint was deployed or changed last."""
        ...

    def contents(self, name: str) -> Contents:
        """Return what an endpoint draws with; raises EndpointError when it cannot be told."""
        ...

    def invoke(self, name: str, body: bytes, accept: str) -> Answer:
        """Send a body of `/invocations` and return the answer; may be called by several threads."""

    def scale(self, name: str, fewest: int, most: int) -> None:
        """Change the numbers of instances."""

    def delete(self, name: str, *, keep_logs: bool = False) -> Sequence[str]:
        """Delete an endpoint and everything that was created for it; return what is gone.

        With `keep_logs` what its servers logged stays, where the host keeps that apart from the endpoint.
        """

    def collect(self) -> Sequence[str]:
        """Delete endpoints whose lease has ended, and what deployments that were interrupted left; return both."""

    def finish(self) -> Sequence[EndpointDescription]:
        """Go on with deployments that nobody waited for, as far as it goes now; return where each of them stands."""
        ...

    def log_lines(self, name: str, *, follow: bool) -> Iterator[str]:
        """Yield what its server logged; with `follow`, go on until interrupted."""
        ...
