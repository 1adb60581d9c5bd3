"""The course of one endpoint: created, updated, scaled, deleted, and its containers meanwhile."""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sagemaker_simulator.clock import Timer

from .launch import Instances, Launch
from .records import Endpoint, EndpointConfig, Variant
from .server import STARTUP_SECONDS, ModelServer, Order

if TYPE_CHECKING:
    from .hosting import Hosting

KILL_SECONDS = 30  # between SIGTERM and SIGKILL
LOG_GROUP = "/aws/sagemaker/Endpoints"


class EndpointDriver:
    """Moves an endpoint through its stages; what changes it runs as an action of the clock."""

    def __init__(self, hosting: "Hosting", endpoint: Endpoint) -> None:
        self.hosting = hosting
        self.clock = hosting.clock
        self.endpoint = endpoint
        self.servers: dict[str, ModelServer] = {}
        """The live one of each variant that has instances; one process stands for all of them."""
        self.leaving: list[ModelServer] = []
        """Those that were asked to end."""
        self.launch: Launch | None = None
        self.next: Timer | None = None
        """What the endpoint itself waits for, beside its launch."""
        self._incoming: dict[str, ModelServer] = {}
        """Those that are launched."""
        self._outgoing: dict[str, ModelServer] = {}
        """Those that an update replaces, while the alarms are watched."""
        self._deletion_is_due = False

    @property
    def is_busy(self) -> bool:
        """Whether a process is about to begin or to end: meanwhile the clock should stand still."""
        return any(server.is_busy for server in self._containers())

    def _containers(self) -> list[ModelServer]:
        return [*self.servers.values(), *self._incoming.values(), *self._outgoing.values(), *self.leaving]

    @property
    def held(self) -> list[Instances]:
        """The instances it has now, and those that it launches."""
        held = [Instances(one.instance_type, one.current) for one in self.endpoint.variants]
        if self.launch is not None and self.launch.has_instances:
            held += self.launch.instances
        return held

    @property
    def asked_for(self) -> list[Instances]:
        """The instances that count against quotas."""
        variants = [*self.endpoint.variants, *self.endpoint.pending_variants]
        return [Instances(one.instance_type, max(one.current, one.desired)) for one in variants]

    def next_due(self) -> Timer | None:
        """Return what the clock has to reach for the course to go on; None while a process starts or ends."""
        if self.is_busy:
            return None
        if self.launch is not None and (timer := self.launch.next_due()) is not None:
            return timer
        return self.next

    # Created and updated

    def create(self, config: EndpointConfig) -> None:
        """Begin with the first configuration."""
        self.endpoint.enter("Creating", self.clock.now())
        self._deploy(config, self._created, self._creation_failed)

    def _created(self) -> None:
        self._take_over()
        self._be_in_service()

    def _creation_failed(self, reason: str) -> None:
        self._drop_incoming()
        self.endpoint.enter("Failed", self.clock.now(), reason)

    def update(self, config: EndpointConfig, deployment: dict[str, Any] | None, counts: dict[str, int]) -> None:
        """Go over to another configuration, blue/green: `counts` are the instances of variants that keep theirs."""
        self.endpoint.enter("Updating", self.clock.now())
        policy = deployment or {}
        self._deploy(config, lambda: self._bake(policy), self._roll_back, counts)

    def _deploy(
        self,
        config: EndpointConfig,
        done: Callable[[], None],
        failed: Callable[[str], None],
        counts: dict[str, int] | None = None,
    ) -> None:
        endpoint = self.endpoint
        endpoint.pending, endpoint.pending_variants = config, []
        self._incoming = {}
        for request in config.variants:
            desired = (counts or {}).get(request["VariantName"], request.get("InitialInstanceCount", 1))
            variant = Variant(request, desired=desired, weight=request.get("InitialVariantWeight", 1.0))
            if "ModelName" in request:
                order = self._order(request)
                variant.images = [order.image]
                if desired:
                    self._incoming[variant.name] = ModelServer(self.hosting, order)
            endpoint.pending_variants.append(variant)
        wanted = [Instances(one.instance_type, one.desired) for one in endpoint.pending_variants]
        self._launch(wanted, list(self._incoming.values()), done, failed)

    def _launch(
        self,
        instances: list[Instances],
        servers: list[ModelServer],
        done: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self.launch = Launch(self.hosting, self.endpoint.name, instances, servers, done, failed)
        self.launch.start()

    def _order(self, variant: dict[str, Any]) -> Order:
        model = self.hosting.model(self.endpoint, variant["ModelName"])
        return Order(
            role=model.role,
            account=model.account,
            region=model.region,
            arn=model.arn,
            container=model.container,
            variant=variant["VariantName"],
            log_group=f"{LOG_GROUP}/{self.endpoint.name}",
            log_stream=f"{variant['VariantName']}/i-{secrets.token_hex(8)}",
            is_isolated=model.is_isolated,
            startup_seconds=variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS),
            request={"EndpointName": self.endpoint.name},
        )

    def _bake(self, policy: dict[str, Any]) -> None:
        """Send the traffic to the new instances, and watch the alarms for a while."""
        blue_green = policy.get("BlueGreenUpdatePolicy", {})
        seconds = blue_green.get("TrafficRoutingConfiguration", {}).get("WaitIntervalInSeconds", 0)
        rollback = policy.get("AutoRollbackConfiguration", {})
        alarms = [one["AlarmName"] for one in rollback.get("Alarms", [])]
        self._outgoing, self.servers = self.servers, dict(self._incoming)
        self._then(self.hosting.timeline.shifting, lambda: self._watch(seconds, alarms, policy))

    def _watch(self, left: float, alarms: list[str], policy: dict[str, Any]) -> None:
        ringing = self.hosting.ringing(self.endpoint, alarms)
        if ringing:
            self.servers, self._outgoing = self._outgoing, {}
            names = ", ".join(ringing)
            self._roll_back(f"One or more configured alarms have been triggered during deployment: {names}")
        elif left > 0:
            pause = min(left, self.hosting.timeline.evaluation)
            self._then(pause, lambda: self._watch(left - pause, alarms, policy))
        else:
            seconds = policy.get("BlueGreenUpdatePolicy", {}).get("TerminationWaitInSeconds", 0)
            self._then(seconds, lambda: self._updated(policy))

    def _updated(self, policy: dict[str, Any]) -> None:
        self._take_over()
        self.endpoint.last_deployment = policy or None
        for server in self._outgoing.values():
            self._end(server)
        self._outgoing = {}
        self._be_in_service()

    def _roll_back(self, reason: str) -> None:
        self._drop_incoming()
        self.endpoint.enter("RollingBack", self.clock.now(), reason)
        self._then(self.hosting.timeline.rolling_back, lambda: self._be_in_service(reason))

    def _take_over(self) -> None:
        endpoint = self.endpoint
        self.launch = None
        self.servers = dict(self._incoming)
        self._incoming = {}
        endpoint.config, endpoint.variants = endpoint.pending, endpoint.pending_variants
        endpoint.pending, endpoint.pending_variants = None, []
        for variant in endpoint.variants:
            variant.current = variant.desired

    def _drop_incoming(self) -> None:
        self.launch = None
        for server in self._incoming.values():
            self._end(server)
        self._incoming = {}
        if self.endpoint.config is not None:
            self.endpoint.pending, self.endpoint.pending_variants = None, []
        for variant in self.endpoint.pending_variants:
            variant.current = variant.desired = 0

    def _be_in_service(self, reason: str | None = None) -> None:
        self.next = None
        self.endpoint.enter("InService", self.clock.now(), reason)
        self.hosting.came_in_service(self)
        self.hosting.simulator.changed()

    # Scaled

    def scale(self, counts: dict[str, int], weights: dict[str, float] | None = None) -> None:
        """Change the instances and weights of variants."""
        self.endpoint.enter("Updating", self.clock.now())
        before = {one.name: one.desired for one in self.endpoint.variants}
        more = []
        begun: dict[str, ModelServer] = {}
        for variant in self.endpoint.variants:
            variant.desired = counts.get(variant.name, variant.desired)
            variant.weight = (weights or {}).get(variant.name, variant.weight)
            if variant.desired > variant.current:
                more.append(Instances(variant.instance_type, variant.desired - variant.current))
            if variant.desired and variant.name not in self.servers and "ModelName" in variant.request:
                begun[variant.name] = ModelServer(self.hosting, self._order(variant.request))
        self._incoming = begun
        if more:
            self._launch(more, list(begun.values()), self._scaled, lambda reason: self._not_scaled(before, reason))
        else:
            self._then(self.hosting.timeline.scaling, self._scaled)

    def _scaled(self) -> None:
        self.launch = None
        self.servers |= self._incoming
        self._incoming = {}
        for variant in self.endpoint.variants:
            variant.current = variant.desired
            if variant.desired == 0 and variant.name in self.servers:
                self._end(self.servers.pop(variant.name))
        self._be_in_service()

    def _not_scaled(self, before: dict[str, int], reason: str) -> None:
        for variant in self.endpoint.variants:
            variant.desired = before[variant.name]
        self._roll_back(reason)

    # Ended

    def delete(self) -> None:
        """End the containers and, when that is done, the endpoint."""
        if self.launch is not None:
            self.launch.cancel()
        self.endpoint.enter("Deleting", self.clock.now())
        self.hosting.leaves_service(self)
        for server in (*self.servers.values(), *self._incoming.values()):
            self._end(server)
        self.servers, self._incoming = {}, {}
        self._then(self.hosting.timeline.deleting, self._deletion_due)

    def _deletion_due(self) -> None:
        self._deletion_is_due = True
        self.next = None
        self._forget_if_over()

    def _forget_if_over(self) -> None:
        if self._deletion_is_due and not self.leaving:
            self.hosting.forget_endpoint(self)

    def _end(self, server: ModelServer) -> None:
        """Send SIGTERM, and SIGKILL when the time is over."""
        if server.has_ended:
            server.layout.remove()
            return
        self.leaving.append(server)
        server.terminate()
        self.clock.after(KILL_SECONDS, server.kill)

    def exited(self, server: ModelServer) -> None:
        """Clear up after a container that ended, or start it again when nobody had asked it to (an action)."""
        if server in self.leaving:
            self.leaving.remove(server)
            server.layout.remove()
            self._forget_if_over()
        elif server in self.servers.values():
            self.clock.after(self.hosting.timeline.restart, lambda: self._restart(server))
        self.hosting.simulator.changed()

    def _restart(self, server: ModelServer) -> None:
        if server not in self.servers.values() or self.hosting.simulator.closed:
            return

        def healthy() -> None:
            self.clock.post(server.pass_health_check)

        server.start(healthy, lambda: self.hosting.exited(server))

    def close(self) -> None:
        """End whatever runs (the simulator is closed)."""
        if self.launch is not None:
            self.launch.cancel()
        for server in self._containers():
            server.close()

    def _then(self, seconds: float, step: Callable[[], None]) -> None:
        def run() -> None:
            if not self.hosting.simulator.closed and self.next is timer:
                self.hosting.simulator.guarded(step)

        if self.next is not None:
            self.next.cancel()
        timer = self.clock.after(seconds, run)
        self.next = timer
        self.hosting.simulator.changed()
