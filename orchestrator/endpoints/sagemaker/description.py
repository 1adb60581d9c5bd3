"""What is known of an endpoint, from its tags and from what the service says of it."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.aws.client import Aws
from orchestrator.aws.errors import CAPACITY_WORDS
from orchestrator.aws.instances import instances, price
from orchestrator.contract.command_line import command
from orchestrator.contract.serving import ORDER_FILE, ServerOrder
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.finding import NoEndpointError
from orchestrator.endpoints.hosts import EndpointDescription, EndpointStatus
from orchestrator.endpoints.leases import why_expired
from orchestrator.endpoints.names import HostName, Mode
from orchestrator.endpoints.sagemaker.hosted import (
    COMPONENT,
    CONFIG,
    ENDPOINT,
    LIST,
    MODEL,
    Hosted,
    Summary,
    configuration_of,
    model_of_component,
)
from orchestrator.endpoints.sagemaker.names import base_component
from orchestrator.endpoints.sagemaker.tags import ADAPTER_TAG, Record, read_record
from orchestrator.endpoints.sagemaker.usage import last_used
from orchestrator.errors import AccountError, EndpointError, MissingError, ServiceError
from orchestrator.storage import Store

Now = Callable[[], datetime]

_STATUSES = {
    "OutOfService": EndpointStatus.FAILED,
    "SystemUpdating": EndpointStatus.UPDATING,
    "RollingBack": EndpointStatus.UPDATING,
    "UpdateRollbackFailed": EndpointStatus.FAILED,
}
"""Those of the service that we call otherwise."""


class Found(NamedTuple):
    """An endpoint that this program has deployed."""

    described: Any
    """DescribeEndpoint's answer."""
    record: Record
    """What its tags say."""

    @property
    def status(self) -> EndpointStatus:
        """Its status."""
        text = self.described["EndpointStatus"]
        return _STATUSES.get(text) or EndpointStatus(text)


class Use(NamedTuple):
    """When an endpoint was called."""

    last: datetime | None
    """The last time; None when it was not, and when that is not known."""
    idle_since: datetime | None
    """The last time, or when it came in service; None before that and when it is not known: it is not deleted then."""


class Describer:
    """Reads what there is of endpoints."""

    def __init__(
        self,
        aws: Aws,
        hosted: Hosted,
        store: Store,
        now: Now,
    ) -> None:
        self._aws = aws
        self._hosted = hosted
        self._store = store
        self._now = now

    def find(self, name: str) -> Found | None:
        """Return an endpoint, or None when there is none; raises EndpointError for one of another program."""
        described = self._hosted.find(ENDPOINT, name)
        if described is None:
            return None
        record = read_record(self._hosted.tags(described["EndpointArn"]))
        if record is None:
            raise EndpointError(
                f"The endpoint {name} was not deployed with orchestrator; it was left as it is.",
                next_step=LIST,
            )
        if record.name != name:
            raise EndpointError(
                f'There is an endpoint "{record.name}"; names of endpoints differ in more than capital letters.',
                next_step=LIST,
            )
        return Found(described, record)

    def require(self, name: str) -> Found:
        """Return an endpoint; raises EndpointError when there is none."""
        found = self.find(name)
        if found is None:
            raise NoEndpointError(f'There is no endpoint "{name}" in {self._aws.region}.', next_step=LIST)
        return found

    def describe(self, found: Found) -> EndpointDescription:
        """Return all that is known of an endpoint."""
        record, described = found.record, found.described
        components = self.components(record)
        config = self._hosted.find(CONFIG, described["EndpointConfigName"]) or {}
        variants = config.get("ProductionVariants", [{}])
        instance_type = variants[0].get("InstanceType")
        running = _instances(described)
        created = described["CreationTime"]
        use = self._use(found, components)
        status, reason = self._state(found, components)
        return EndpointDescription(
            name=record.name,
            host=HostName.SAGEMAKER,
            mode=record.mode,
            status=status,
            base_model=record.base_model,
            adapters=self._adapters(record, variants[0].get("ModelName"), components),
            created=created,
            lease=record.lease,
            last_used=use.last,
            expired=why_expired(
                record.lease,
                created,
                use.idle_since,
                self._now(),
            ),
            failure_reason=reason,
            next_step=_next_step(
                record,
                status,
                reason,
                components,
            ),
            region=self._aws.region,
            instance_type=instance_type,
            instances=running,
            usd_per_hour=_usd_per_hour(instance_type, self._aws.region, running),
        )

    def _use(self, found: Found, components: Sequence[Summary]) -> "Use":
        """Return when an endpoint was called; a description is worth more than an error of CloudWatch's."""
        created = found.described["CreationTime"]
        names = [one.name for one in components]
        try:
            used = last_used(
                self._aws,
                found.record.name,
                names,
                created,
                self._now(),
            )
        except (AccountError, ServiceError):
            return Use(None, None)
        if found.status in (EndpointStatus.CREATING, EndpointStatus.UPDATING):  # nobody can be expected to call it
            return Use(used, None)
        served = found.described["LastModifiedTime"]  # when it came in service, or was changed last
        return Use(used, max(used or created, served))

    def components(self, record: Record) -> list[Summary]:
        """Return the inference components of an endpoint; none in other modes."""
        if record.mode is not Mode.COMPONENTS:
            return []
        return self._hosted.components_of(record.name)

    def _state(
        self,
        found: Found,
        components: Sequence[Summary],
    ) -> tuple[EndpointStatus, str | None]:
        """Return the status of an endpoint with its components, and why it failed."""
        reason = found.described.get("FailureReason") or None
        if found.status is not EndpointStatus.IN_SERVICE or found.record.mode is not Mode.COMPONENTS:
            return found.status, reason
        base = base_component(found.record.name)
        for one in components:
            if one.status == "Failed":
                described = self._hosted.find(COMPONENT, one.name) or {}
                why = described.get("FailureReason") or "no reason was given"
                return EndpointStatus.FAILED, f"The component {one.name} failed: {why}"
        states = {one.name: one.status for one in components}
        if states.get(base) == "Updating":
            return EndpointStatus.UPDATING, reason
        if states.get(base) != "InService" or "Creating" in states.values():
            return EndpointStatus.CREATING, reason
        return EndpointStatus.IN_SERVICE, reason

    def _adapters(
        self,
        record: Record,
        model: str | None,
        components: Sequence[Summary],
    ) -> tuple[str, ...]:
        """Return the names of an endpoint's adapters, by its components or by the order that its server reads."""
        names = set()
        if record.mode is Mode.COMPONENTS:
            for one in components:
                adapter = self._hosted.tags(one.arn).get(ADAPTER_TAG)
                if adapter is not None:
                    names.add(adapter)
            return tuple(sorted(names))
        if not record.adapters or model is None:
            return ()
        order = self._order(model)
        return () if order is None else tuple(order.adapters)

    def deployment(self, found: Found) -> Deployment:
        """Return what was asked for when an endpoint was deployed or changed last."""
        record = found.record
        config = self._hosted.find(CONFIG, configuration_of(found.described)) or {}
        variant = config.get("ProductionVariants", [{}])[0]
        components = self.components(record)
        model = variant.get("ModelName")
        if model is None and components:
            base = self._hosted.find(COMPONENT, base_component(record.name)) or {}
            model = model_of_component(base)
        order = None if model is None else self._order(model)
        if order is None:
            raise EndpointError(
                f"What the endpoint {record.name} was made from is not in the bucket any more.",
                next_step=command("deploy", record.name, "--help"),
            )
        return Deployment(
            name=record.name,
            host=HostName.SAGEMAKER,
            mode=record.mode,
            base_model=record.base_model,
            base_revision=order.base_revision,
            adapters=self._adapters(record, model, components),
            instance_type=variant.get("InstanceType"),
            fewest_instances=record.fewest,
            most_instances=record.most,
            slots=order.slots,
            most_waiting=order.most_waiting,
            safety_checker=order.safety_checker,
            lease=record.lease,
        )

    def _order(self, model: str) -> ServerOrder | None:
        """Return the order that the servers of a model read; None when it is gone."""
        described = self._hosted.find(MODEL, model)
        if described is None:
            return None
        uri = described["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]["S3Uri"]
        try:
            text = self._store.get_bytes(self._store.name(f"{uri}{ORDER_FILE}"))
            return ServerOrder.model_validate_json(text)
        except (MissingError, ValidationError):
            return None


def _instances(described: Any) -> int | None:
    counts = [one.get("CurrentInstanceCount") for one in described.get("ProductionVariants", [])]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _usd_per_hour(
    instance_type: str | None,
    region: str,
    running: int | None,
) -> float | None:
    known = instances().get(instance_type or "")
    listed = None if known is None else price(known, region)
    if listed is None or running is None:
        return None
    return float(listed.usd_per_hour * Decimal(running))


def _next_step(
    record: Record,
    status: EndpointStatus,
    reason: str | None,
    components: Sequence[Summary],
) -> str | None:
    """Return the next command for an endpoint that failed or is incomplete."""
    if status is EndpointStatus.FAILED and re.search(CAPACITY_WORDS, reason or "", re.IGNORECASE):
        delete = command("endpoints", "delete", record.name)
        return f"{delete}  # then deploy it again, with another --instance-type or later"
    if status is EndpointStatus.FAILED:
        logs, delete = (
            command(
                "endpoints",
                "logs",
                record.name,
            ),
            command(
                "endpoints",
                "delete",
                record.name,
            ),
        )
        return f"{logs}  # says why; then: {delete}"
    if status is EndpointStatus.IN_SERVICE and reason is not None:  # an update was undone
        return command("endpoints", "logs", record.name)
    if record.mode is Mode.COMPONENTS and status is not EndpointStatus.DELETING and len(components) <= record.adapters:
        return "deploy it again with the same words: its deployment was interrupted"
    return None
