"""The state of everything that serves, what a test may ask of it, and how it waits."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sagemaker_simulator.calls import Call
from sagemaker_simulator.clock import ManualClock, WallClock
from sagemaker_simulator.errors import invalid

from . import scaling
from .endpoint_driver import LOG_GROUP, EndpointDriver
from .faults import HostingFault
from .launch import Instances
from .records import ENDPOINT, MODEL, Endpoint, EndpointConfig, Kind, Model, Resource
from .runtime import Runtime
from .server import ModelServer
from .timeline import HostingTimeline

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator

_Kind = TypeVar("_Kind")
_PATIENCE = 300.0  # seconds of real time, for a server that loads a model on a busy machine


class Hosting:
    """Endpoints and what belongs to them."""

    def __init__(self, simulator: "SageMakerSimulator") -> None:
        self.simulator = simulator
        self.clock = simulator.clock
        own_clock = isinstance(self.clock, WallClock)
        self.timeline = HostingTimeline.immediate() if own_clock else HostingTimeline()
        self.startup_patience = 120.0
        """Seconds of real time that a container has to become healthy, even if the clock says that it is late."""
        self.invocation_seconds = 60.0
        """Of real time, for the answer to InvokeEndpoint."""
        self.streaming_seconds = 480.0
        self.payload_bytes = 25 * 2**20
        """Of a request and of an answer; the API's model says 6,291,456, the service's FAQ 25 MB."""
        self.faults: list[tuple[str | None, HostingFault]] = []
        self.drivers: dict[str, EndpointDriver] = {}
        """By ARN."""
        self.runtime = Runtime(self)
        self.invocations: Counter[tuple[str, str]] = Counter()
        """By endpoint and variant."""
        self._kept: dict[tuple[str, str, Kind], dict[str, Resource]] = defaultdict(dict)
        self._log_lines: dict[str, list[str]] = defaultdict(list)

    # What a test may ask for

    def inject(self, fault: HostingFault, name: str | None = None) -> None:
        """Let a fault befall the endpoint or component of a name, or the next that it can befall."""
        self.faults.append((name, fault))

    def endpoint(self, name: str) -> Endpoint:
        """Return an endpoint by name, of whatever account and region."""
        for driver in self.drivers.values():
            if driver.endpoint.name == name:
                return driver.endpoint
        raise KeyError(name)

    def driver(self, name: str) -> EndpointDriver:
        return self.drivers[self.endpoint(name).arn]

    def server(self, name: str, variant: str | None = None) -> ModelServer:
        """Return the container that answers for an endpoint, or for one of its variants."""
        servers = self.driver(name).servers
        return servers[variant] if variant else next(iter(servers.values()))

    def log_lines(self, name: str) -> list[str]:
        """Return what an endpoint's containers have printed."""
        return list(self._log_lines[f"{LOG_GROUP}/{name}"])

    def run_until(self, name: str, *statuses: str, seconds: float = _PATIENCE) -> Endpoint:
        """Move the clock through an endpoint's stages, and wait for its containers, until it is in a status."""
        deadline = time.monotonic() + seconds
        endpoint = self.endpoint(name)
        while endpoint.status not in statuses:
            timer = self.driver(name).next_due()
            if timer is None and not self.driver(name).is_busy:
                reason = endpoint.failure_reason or ""
                raise AssertionError(f"{name} is {endpoint.status}, never {' or '.join(statuses)}. {reason}")
            self._go_on(timer, self.driver(name), deadline)
        return endpoint

    def run_until_gone(self, name: str, seconds: float = _PATIENCE) -> None:
        """Move the clock until a deleted endpoint is gone, its containers too."""
        deadline = time.monotonic() + seconds
        driver = self.driver(name)
        while driver.endpoint.arn in self.drivers:
            self._go_on(driver.next_due(), driver, deadline)

    def _go_on(self, timer: Any, driver: EndpointDriver, deadline: float) -> None:
        if isinstance(self.clock, ManualClock) and timer is not None:
            self.clock.advance_to(max(timer.due, self.clock.now()))
            return
        endpoint = driver.endpoint
        before = (endpoint.status, driver.is_busy, driver.next_due(), endpoint.arn in self.drivers)
        self.simulator.wait_for(
            lambda: before != (endpoint.status, driver.is_busy, driver.next_due(), endpoint.arn in self.drivers),
            deadline - time.monotonic(),
        )

    # For the operations

    def kept(self, account: str, region: str, kind: Kind) -> dict[str, Resource]:
        """Return all there is of a kind, by name in lower case: names differ in more than that."""
        return self._kept[account, region, kind]

    def find(self, call: Call, kind: Kind, name: str | None = None) -> Any:
        """Return what a call names; raises ServiceError when there is none."""
        wanted = name or call.parameters[f"{kind.field}Name"]
        found = self.kept(call.account, call.region, kind).get(wanted.lower())
        if found is None:
            raise invalid(f'Could not find {kind.words} "{kind.arn(call, wanted)}".')
        return found

    def keep(self, resource: Resource) -> None:
        """Keep a new resource, with its tags; raises ServiceError when its name is taken."""
        kept = self.kept(resource.account, resource.region, resource.kind)
        if resource.name.lower() in kept:
            raise invalid(f'Cannot create already existing {resource.kind.words} "{resource.arn}".')
        tags = {tag["Key"]: tag["Value"] for tag in resource.request.get("Tags", [])}
        self.simulator.tags[resource.arn] = tags  # nobody sees it without
        kept[resource.name.lower()] = resource

    def forget(self, resource: Resource) -> None:
        """Keep a resource no longer."""
        self.kept(resource.account, resource.region, resource.kind).pop(resource.name.lower(), None)
        self.simulator.tags.pop(resource.arn, None)
        self.simulator.changed()

    def model(self, beside: Resource, name: str) -> Model:
        """Return a model of the account and region that another resource is in."""
        found = self.kept(beside.account, beside.region, MODEL).get(name.lower())
        if not isinstance(found, Model):
            arn = f"arn:aws:sagemaker:{beside.region}:{beside.account}:model/{name.lower()}"
            raise invalid(f'Could not find model "{arn}".')
        return found

    def require_unscaled(self, endpoint: Endpoint, config: EndpointConfig) -> None:
        """Raise ServiceError when a variant that scales by itself would change its instance type or go."""
        types = {one["VariantName"]: one.get("InstanceType") for one in config.variants}
        held = []
        for variant in endpoint.variants:
            target = scaling.variant_target(endpoint, variant.name)
            if target is not None and types.get(variant.name) != variant.instance_type:
                held.append(f'"{target.resource_id}"')
        if held:
            raise invalid(
                f"The variant(s) {', '.join(held)} must be deregistered as scalable targets with AWS Auto Scaling "
                "before they can be removed or have their instance type updated."
            )

    def require_may_be_zero(self, endpoint: Endpoint, counts: Mapping[str, int]) -> None:
        """Raise ServiceError when a variant that answers at once would have no instances."""
        if endpoint.config is None or endpoint.config.is_async or endpoint.config.hosts_components:
            return
        for name, count in counts.items():
            if count == 0:
                raise invalid(f"The desired instance count of variant {name} must be greater than or equal to 1.")

    def require_empty(self, endpoint: Endpoint) -> None:
        """Raise ServiceError when components are on an endpoint."""

    # For the course of things

    def take_fault(
        self, kind: type[_Kind], named: Mapping[str, Any], fits: Callable[[_Kind], bool] = lambda _: True
    ) -> _Kind | None:
        """Return a planned fault of a kind that is meant for an endpoint or component, which thereby happens."""
        for name, fault in list(self.faults):
            is_meant = name is None or name in named.values()
            if is_meant and isinstance(fault, kind) and fits(fault):
                self.faults.remove((name, fault))
                return fault
        return None

    def has_capacity(self, wanted: list[Instances]) -> bool:
        """Return whether instances can be had, beside those that are held."""
        for type_name in {one.type_name for one in wanted}:
            limit = self.simulator.capacity.get(type_name)
            count = sum(one.count for one in wanted if one.type_name == type_name)
            if limit is not None and self._held(type_name) + count > limit:
                return False
        return True

    def _held(self, type_name: str) -> int:
        held = (one for driver in list(self.drivers.values()) for one in driver.held)
        return sum(one.count for one in held if one.type_name == type_name)

    def used(self, account: str, region: str, type_name: str) -> int:
        """Return how many instances of a type count against the quota."""
        here = [d for d in self.drivers.values() if (d.endpoint.account, d.endpoint.region) == (account, region)]
        asked_for = (one for driver in here for one in driver.asked_for)
        return sum(one.count for one in asked_for if one.type_name == type_name)

    def drive(self, driver: EndpointDriver) -> None:
        self.drivers[driver.endpoint.arn] = driver

    def exited(self, server: ModelServer) -> None:
        """Hand the end of a container over to the clock (on the thread that waited for it)."""

        def cleared() -> None:
            for driver in list(self.drivers.values()):
                driver.exited(server)

        if not self.simulator.closed:
            self.clock.post(cleared)

    def came_in_service(self, driver: EndpointDriver) -> None:
        """Begin what an endpoint in service does by itself."""

    def leaves_service(self, driver: EndpointDriver) -> None:
        """End what an endpoint in service does by itself."""

    def ringing(self, endpoint: Endpoint, alarms: list[str]) -> list[str]:
        """Return which of some alarms are in the state ALARM."""
        return scaling.ringing(endpoint.account, endpoint.region, alarms)

    def forget_endpoint(self, driver: EndpointDriver) -> None:
        self.drivers.pop(driver.endpoint.arn, None)
        self.forget(driver.endpoint)

    def count_invocation(self, endpoint: Endpoint) -> None:
        """Note a request for the metrics of an endpoint."""

    def note(self, group: str, line: str) -> None:
        """Remember a line that a container printed."""
        self._log_lines[group].append(line)
        self.simulator.changed()

    @property
    def is_busy(self) -> bool:
        """Whether some container is about to begin or to end."""
        return any(driver.is_busy for driver in list(self.drivers.values()))

    def close(self) -> None:
        for driver in list(self.drivers.values()):
            driver.close()

    def endpoints(self, call: Call) -> dict[str, Resource]:
        return self.kept(call.account, call.region, ENDPOINT)
