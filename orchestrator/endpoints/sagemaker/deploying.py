"""Bring an account to what a plan says, step by step; each step finds what an earlier attempt has done.

A new endpoint takes minutes. What needs it in service (components, the range that it scales in, the deletion of what
it had before) follows then, in `advance`, which any machine can call as often as it likes: the blueprint in the bucket
says what is wanted.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from orchestrator.contract.command_line import command
from orchestrator.endpoints.hosts import EndpointStatus
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.blueprint import Blueprints
from orchestrator.endpoints.sagemaker.description import Describer, Found
from orchestrator.endpoints.sagemaker.hosted import (
    COMPONENT,
    CONFIG,
    ENDPOINT,
    MODEL,
    Hosted,
    Summary,
    configuration_of,
    model_of_component,
    status_of,
)
from orchestrator.endpoints.sagemaker.names import VARIANT, base_component, error_alarm, wake_alarm
from orchestrator.endpoints.sagemaker.plan import EndpointPlan
from orchestrator.endpoints.sagemaker.preconditions import Preconditions
from orchestrator.endpoints.sagemaker.removal import Removal
from orchestrator.endpoints.sagemaker.requests import update_request
from orchestrator.endpoints.sagemaker.scaler import Scaler
from orchestrator.endpoints.sagemaker.scaling import scales
from orchestrator.errors import AccountError, EndpointError, OrchestratorError, SpecError
from orchestrator.requests import Request

_CHANGING = (EndpointStatus.CREATING, EndpointStatus.UPDATING)


class Deployer:
    """Creates and updates endpoints."""

    def __init__(
        self,
        hosted: Hosted,
        scaler: Scaler,
        describer: Describer,
        removal: Removal,
        blueprints: Blueprints,
        preconditions: Preconditions,
    ) -> None:
        self._hosted = hosted
        self._scaler = scaler
        self._describer = describer
        self._removal = removal
        self._blueprints = blueprints
        self._preconditions = preconditions

    def begin(self, plan: EndpointPlan, store_trees: Callable[[], None]) -> None:
        """Create an endpoint, or begin to update the one of that name. Idempotent.

        Raises EndpointError while it is being changed, and for one of another program or another mode.
        """
        name = plan.deployment.name
        found = self._describer.find(name)
        if found is not None:
            _require_changeable(found, plan)
        wanted = plan.config["EndpointConfigName"]
        starts_instances = found is None or configuration_of(found.described) != wanted
        if starts_instances:
            self._preconditions.check(plan)
        store_trees()
        self._blueprints.keep(plan.blueprint)
        try:
            self._hosted.create(MODEL, plan.model)
            self._hosted.create(CONFIG, plan.config)
            if found is None:
                self._hosted.create(ENDPOINT, plan.endpoint)
        except (AccountError, SpecError):
            if found is None:
                self._take_back(plan)
            raise
        if found is None:
            return
        if configuration_of(found.described) != wanted:
            self._update(plan, found)
        self._hosted.add_tags(found.described["EndpointArn"], plan.record.tags())
        if found.record.mode is Mode.COMPONENTS:
            self._remove_failed(name)

    def advance(self, found: Found) -> bool:
        """Do what can be done only once an endpoint is in service; return whether nothing is left to do. Idempotent.

        Raises EndpointError when the blueprint of its components is gone.
        """
        record = found.record
        if found.status is not EndpointStatus.IN_SERVICE:
            return False
        wanted: Sequence[Request] = ()
        if record.mode is Mode.COMPONENTS:
            blueprint = self._blueprints.require(record.blueprint, record.name)
            base, *adapters = blueprint.components
            if not self._base(base):
                return False
            self._add_adapters(record.name, adapters)
            wanted = (base, *adapters)
        # Not after all adapters are ready: one that fails must keep no instance from being given back.
        self.scale(found)
        if record.mode is Mode.COMPONENTS and not self._replace_components(record.name, wanted):
            return False
        self._removal.delete_replaced(found)
        self._scaler.delete_alarms([error_alarm(record.name)])  # an update has ended, if there was one
        if not record.is_finished:
            self._hosted.add_tags(found.described["EndpointArn"], record.finished_tags())
        return True

    def scale(self, found: Found) -> None:
        """Bring the number of instances of an endpoint in service to what its record says. Idempotent."""
        record = found.record
        if record.fewest and record.mode is not Mode.REALTIME:  # it needs no waking
            self._scaler.delete_alarms([wake_alarm(record.name)])
        if scales(record):
            self._scaler.scale(record)
            return
        self._scaler.stop(record)
        if record.mode is Mode.COMPONENTS:
            name = base_component(record.name)
            component = self._hosted.find(COMPONENT, name) or {}
            running = component.get("RuntimeConfig", {})
            copies = running.get("DesiredCopyCount")
            if copies not in {None, record.most}:
                self._hosted.set_copies(name, record.most)
            return
        instances = _desired(found.described)
        if instances not in {None, record.most}:
            self._hosted.set_instances(record.name, VARIANT, record.most)

    def _update(self, plan: EndpointPlan, found: Found) -> None:
        self._scaler.watch_for_errors(plan.record)
        scaled_before = scales(found.record)
        scales_then = scales(plan.record)
        request = update_request(
            plan.deployment.name,
            plan.config["EndpointConfigName"],
            plan.deployment.mode,
            scales=scaled_before and scales_then,
        )
        self._hosted.update_endpoint(request)

    def _take_back(self, plan: EndpointPlan) -> None:
        """Delete what was created before the refusal of an endpoint, unless somebody else has it in use by now."""
        try:
            if self._hosted.find(ENDPOINT, plan.deployment.name) is None:
                self._hosted.delete(CONFIG, plan.config["EndpointConfigName"])
                self._hosted.delete(MODEL, plan.model["ModelName"])
        except OrchestratorError:  # why it was refused matters more; nothing of it is billed, and `gc` finds it
            pass

    def _remove_failed(self, name: str) -> None:
        """Delete the components that failed, so that a new deployment tries them again; with a base all on it."""
        components = self._hosted.components_of(name)
        failed = []
        for one in components:
            if one.status == "Failed":
                failed.append(one.name)
        if base_component(name) in failed:
            failed = [one.name for one in components]
        self._removal.components(name, failed)

    def _add_adapters(self, name: str, adapters: Sequence[Request]) -> None:
        """Create the components of adapters that are not there."""
        existing = set()
        for one in self._hosted.components_of(name):
            existing.add(one.name)
        for request in adapters:
            if request["InferenceComponentName"] not in existing:
                self._hosted.create(COMPONENT, request)

    def _replace_components(self, name: str, wanted: Sequence[Request]) -> bool:
        """Delete the components that are not wanted once those that are serve; return whether they do."""
        names = set()
        for request in wanted:
            names.add(request["InferenceComponentName"])
        existing = {}
        for one in self._hosted.components_of(name):
            existing[one.name] = one
        if not _are_ready(names, existing):
            return False
        unwanted = existing.keys() - names
        self._removal.components(name, unwanted)
        return True

    def _base(self, request: Request) -> bool:
        """Bring the base model's component to a request; return whether it is in service."""
        name = request["InferenceComponentName"]
        described = self._hosted.find(COMPONENT, name)
        if described is None:
            self._hosted.create(COMPONENT, request)
            return False
        if status_of(described) != "InService":
            return False
        if model_of_component(described) == request["Specification"]["ModelName"]:
            return True
        changed = {"InferenceComponentName": name, "Specification": request["Specification"]}
        self._hosted.update_component(changed)
        return False


def _require_changeable(found: Found, plan: EndpointPlan) -> None:
    """Raise EndpointError for an endpoint that cannot become what is planned, or not now."""
    name = plan.deployment.name
    if found.status is EndpointStatus.DELETING:
        raise EndpointError(
            f"The endpoint {name} is being deleted, which takes a few minutes; nothing was done.",
            next_step="deploy it again then",
        )
    if found.record.mode is not plan.deployment.mode:
        raise EndpointError(
            f"The endpoint {name} has the mode {found.record.mode}, which an update cannot change.",
            next_step=command("endpoints", "delete", name),
        )
    is_same = configuration_of(found.described) == plan.config["EndpointConfigName"]
    if found.status in _CHANGING and not is_same:
        raise EndpointError(
            f"The endpoint {name} is being changed ({found.described['EndpointStatus']}); nothing was done.",
            next_step=f"{command('endpoints', 'show', name)}  # and deploy again when that has ended",
        )
    if found.status is EndpointStatus.FAILED:
        reason = found.described.get("FailureReason") or "no reason was given"
        raise EndpointError(
            f"The endpoint {name} failed, and cannot be updated: {reason}",
            next_step=command("endpoints", "delete", name),
        )


def _are_ready(wanted: Iterable[str], existing: dict[str, Summary]) -> bool:
    for name in wanted:
        if name not in existing:
            return False
        if existing[name].status != "InService":
            return False
    return True


def _desired(described: Any) -> int | None:
    variants = described.get("ProductionVariants", [])
    if not variants:
        return None
    count: int | None = variants[0].get("DesiredInstanceCount")
    return count
