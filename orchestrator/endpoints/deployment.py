"""What a person asked for: an endpoint with a base model and adapters, and how long it may cost money."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.contract.recipe import BUILTIN
from orchestrator.endpoints.names import HostName, Mode

NAME_PATTERN = r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$"
"""Of an endpoint of SageMaker; local ones follow it, so that a name works everywhere."""
MOST_ADAPTERS = 1000

EndpointName = Annotated[str, Field(pattern=NAME_PATTERN)]


class Lease(BaseModel):
    """When an endpoint ends by itself, and what it may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ttl_seconds: int | None = Field(None, ge=60)
    """Seconds after its creation until it may be deleted by `endpoints gc`; no end when left out."""
    idle_seconds: int | None = Field(None, ge=60)
    """Seconds without a request after which it may be deleted by `endpoints gc`; no end when left out."""
    max_usd_per_day: float | None = Field(None, gt=0)
    """Dollars that all its instances together may cost in a day; more is refused before anything is created."""


class Deployment(BaseModel):
    """An endpoint, as it was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: EndpointName
    """Name of the endpoint."""
    host: HostName = HostName.LOCAL
    """Where it runs."""
    mode: Mode = Mode.REALTIME
    """How it is called."""
    base_model: str = BUILTIN
    """Its base model: a folder, a model of the Hugging Face Hub, or the built-in one."""
    base_revision: str | None = None
    """Commit or branch of a model of the Hub."""
    adapters: tuple[str, ...] = Field((), max_length=MOST_ADAPTERS)
    """Names of the adapters that it knows from the start."""
    instance_type: str | None = None
    """Instance type; the cheapest that its base model fits when left out. SageMaker only."""
    fewest_instances: int = Field(1, ge=0, le=100)
    """Instances that are never given back; 0 to scale to zero, where the mode can. SageMaker only."""
    most_instances: int = Field(1, ge=1, le=100)
    """Instances that it may grow to. SageMaker only."""
    slots: int = Field(16, ge=1, le=1024)
    """Adapters of each rank that can be drawn with at the same time."""
    most_waiting: int = Field(64, ge=1, le=100_000)
    """Images that may wait; requests above that are refused."""
    safety_checker: bool = True
    """Whether answers say of each image if the base model's safety checker flags it, where its folder has one."""
    lease: Lease = Lease()
    """When it ends by itself, and what it may cost."""

    @model_validator(mode="after")
    def _check_instances(self) -> Self:
        if self.fewest_instances > self.most_instances:
            raise ValueError("fewest_instances is larger than most_instances")
        if self.fewest_instances == 0 and self.mode is Mode.REALTIME:
            raise ValueError("fewest_instances is 0, and only the modes async and components scale to zero")
        return self

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        if not self.host.is_here:
            return self
        if self.mode is not Mode.REALTIME:
            raise ValueError(f"mode is {self.mode}, which a server on this machine does not have")
        if self.instance_type is not None or self.most_instances > 1:
            raise ValueError("instance types and numbers are for SageMaker; a server on this machine is one process")
        return self
