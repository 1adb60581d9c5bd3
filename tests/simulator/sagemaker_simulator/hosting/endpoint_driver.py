"""The course of one endpoint: created, updated, scaled, deleted, and its containers meanwhile."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .course import Course, instance_id
from .launch import Instances
from .records import Endpoint, EndpointConfig, Variant
from .server import STARTUP_SECONDS, ModelServer, Order

if TYPE_CHECKING:
    from .hosting import Hosting

LOG_GROUP = "/aws/sagemaker/Endpoints"


class EndpointDriver(Course):
    """Moves an endpoint through its stages; what changes it runs as an action of the clock."""

    def __init__(self, hosting: "Hosting", endpoint: Endpoint) -> None:
        super().__init__(hosting, endpoint)
        self.endpoint = endpoint
        self.servers: dict[str, ModelServer] = {}
        """The live one of each variant that has instances; one process stands for all of them."""
        self._incoming: dict[str, ModelServer] = {}
        """Those that are launched."""
        self._outgoing: dict[str, ModelServer] = {}
        """Those that an update replaces, while the alarms are watched."""

    def containers(self) -> list[ModelServer]:
        return [*self.servers.values(), *self._incoming.values(), *self._outgoing.values(), *self.leaving]

    def serves_with(self, server: ModelServer) -> bool:
        return server in self.servers.values()

    def restarted(self, server: ModelServer) -> None:  # noqa: ARG002 - the base class has it
        self.hosting.backlog(self.endpoint).work()

    def forget(self) -> None:
        self.hosting.forget_endpoint(self)

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
        self.begin_launch(wanted, list(self._incoming.values()), done, failed)

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
            log_stream=f"{variant['VariantName']}/{instance_id()}",
            is_isolated=model.is_isolated,
            startup_seconds=variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS),
            names={"EndpointName": self.endpoint.name},
            vpc=model.request.get("VpcConfig"),
        )

    def _bake(self, policy: dict[str, Any]) -> None:
        """Send the traffic to the new instances, and watch the alarms for a while."""
        blue_green = policy.get("BlueGreenUpdatePolicy", {})
        seconds = blue_green.get("TrafficRoutingConfiguration", {}).get("WaitIntervalInSeconds", 0)
        seconds += blue_green.get("TerminationWaitInSeconds", 0)
        seconds += policy.get("RollingUpdatePolicy", {}).get("WaitIntervalInSeconds", 0)
        rollback = policy.get("AutoRollbackConfiguration", {})
        alarms = [one["AlarmName"] for one in rollback.get("Alarms", [])]
        self._outgoing, self.servers = self.servers, dict(self._incoming)
        self.then(self.hosting.timeline.shifting, lambda: self._watch(seconds, alarms, policy))

    def _watch(self, left: float, alarms: list[str], policy: dict[str, Any]) -> None:
        ringing = self.hosting.ringing(self.endpoint, alarms)
        if ringing:
            self.servers, self._outgoing = self._outgoing, {}
            names = ", ".join(ringing)
            self._roll_back(f"One or more configured alarms have been triggered during deployment: {names}")
        elif left > 0:
            pause = min(left, self.hosting.timeline.evaluation)
            self.then(pause, lambda: self._watch(left - pause, alarms, policy))
        else:
            self._updated(policy)

    def _updated(self, policy: dict[str, Any]) -> None:
        self._take_over()
        self.endpoint.last_deployment = policy or None
        for server in self._outgoing.values():
            self.end(server)
        self._outgoing = {}
        self._be_in_service()

    def _roll_back(self, reason: str) -> None:
        self._drop_incoming()
        self.endpoint.enter("RollingBack", self.clock.now(), reason)
        self.then(self.hosting.timeline.rolling_back, lambda: self._be_in_service(reason))

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
            self.end(server)
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
            self.begin_launch(more, list(begun.values()), self._scaled, lambda reason: self._not_scaled(before, reason))
        else:
            self.then(self.hosting.timeline.scaling, self._scaled)

    def _scaled(self) -> None:
        self.launch = None
        self.servers |= self._incoming
        self._incoming = {}
        for variant in self.endpoint.variants:
            variant.current = variant.desired
            if variant.desired == 0 and variant.name in self.servers:
                self.end(self.servers.pop(variant.name))
        self._be_in_service()

    def _not_scaled(self, before: dict[str, int], reason: str) -> None:
        for variant in self.endpoint.variants:
            variant.desired = before[variant.name]
        self._roll_back(reason)

    # The instances of components

    def missing_instances(self, variant_name: str, copies: int) -> list[Instances]:
        """Return the instances that a variant lacks for so many copies, as far as it may grow."""
        variant = self._variant(variant_name)
        missing = min(copies, _most(variant)) - variant.current
        return [Instances(variant.instance_type, missing)] if missing > 0 else []

    def fit_instances(self, variant_name: str) -> None:
        """Give a variant the instances that its components need: those of the most copies, within its range."""
        variant = self._variant(variant_name)
        scaling = variant.request.get("ManagedInstanceScaling", {})
        if scaling.get("Status") != "ENABLED":
            return
        copies = [one.component.copies for one in self.hosting.components_on(self.endpoint) if one.base is None]
        count = max(scaling.get("MinInstanceCount", 1), min(max(copies, default=0), _most(variant)))
        variant.current = variant.desired = count

    def _variant(self, name: str) -> Variant:
        return next(one for one in self.endpoint.variants if one.name == name)

    # Ended

    def delete(self) -> None:
        """End the containers and, when that is done, the endpoint."""
        self.stop_launch()
        self.endpoint.enter("Deleting", self.clock.now())
        self.hosting.leaves_service(self)
        for server in (*self.servers.values(), *self._incoming.values()):
            self.end(server)
        self.servers, self._incoming = {}, {}
        self.delete_after(self.hosting.timeline.deleting)


def _most(variant: Variant) -> int:
    """Return how many instances a variant may have."""
    scaling = variant.request.get("ManagedInstanceScaling", {})
    return (
        int(scaling.get("MaxInstanceCount", variant.desired)) if scaling.get("Status") == "ENABLED" else variant.desired
    )
