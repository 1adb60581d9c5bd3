"""The state of everything that serves, what a test may ask of it, and how it waits."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sagemaker_simulator.calls import Call
from sagemaker_simulator.clock import ManualClock, Timer, WallClock
from sagemaker_simulator.errors import invalid

from . import scaling
from .backlog import Backlog
from .component_driver import LOG_GROUP as COMPONENT_LOGS
from .component_driver import ComponentDriver
from .course import Course
from .endpoint_driver import LOG_GROUP as ENDPOINT_LOGS
from .endpoint_driver import EndpointDriver
from .faults import HostingFault
from .launch import Instances
from .metrics import Metrics
from .records import COMPONENT, ENDPOINT, MODEL, Component, Endpoint, EndpointConfig, Kind, Model, Resource
from .runtime import Runtime, refused
from .scaling import Scaler
from .server import ModelServer
from .timeline import HostingTimeline

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator

_Kind = TypeVar("_Kind")
_PATIENCE = 300.0  # seconds of real time, for a server that loads a model on a busy machine


class Stand(NamedTuple):
    """Where a course stands."""

    status: str | None
    is_busy: bool
    timer: Timer | None
    is_there: bool


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
        self.components: dict[str, ComponentDriver] = {}
        self.runtime = Runtime(self)
        self.metrics = Metrics(self)
        self._backlogs: dict[str, Backlog] = {}
        self._scalers: dict[tuple[str, str | None], Scaler] = {}
        scaling.know_components()
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
        """Return what the containers of an endpoint or a component have printed."""
        return [*self._log_lines[f"{ENDPOINT_LOGS}/{name}"], *self._log_lines[f"{COMPONENT_LOGS}/{name}"]]

    def run_until(self, name: str, *statuses: str, seconds: float = _PATIENCE) -> Resource:
        """Move the clock through the stages of an endpoint or component, and wait for its containers.

        Until it is in one of the statuses; raises AssertionError when nothing will bring it there.
        """
        deadline = time.monotonic() + seconds
        course = self.course(name)
        while (seen := self._look(course)).status not in statuses:
            if seen.timer is None and not seen.is_busy and isinstance(self.clock, ManualClock):
                reason = course.resource.failure_reason or ""
                raise AssertionError(f"{name} is {seen.status}, never {' or '.join(statuses)}. {reason}")
            self._go_on(seen, course, deadline)
        return course.resource

    def run_until_gone(self, name: str, seconds: float = _PATIENCE) -> None:
        """Move the clock until a deleted endpoint or component is gone, its containers too."""
        deadline = time.monotonic() + seconds
        course = self.course(name)
        while (seen := self._look(course)).is_there:
            self._go_on(seen, course, deadline)

    def show(self, name: str, status: str, reason: str | None = None) -> None:
        """Make an endpoint or component show a status, for clients that have to know them all; its course goes on."""
        self.course(name).resource.enter(status, self.clock.now(), reason)
        self.simulator.changed()

    def step(self, name: str, seconds: float = _PATIENCE) -> None:
        """Move the clock to the next stage of an endpoint or component, or wait for its container."""
        course = self.course(name)
        self._go_on(self._look(course), course, time.monotonic() + seconds)

    def wait_for_answers(self, name: str, seconds: float = _PATIENCE) -> None:
        """Wait in real time until an asynchronous endpoint has answered whatever it was asked."""
        backlog = self.backlog(self.endpoint(name))
        self.simulator.wait_for(lambda: backlog.size == 0, seconds)

    def course(self, name: str) -> Course:
        """Return what moves the endpoint or the component of a name."""
        for course in self.courses():
            if course.resource.name == name:
                return course
        raise KeyError(name)

    def _look(self, course: Course) -> Stand:
        """Return where a course stands: between two actions, not within one."""
        seen: list[Stand] = []
        self.clock.run_now(lambda: seen.append(self._stand(course)))
        return seen[0]

    def _stand(self, course: Course) -> Stand:
        is_there = course in self.courses()
        return Stand(course.resource.status, course.is_busy, course.next_due(), is_there)

    def _go_on(self, seen: Stand, course: Course, deadline: float) -> None:
        """Move the clock to what a course waits for, or wait until it stands otherwise than it was seen."""
        if isinstance(self.clock, ManualClock) and seen.timer is not None:
            self.clock.advance_to(max(seen.timer.due, self.clock.now()))
            return
        self.simulator.wait_for(lambda: self._stand(course) != seen, deadline - time.monotonic())

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
        if names := [one.component.name for one in self.components_on(endpoint)]:
            raise invalid(
                f'Cannot delete endpoint "{endpoint.arn}" while inference components are on it: {", ".join(names)}.'
            )

    def components_on(self, endpoint: Endpoint) -> list[ComponentDriver]:
        """Return the components of an endpoint, adapters too."""
        return [one for one in list(self.components.values()) if one.component.endpoint_arn == endpoint.arn]

    def component_driver(self, beside: Resource, name: str) -> ComponentDriver | None:
        """Return a component of the account and region that another resource is in."""
        arn = f"arn:aws:sagemaker:{beside.region}:{beside.account}:{COMPONENT.path}/{name.lower()}"
        return self.components.get(arn)

    def component_target(self, endpoint: Endpoint, name: str) -> tuple[ModelServer, str, Component | None]:
        """Return where a request to a component goes, and the adapter it is for; raises ServiceError."""
        driver = self.component_driver(endpoint, name)
        if driver is None or driver.component.endpoint_arn != endpoint.arn:
            raise refused(f"Inference Component {name} of account {endpoint.account} not found.")
        adapter = driver.component if driver.component.base is not None else None
        base = driver.base or driver
        if driver.component.status in {"Creating", "Failed", "Deleting"}:
            raise refused(f"Inference Component {name} is {driver.component.status} and cannot be invoked.")
        if base.server is None:
            self.metrics.no_capacity(base.component)
            raise refused(
                "Inference Component has no capacity to process this request. ApplicationAutoScaling may be "
                "in-progress (if configured) or try to increase the capacity by invoking "
                "UpdateInferenceComponentRuntimeConfig API."
            )
        self.metrics.invoked_component(driver.component)
        return base.server, base.component.variant, adapter

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
        held = [one for driver in list(self.drivers.values()) for one in driver.held]
        for driver in list(self.components.values()):
            if driver.launch is not None and driver.launch.has_instances:
                held += driver.launch.instances
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
            for driver in self.courses():
                driver.exited(server)

        if not self.simulator.closed:
            self.clock.post(cleared)

    def came_in_service(self, driver: EndpointDriver) -> None:
        """Have an endpoint that is in service work off its queue, and scale by its policies."""
        has_components = bool(self.components_on(driver.endpoint))
        for variant in driver.endpoint.variants:
            self._watch(driver.endpoint, variant.name)
            if has_components:
                driver.fit_instances(variant.name)
        self.backlog(driver.endpoint).work()

    def leaves_service(self, driver: EndpointDriver) -> None:
        """Have an endpoint scale no more: the service deregisters its variants."""
        scaling.deregister(driver.endpoint)

    def component_in_service(self, driver: ComponentDriver) -> None:
        """Have a component scale by its policies."""
        if driver.component.base is None:
            self._watch(driver.component, None)

    def _watch(self, resource: Resource, variant: str | None) -> None:
        """Look at the policies of a resource from now on."""
        key = (resource.arn, variant)
        if key not in self._scalers:
            self._scalers[key] = Scaler(self, resource, variant)
            self.clock.after(self.timeline.evaluation, lambda: self._evaluate(key))

    def _evaluate(self, key: tuple[str, str | None]) -> None:
        scaler = self._scalers[key]
        is_there = any(course.resource is scaler.resource for course in self.courses())
        if not is_there or self.simulator.closed:
            del self._scalers[key]
            return
        self.simulator.guarded(scaler.evaluate)
        self.clock.after(self.timeline.evaluation, lambda: self._evaluate(key))

    def scale(self, resource: Resource, variant: str | None, count: int) -> None:
        """Give a variant or a component another number of instances or copies (an action)."""
        if variant is None:
            self.components[resource.arn].scale(count)
        else:
            self.drivers[resource.arn].scale({variant: count})

    def backlog(self, endpoint: Endpoint) -> Backlog:
        """Return the queue of an asynchronous endpoint."""
        return self._backlogs.setdefault(endpoint.arn, Backlog(self.drivers[endpoint.arn]))

    def servers_of(self, resource: Resource) -> list[ModelServer]:
        """Return the containers of an endpoint or a component."""
        return [one for course in self.courses() if course.resource is resource for one in course.containers()]

    def ringing(self, endpoint: Endpoint, alarms: list[str]) -> list[str]:
        """Return which of some alarms are in the state ALARM."""
        return scaling.ringing(endpoint, self, alarms)

    def forget_component(self, driver: ComponentDriver) -> None:
        self.components.pop(driver.component.arn, None)
        self.forget(driver.component)

    def forget_endpoint(self, driver: EndpointDriver) -> None:
        self.drivers.pop(driver.endpoint.arn, None)
        self._backlogs.pop(driver.endpoint.arn, None)
        self.forget(driver.endpoint)

    def note(self, group: str, line: str) -> None:
        """Remember a line that a container printed."""
        self._log_lines[group].append(line)
        self.simulator.changed()

    @property
    def is_busy(self) -> bool:
        """Whether some container is about to begin or to end, or works off a queue."""
        works = any(backlog.working for backlog in list(self._backlogs.values()))
        return works or any(driver.is_busy for driver in self.courses())

    def courses(self) -> list[Course]:
        """Return the courses of all endpoints and components."""
        return [*self.drivers.values(), *self.components.values()]

    def close(self) -> None:
        for driver in self.courses():
            driver.close()

    def endpoints(self, call: Call) -> dict[str, Resource]:
        return self.kept(call.account, call.region, ENDPOINT)
