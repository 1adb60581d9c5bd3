"""What the tags of an endpoint say: what was asked for and when it ends, for every machine of a team."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.endpoints.deployment import Deployment, Lease
from orchestrator.endpoints.names import Mode
from orchestrator.requests import ENDPOINT_TAG, OWNER_TAG, tag

DEPLOYMENT_TAG = "orchestrator:deployment"
"""Hash of what was created."""
BLUEPRINT_TAG = "orchestrator:blueprint"
"""Of an endpoint and of its models: hash of the blueprint that they were made from."""
ADAPTER_TAG = "orchestrator:adapter"
"""Of an adapter component: the name of its adapter."""
_MODE = "orchestrator:mode"
_BASE_MODEL = "orchestrator:base-model"
_FEWEST = "orchestrator:fewest-instances"
_MOST = "orchestrator:most-instances"
_TTL = "orchestrator:ttl-seconds"
_IDLE = "orchestrator:idle-seconds"
_DOLLARS = "orchestrator:max-usd-per-day"
_FINISHED = "orchestrator:finished"

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
    """Its base model for people who read tags: with other characters, and of a folder its name alone."""
    blueprint: str
    """Hash of the blueprint that it was deployed with last."""
    finished: str | None = None
    """Hash of the last blueprint that it was brought to; None before its first deployment has ended."""
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
        base_model: str,
        blueprint: str,
    ) -> Self:
        """Return the record of a deployment."""
        return cls(
            name=deployment.name,
            owner=owner,
            mode=deployment.mode,
            base_model=base_model,
            blueprint=blueprint,
            fewest=deployment.fewest_instances,
            most=deployment.most_instances,
            lease=deployment.lease,
        )

    @property
    def is_finished(self) -> bool:
        """Whether all that was asked for last was brought about."""
        return self.finished == self.blueprint

    def tags(self) -> Tags:
        """Return the record as tags; an absent limit has the value "none", so that all of them are replaced at once.

        What was finished is left out: only `finished_tags` says that.
        """
        values = {
            ENDPOINT_TAG: self.name,
            OWNER_TAG: self.owner,
            _MODE: self.mode,
            _BASE_MODEL: self.base_model,
            BLUEPRINT_TAG: self.blueprint,
            _FEWEST: self.fewest,
            _MOST: self.most,
            _TTL: _limit(self.lease.ttl_seconds),
            _IDLE: _limit(self.lease.idle_seconds),
            _DOLLARS: _limit(self.lease.max_usd_per_day),
        }
        return [tag(key, str(value)) for key, value in values.items()]

    def finished_tags(self) -> Tags:
        """Return the tags of an endpoint whose deployment has ended."""
        return [tag(_FINISHED, self.blueprint)]


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
            blueprint=tags[BLUEPRINT_TAG],
            finished=tags.get(_FINISHED),
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
