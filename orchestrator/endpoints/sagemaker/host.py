"""Endpoints of SageMaker.

Nothing is kept on this machine: endpoints, what was asked for and when they end are read from the service and its tags,
so that every machine with access sees the same, and can delete them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from orchestrator.adapters.registry import Report
from orchestrator.aws.client import Aws
from orchestrator.contract.command_line import command
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.hosts import Answer, Contents, DeploymentPlan, EndpointDescription, EndpointStatus
from orchestrator.endpoints.names import HostName, Mode
from orchestrator.endpoints.sagemaker.blueprint import Blueprints
from orchestrator.endpoints.sagemaker.contents import contents_of
from orchestrator.endpoints.sagemaker.deploying import Deployer
from orchestrator.endpoints.sagemaker.description import Describer, ForeignEndpointError, Found
from orchestrator.endpoints.sagemaker.hosted import CONFIG, ENDPOINT, Hosted
from orchestrator.endpoints.sagemaker.inputs import Inputs
from orchestrator.endpoints.sagemaker.invocation import Invoker
from orchestrator.endpoints.sagemaker.logs import log_lines
from orchestrator.endpoints.sagemaker.names import base_component
from orchestrator.endpoints.sagemaker.plan import EndpointPlan, plan_endpoint
from orchestrator.endpoints.sagemaker.preconditions import Preconditions
from orchestrator.endpoints.sagemaker.removal import Removal
from orchestrator.endpoints.sagemaker.scaler import Scaler
from orchestrator.endpoints.sagemaker.tags import Record
from orchestrator.errors import AccountError, EndpointError, OrchestratorError, ServiceError, SpecError
from orchestrator.infra.registry import by_digest, describe_image, parse_image
from orchestrator.planning.hosting import find_hosting
from orchestrator.planning.memory import serving_estimate
from orchestrator.settings import AwsSettings, Settings
from orchestrator.storage import Progress, S3Store, Store

POLL_SECONDS = 10.0
_CHANGING = (EndpointStatus.CREATING, EndpointStatus.UPDATING)


def _ignore(error: OrchestratorError) -> None:
    """Report nothing."""


class SageMakerHost:
    """Runs endpoints on instances of the account."""

    name = HostName.SAGEMAKER

    def __init__(
        self,
        settings: Settings,
        progress: Progress | None = None,
        *,
        report: Report = _ignore,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read the account's settings; raises AccountError before `infra up`."""
        self._settings = settings
        self._account = settings.account()
        self._aws = Aws(self._account.region)
        self._store: Store = S3Store(
            self._aws,
            self._account.bucket,
            self._account.account_id,
            progress=progress,
        )
        self._report = report
        self._sleep = sleep
        self._hosted = Hosted(self._aws)
        self._scaler = Scaler(self._aws)
        blueprints = Blueprints(self._store)
        self._describer = Describer(self._aws, self._hosted, self._store, blueprints, now)
        self._removal = Removal(
            self._aws,
            self._hosted,
            self._scaler,
            self._describer,
            now,
            self._pause,
        )
        self._deployer = Deployer(
            self._hosted,
            self._scaler,
            self._describer,
            self._removal,
            blueprints,
            Preconditions(self._aws, self._account, report),
        )
        self._invoker = Invoker(self._aws, self._hosted, self._store, self._pause)
        self._records: dict[str, Record] = {}
        """Of endpoints that this process has called: their modes do not change."""

    def plan(self, deployment: Deployment, *, keeps_base: bool = False) -> EndpointPlan:
        """Check a deployment and return what it will create; creates nothing, and fetches adapters of the bucket.

        With `keeps_base` the base model is that of the endpoint, in the bucket; this machine need not have its folder.
        """
        kept = None
        if keeps_base:
            found = self._describer.require(deployment.name)
            kept = self._describer.blueprint(found).base
        inputs = Inputs(self._settings, self._account, self._store)
        artifacts = inputs.gather(deployment, kept)
        base = artifacts.base
        memory = serving_estimate(base.size, deployment.slots, base.resolution)
        hosting = find_hosting(memory, deployment.instance_type, self._account.region)
        return plan_endpoint(
            deployment,
            artifacts,
            hosting,
            self._pinned_account(),
        )

    def deploy(self, plan: DeploymentPlan) -> EndpointDescription:
        """Create an endpoint, or update the one of that name; returns once that has begun.

        What needs an endpoint in service, `wait_until_in_service` does, or this when it is called again.
        """
        if not isinstance(plan, EndpointPlan):
            raise TypeError("this plan is of another host")

        def store_trees() -> None:
            for tree in plan.trees:
                self._store.put_tree(tree)

        name = plan.deployment.name
        self._deployer.begin(plan, store_trees)
        self._deployer.advance(self._describer.require(name))
        return self.describe(name)

    def wait_until_in_service(self, name: str, seconds: float) -> EndpointDescription:
        """Wait until an endpoint is no longer created or updated, `seconds` at most, and describe it."""
        waited = 0.0
        while True:
            found = self._describer.require(name)
            if found.status not in _CHANGING or waited >= seconds:
                is_done = self._deployer.advance(found)
                described = self.describe(name)
                # The base may come into service between the two calls, when its adapters are not created yet.
                serves_part = described.status is EndpointStatus.IN_SERVICE and not is_done
                is_under_way = described.status in _CHANGING or serves_part
                if not is_under_way or waited >= seconds:
                    return described
            waited += self._pause()

    def describe(self, name: str) -> EndpointDescription:
        """Return what is known of an endpoint; raises EndpointError when there is none."""
        return self._describer.describe(self._describer.require(name))

    def summaries(self) -> Iterator[EndpointDescription | OrchestratorError]:
        """Yield every endpoint that this program has deployed, the oldest first; an error for an unreadable one."""
        for one in list(self._hosted.listed(ENDPOINT)):
            try:
                found = self._describer.find(one.name)
                if found is not None:
                    yield self._describer.describe(found)
            except ForeignEndpointError:
                continue
            except OrchestratorError as error:
                yield error

    def deployment(self, name: str) -> Deployment:
        """Return what was asked for when an endpoint was deployed or changed last."""
        return self._describer.deployment(self._describer.require(name))

    def contents(self, name: str) -> Contents:
        """Return what an endpoint draws with, by its model and its components."""
        return contents_of(self._describer.require(name), self._hosted, self._store)

    def invoke(
        self,
        name: str,
        body: bytes,
        accept: str,
    ) -> Answer:
        """Send a body of `/invocations` and return the answer."""
        if name not in self._records:
            self._records[name] = self._describer.require(name).record
        return self._invoker.invoke(self._records[name], body, accept)

    def scale(
        self,
        name: str,
        fewest: int,
        most: int,
    ) -> None:
        """Change the numbers of instances of an endpoint in service; raises SpecError beyond what its lease allows."""
        found = self._describer.require(name)
        if found.status is not EndpointStatus.IN_SERVICE:
            raise EndpointError(
                f"The endpoint {name} is {found.described['EndpointStatus']}; only one in service can be scaled.",
                next_step=command("endpoints", "show", name),
            )
        statuses = {one.name: one.status for one in self._describer.components(found.record)}
        if found.record.mode is Mode.COMPONENTS and statuses.get(base_component(name)) != "InService":
            raise EndpointError(
                f"The base model of the endpoint {name} is not in service yet; only then can it be scaled.",
                next_step=command("endpoints", "gc"),
            )
        self._require_scalable(found, fewest, most)
        record = found.record.model_copy(update={"fewest": fewest, "most": most})
        self._hosted.add_tags(found.described["EndpointArn"], record.tags())
        self._deployer.scale(Found(found.described, record))

    def delete(self, name: str, *, keep_logs: bool = False) -> Sequence[str]:
        """Delete an endpoint and everything that was created for it; return what is gone. Idempotent."""
        self._records.pop(name, None)
        return self._removal.delete(name, keep_logs=keep_logs)

    def collect(self) -> Sequence[str]:
        """Delete endpoints whose lease has ended, and what deployments that were interrupted left; return both."""
        gone: list[str] = []
        for one in self.summaries():
            if isinstance(one, OrchestratorError):
                self._report(one)
                continue
            if not one.expired or one.status is EndpointStatus.DELETING:
                continue
            try:
                gone += self.delete(one.name)
            except OrchestratorError as error:  # the others are billed as long as they are there
                self._report(error)
        gone += self._removal.leftovers()
        return gone

    def finish(self) -> Sequence[EndpointDescription]:
        """Go on with deployments that nobody waited for, as far as it goes now; return where each of them stands."""
        advanced = []
        for one in list(self._hosted.listed(ENDPOINT)):
            try:
                found = self._describer.find(one.name)
                if found is None or found.record.is_finished:
                    continue
                self._deployer.advance(found)
                advanced.append(self.describe(one.name))
            except ForeignEndpointError:
                continue
            except OrchestratorError as error:  # the others are billed as long as they do not scale to nothing
                self._report(error)
        return advanced

    def log_lines(self, name: str, *, follow: bool) -> Iterator[str]:
        """Yield what its servers logged; with `follow`, go on until interrupted."""
        found = self._describer.require(name)
        pause = self._pause if follow else None
        yield from log_lines(
            self._aws,
            found.record,
            found.described["CreationTime"],
            pause,
        )

    def _pinned_account(self) -> AwsSettings:
        """Return the account with the digest of the image of endpoints in place of its tag, where that can be asked.

        Reports nothing: what keeps an endpoint from starting, the preconditions say before anything is created.
        """
        image = parse_image(self._account.inference_image or "")
        if image is None or image.region != self._account.region:
            return self._account
        try:
            details = describe_image(self._aws, image)
        except (AccountError, ServiceError):
            return self._account
        pinned = by_digest(image, details or {})
        return self._account.model_copy(update={"inference_image": pinned})

    def _pause(self) -> float:
        self._sleep(POLL_SECONDS)
        return POLL_SECONDS

    def _require_scalable(
        self,
        found: Found,
        fewest: int,
        most: int,
    ) -> None:
        """Raise SpecError for numbers that the endpoint's mode, its configuration or its lease does not allow."""
        record = found.record
        what = ""
        config = self._hosted.find(CONFIG, found.described["EndpointConfigName"]) or {}
        variant = config.get("ProductionVariants", [{}])[0]
        allowed = variant.get("ManagedInstanceScaling", {}).get("MaxInstanceCount", most)
        if not 0 <= fewest <= most or most < 1:
            what = f"{fewest} to {most} instances are no range"
        elif fewest == 0 and record.mode is Mode.REALTIME:
            what = "only the modes async and components scale to zero"
        elif most > allowed:
            what = f"it was deployed for {allowed} instances at most; deploy it again with more"
        if what:
            raise SpecError(
                f"The endpoint {record.name} cannot be scaled: {what}. Nothing was changed.",
                next_step=command("endpoints", "scale", "--help"),
            )
        hosting = find_hosting(None, variant.get("InstanceType"), self._account.region)
        hosting.require_affordable(most, record.lease.max_usd_per_day)
