"""What an endpoint is made from, exactly as it was asked for, kept in the bucket under its own hash.

Tags replace characters and cut values off, so the tags of an endpoint and of its model only name a blueprint. The
endpoint's names the one that it was deployed with last, which any machine can go on with; the model's names the one
that the servers in use were made from, which an update that was undone leaves as it was.
"""

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.contract.command_line import command
from orchestrator.contract.footprint import ModelSize
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.sagemaker.names import hash_of
from orchestrator.errors import EndpointError, MissingError
from orchestrator.requests import Request
from orchestrator.storage import Store

_PREFIX = "endpoints/blueprints/"


class ServedBase(BaseModel):
    """A base model as it lies in the bucket: all that an update needs of it, on machines that never had its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """How servers call it in messages: of a folder its name alone, and not where it lies."""
    uri: str
    """Where its files are."""
    bytes: int
    """Size of its files."""
    weights_sha256: str | None
    """Hash of its weights; None for one of the Hub."""
    size: ModelSize | None
    """Its figures that memory depends on; None when unknown."""
    resolution: int
    """Side in pixels of the images that memory is planned for."""


class Blueprint(BaseModel):
    """All that a deployment was to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment: Deployment
    """What was asked for, in the words that were typed."""
    base: ServedBase
    """The base model."""
    components: tuple[Request, ...] = ()
    """The CreateInferenceComponent requests, that of the base model first."""

    @property
    def sha256(self) -> str:
        """Hash of its content, by which tags name it."""
        return hash_of(self.model_dump(mode="json"))


class Blueprints:
    """The blueprints of a bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Blueprint] = {}
        """By their hashes, so that a wait reads each once."""

    def keep(self, blueprint: Blueprint) -> None:
        """Store a blueprint. Idempotent."""
        value = blueprint.model_dump(mode="json")
        self._store.put_json(_name(blueprint.sha256), value, new=True)

    def find(self, sha256: str) -> Blueprint | None:
        """Return a blueprint, verified by its hash; None when it is gone or was changed."""
        if sha256 in self._known:
            return self._known[sha256]
        try:
            blueprint = Blueprint.model_validate(self._store.get_json(_name(sha256)))
        except (MissingError, ValidationError):
            return None
        if blueprint.sha256 != sha256:
            return None
        self._known[sha256] = blueprint
        return blueprint

    def require(self, sha256: str, endpoint: str) -> Blueprint:
        """Return the blueprint of an endpoint; raises EndpointError when it is gone or was changed."""
        blueprint = self.find(sha256)
        if blueprint is None:
            raise EndpointError(
                f"What the endpoint {endpoint} was made from is not in the bucket any more.",
                next_step=command("deploy", endpoint, "--help"),
            )
        return blueprint


def _name(sha256: str) -> str:
    return f"{_PREFIX}{sha256}.json"
