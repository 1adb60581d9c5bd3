"""What the tags of an endpoint say: what was asked for and when it ends, for every machine of a team."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.endpoints.deployment import Deployment, Lease
from orchestrator.endpoints.names import Mode
from orchestrator.requests import ENDPOINT_TAG, OWNER_TAG, tag

DEPLOYMENT_TAG = "orchestrator:deployment"
"""Hash of what was created."""
ADAPTER_TAG = "orchestrator:adapter"
"""Of an adapter component: the name of its adapter."""
_MODE = "orchestrator:mode"
_BASE_MODEL = "orchestrator:base-model"
_ADAPTERS = "orchestrator:adapters"
_FEWEST = "orchestrator:fewest-instances"
_MOST = "orchestrator:most-instances"
_TTL = "orchestrator:ttl-seconds"
_IDLE = "orchestrator:idle-seconds"
_DOLLARS = "orchestrator:max-usd-per-day"

Tags = list[dict[str, str]]


class Record(BaseModel):
    """What the tags of an endpoint say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name of the endpoint."""
    owner: str
    """Who deployed it."""
    mode: Mode
    """How it is called."""
    base_model: str
    """Its base model, as it was named."""
    adapters: int
    """How many adapters it was deployed with."""
    fewest: int
    """Instances that are never given back."""
    most: int
    """Instances that it may grow to."""
    lease: Lease
    """When it ends by itself, and what it may cost."""

    @classmethod
    def of(
        cls,
        deployment: Deployment,
        owner: str,
    ) -> Self:
        """Return the record of a deployment."""
        return cls(
            name=deployment.name,
            owner=owner,
            mode=deployment.mode,
            base_model=deployment.base_model,
            adapters=len(set(deployment.adapters)),
            fewest=deployment.fewest_instances,
            most=deployment.most_instances,
            lease=deployment.lease,
        )

    def tags(self) -> Tags:
        """Return the record as tags; an absent limit has the value "none", so that all of them are replaced at once."""
        values = {
            ENDPOINT_TAG: self.name,
            OWNER_TAG: self.owner,
            _MODE: self.mode,
            _BASE_MODEL: self.base_model,
            _ADAPTERS: self.adapters,
            _FEWEST: self.fewest,
            _MOST: self.most,
            _TTL: _limit(self.lease.ttl_seconds),
            _IDLE: _limit(self.lease.idle_seconds),
            _DOLLARS: _limit(self.lease.max_usd_per_day),
        }
        return [tag(key, str(value)) for key, value in values.items()]


def own_tags_of(
    name: str,
    owner: str,
    sha256: str,
) -> Tags:
    """Return the tags of whatever is created for an endpoint."""
    return [tag(ENDPOINT_TAG, name), tag(OWNER_TAG, owner), tag(DEPLOYMENT_TAG, sha256)]


def read_record(tags: Mapping[str, str]) -> Record | None:
    """Return what the tags of an endpoint say; None for an endpoint that was not deployed by this program."""
    try:
        lease = Lease(
            ttl_seconds=_number(tags[_TTL]),
            idle_seconds=_number(tags[_IDLE]),
            max_usd_per_day=_number(tags[_DOLLARS]),
        )
        return Record(
            name=tags[ENDPOINT_TAG],
            owner=tags[OWNER_TAG],
            mode=Mode(tags[_MODE]),
            base_model=tags[_BASE_MODEL],
            adapters=int(tags[_ADAPTERS]),
            fewest=int(tags[_FEWEST]),
            most=int(tags[_MOST]),
            lease=lease,
        )
    except (KeyError, ValueError, ValidationError):
        return None


_NONE = "none"


def _limit(value: float | None) -> str:
    return _NONE if value is None else str(value)


def _number(text: str) -> float | None:
    return None if text == _NONE else float(text)
