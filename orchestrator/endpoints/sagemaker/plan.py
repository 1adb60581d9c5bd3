"""Plan an endpoint: its requests, and the trees it reads, which are not stored yet. Makes no call."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.command_line import command
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.leases import duration_text
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.artifacts import ARCHIVE_FILE
from orchestrator.endpoints.sagemaker.blueprint import Blueprint, ServedBase
from orchestrator.endpoints.sagemaker.requests import (
    Context,
    Sources,
    adapter_component_request,
    base_component_request,
    config_request,
    endpoint_request,
    model_request,
)
from orchestrator.endpoints.sagemaker.scaling import scales
from orchestrator.endpoints.sagemaker.tags import BLUEPRINT_TAG, Record
from orchestrator.errors import AccountError
from orchestrator.planning.hosting import Hosting
from orchestrator.requests import Request, tag
from orchestrator.settings import AwsSettings, owner
from orchestrator.storage.tree import Tree
from orchestrator.storage.uris import s3_uri

_UP = command("infra", "up")


class Artifacts(BaseModel):
    """The files of an endpoint, as trees."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Tree
    """The order and the adapters that it names."""
    base_model: Tree | None
    """The base model; None for one that is in the bucket."""
    base: ServedBase
    """Where the base model is or will be, and what is known of it."""
    code: Tree
    """The bundle of the server."""
    archives: Mapping[str, Tree] = {}
    """By the name of each adapter that becomes a component: its archive."""
    adapters: Mapping[str, str] = {}
    """By the same names: the hash of the adapter's files."""

    @property
    def stored(self) -> tuple[Tree, ...]:
        """All trees that have to be in the bucket."""
        trees = [self.model, self.code, *self.archives.values()]
        if self.base_model is not None:
            trees.append(self.base_model)
        return tuple(trees)


class EndpointPlan(BaseModel):
    """All that a deployment creates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment: Deployment
    """What was asked for."""
    blueprint: Blueprint
    """The same with what it takes, for whoever goes on with it; to be stored before anything is created."""
    record: Record
    """What the tags will say."""
    hosting: Hosting
    """Instance type and price."""
    model: Request
    """The CreateModel request."""
    config: Request
    """The CreateEndpointConfig request."""
    endpoint: Request
    """The CreateEndpoint request."""
    trees: tuple[Tree, ...]
    """What the endpoint reads: to be stored before anything is created."""

    @property
    def usd_per_hour(self) -> float | None:
        """Dollars per hour of its fewest instances, by the price list; None when unknown."""
        if self.hosting.usd_per_hour is None:
            return None
        return float(self.hosting.usd_per_hour * self.deployment.fewest_instances)

    @property
    def facts(self) -> Sequence[tuple[str, str]]:
        """Label and value of each fact to show."""
        deployment = self.deployment
        uploads = sum(tree.bytes for tree in self.trees)
        facts = [
            ("endpoint", f"{deployment.name} in {self.hosting.region}, {deployment.mode}"),
            ("base model", deployment.base_model),
            ("adapters", ", ".join(deployment.adapters) or "none"),
            ("instance", f"{self.hosting.instance.describe()}. {self.hosting.why}"),
            ("quota", self.hosting.quota),
            ("price", self.hosting.price_of(max(1, deployment.fewest_instances))),
        ]
        if deployment.fewest_instances == 0:
            facts.append(("price at rest", "nothing while it has no instance"))
        if scales(self.record):
            facts.append(("price at most", self.hosting.price_of(deployment.most_instances)))
        facts += [
            ("ends", _ending(self.record)),
            ("uploads", f"{uploads / 1e6:,.1f} MB, less what is there"),
            ("model", self.model["ModelName"]),
            ("configuration", self.config["EndpointConfigName"]),
        ]
        if self.blueprint.components:
            facts.append(("components", str(len(self.blueprint.components))))
        return tuple(facts)


def plan_endpoint(
    deployment: Deployment,
    artifacts: Artifacts,
    hosting: Hosting,
    account: AwsSettings,
) -> EndpointPlan:
    """Return the plan of a deployment.

    Raises AccountError when the account lacks something, and SpecError when the endpoint would cost too much.
    """
    _require_ready(account)
    hosting.require_affordable(deployment.most_instances, deployment.lease.max_usd_per_day)
    record = Record.of(
        deployment,
        owner(),
        artifacts.base.name,
        blueprint="",
    )
    context = Context(account=account, hosting=hosting, record=record)
    sources = _sources(artifacts, account)
    model = model_request(deployment, sources, context)
    config = config_request(
        deployment,
        model,
        sources,
        context,
    )
    components: list[Request] = []
    if deployment.mode is Mode.COMPONENTS:
        components.append(base_component_request(model, sources, context))
        components += _adapter_components(artifacts, account, record)
    blueprint = Blueprint(
        deployment=deployment,
        base=artifacts.base,
        components=tuple(components),
    )
    model["Tags"].append(tag(BLUEPRINT_TAG, blueprint.sha256))
    record = record.model_copy(update={"blueprint": blueprint.sha256})
    return EndpointPlan(
        deployment=deployment,
        blueprint=blueprint,
        record=record,
        hosting=hosting,
        model=model,
        config=config,
        endpoint=endpoint_request(config, record),
        trees=artifacts.stored,
    )


def _sources(artifacts: Artifacts, account: AwsSettings) -> Sources:
    return Sources(
        model=s3_uri(account.bucket, artifacts.model.name),
        base_model=artifacts.base.uri,
        code=s3_uri(account.bucket, artifacts.code.name),
        bytes=artifacts.model.bytes + artifacts.base.bytes + artifacts.code.bytes,
    )


def _adapter_components(
    artifacts: Artifacts,
    account: AwsSettings,
    record: Record,
) -> list[Request]:
    requests = []
    for adapter, tree in artifacts.archives.items():
        uri = s3_uri(account.bucket, f"{tree.name}{ARCHIVE_FILE}")
        sha256 = artifacts.adapters[adapter]
        requests.append(adapter_component_request(adapter, sha256, uri, record))
    return requests


def _require_ready(account: AwsSettings) -> None:
    missing = []
    if account.inference_image is None:
        missing.append("an image for endpoints")
    if account.endpoint_role_arn is None:
        missing.append("a role for endpoints")
    if missing:
        raise AccountError(f"The account has no {' and no '.join(missing)}. Nothing was created.", next_step=_UP)


def _ending(record: Record) -> str:
    """Return when an endpoint ends by itself, as text."""
    ends = []
    if record.lease.ttl_seconds is not None:
        ends.append(f"{duration_text(record.lease.ttl_seconds)} after its creation")
    if record.lease.idle_seconds is not None:
        ends.append(f"{duration_text(record.lease.idle_seconds)} after its last request")
    if not ends:
        return f"never; billed until it is deleted: {command('endpoints', 'delete', record.name)}"
    return f"{' or '.join(ends)}, when somebody runs: {command('endpoints', 'gc')}"
