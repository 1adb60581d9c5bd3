"""The course of one inference component: a model's copies on an endpoint, or an adapter in the container of another."""

import json
import tarfile
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from sagemaker_simulator.training.storage import described

from .course import Course, instance_id
from .endpoint_driver import EndpointDriver
from .faults import FailLaunch
from .launch import Instances
from .layout import ADAPTERS
from .records import Component, Endpoint
from .runtime import ALIAS_HEADER
from .server import STARTUP_SECONDS, BrokenError, LaunchFailedError, ModelServer, Order

if TYPE_CHECKING:
    from .hosting import Hosting

LOG_GROUP = "/aws/sagemaker/InferenceComponents"
_REGISTER_SECONDS = 60.0
_JSON = "application/json"


class ComponentDriver(Course):
    """Moves a component through its stages."""

    def __init__(self, hosting: "Hosting", component: Component, host: EndpointDriver) -> None:
        super().__init__(hosting, component)
        self.component = component
        self.host = host
        self.server: ModelServer | None = None
        """The container of a model; one process stands for all copies."""
        self._incoming: ModelServer | None = None
        self._steps: dict[str, Any] = {}

    def containers(self) -> list[ModelServer]:
        present = [one for one in (self.server, self._incoming) if one is not None]
        return [*present, *self.leaving]

    def serves_with(self, server: ModelServer) -> bool:
        return server is self.server

    def forget(self) -> None:
        self.hosting.forget_component(self)

    @property
    def base(self) -> "ComponentDriver | None":
        """The component whose container an adapter is in."""
        name = self.component.base
        return None if name is None else self.hosting.component_driver(self.component, name)

    def adapters(self) -> "list[ComponentDriver]":
        """Return the adapters in this component's container."""
        return [one for one in self.hosting.components.values() if one.base is self]

    # Models

    def create(self) -> None:
        self.component.enter("Creating", self.clock.now())
        if self.component.base is not None:
            self.then(self.hosting.timeline.adapter, self._place)
        else:
            self._grow(self._created, self._creation_failed)

    def _created(self) -> None:
        self._take_over()
        self._be_in_service()

    def _creation_failed(self, reason: str) -> None:
        self._drop_incoming()
        self.component.enter("Failed", self.clock.now(), reason)

    def update(self, changes: dict[str, Any]) -> None:
        """Take another specification, or another number of copies."""
        component = self.component
        self._steps = {"request": component.request, "copies": component.desired_copies}
        component.request = {**component.request, **{k: v for k, v in changes.items() if k == "Specification"}}
        component.desired_copies = changes.get("RuntimeConfig", {}).get("CopyCount", component.desired_copies)
        component.last_deployment = changes.get("DeploymentConfig", component.last_deployment)
        component.enter("Updating", self.clock.now())
        if component.base is not None:
            self._leave(lambda: self.then(self.hosting.timeline.adapter, self._place))
        elif "Specification" in changes and component.desired_copies:
            self._launch_copies([], self._created, self._update_failed)
        else:
            self.scale(component.desired_copies)

    def scale(self, copies: int) -> None:
        """Change the number of copies."""
        component = self.component
        self._steps.setdefault("request", component.request)
        self._steps["copies"] = component.copies
        component.desired_copies = copies
        component.enter("Updating", self.clock.now())
        if copies > component.copies:
            self._grow(self._created, self._update_failed)
        else:
            self.then(self.hosting.timeline.component, self._created)

    def _update_failed(self, reason: str) -> None:
        self._drop_incoming()
        self.component.request = self._steps["request"]
        self.component.desired_copies = self._steps["copies"]
        self._be_in_service(reason)

    def _grow(self, done: Callable[[], None], failed: Callable[[str], None]) -> None:
        """Start copies, on further instances of the endpoint where it has too few."""
        more = self.host.missing_instances(self.component.variant, self.component.desired_copies)
        if self.server is None and self.component.desired_copies:
            self._launch_copies(more, done, failed)
        elif more:
            self.begin_launch(more, [], done, failed)
        else:
            self.then(self.hosting.timeline.component, done)

    def _launch_copies(self, more: list[Instances], done: Callable[[], None], failed: Callable[[str], None]) -> None:
        self._incoming = ModelServer(self.hosting, self._order())
        self.begin_launch(more, [self._incoming], done, failed)

    def _order(self) -> Order:
        component = self.component
        specification = component.specification
        endpoint = self.host.endpoint
        container = dict(specification.get("Container", {}))
        role, arn, isolated = "", component.arn, False
        if "ModelName" in specification:
            model = self.hosting.model(component, specification["ModelName"])
            container = {**model.container, **container}
            role, arn, isolated = model.role, model.arn, model.is_isolated
        elif endpoint.config is not None:
            role = endpoint.config.request["ExecutionRoleArn"]
            isolated = bool(endpoint.config.request.get("EnableNetworkIsolation"))
            if "ArtifactUrl" in container:
                container["ModelDataUrl"] = container["ArtifactUrl"]
        startup = specification.get("StartupParameters", {})
        return Order(
            role=role,
            account=component.account,
            region=component.region,
            arn=arn,
            container=container,
            variant=component.variant,
            log_group=f"{LOG_GROUP}/{component.name}",
            log_stream=f"{component.variant}/{instance_id()}",
            is_isolated=isolated,
            startup_seconds=startup.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS),
            names={"InferenceComponentName": component.name, "EndpointName": component.endpoint_name},
            vpc=endpoint.config.request.get("VpcConfig") if endpoint.config is not None else None,
        )

    def _take_over(self) -> None:
        self.launch = None
        self.component.copies = self.component.desired_copies
        old = self.server
        if self._incoming is not None:
            self.server, self._incoming = self._incoming, None
            self.restarted(self.server)
        elif self.component.copies == 0:
            self.server = None
        if old is not None and old is not self.server:
            self.end(old)
        self.host.fit_instances(self.component.variant)

    def _drop_incoming(self) -> None:
        self.launch = None
        if self._incoming is not None:
            self.end(self._incoming)
            self._incoming = None

    def _be_in_service(self, reason: str | None = None) -> None:
        self.next = None
        self._steps = {}
        self.component.enter("InService", self.clock.now(), reason)
        self.hosting.component_in_service(self)
        self.hosting.simulator.changed()

    def restarted(self, server: ModelServer) -> None:
        """Tell a new container of the adapters that the old one had."""
        for adapter in self.adapters():
            if adapter.component.status in {"InService", "Updating"}:
                adapter.register(server, lambda _: None)

    # Adapters

    def _place(self) -> None:
        """Load the adapter into its container; without one, when there is one."""
        fault = self.hosting.take_fault(
            FailLaunch,
            {"InferenceComponentName": self.component.name, "EndpointName": self.component.endpoint_name},
            lambda one: one.stage == "Adapter",
        )
        if fault is not None:
            self._placed(fault.reason)
            return
        base = self.base
        if base is None or base.server is None:
            self._placed(None)
        else:
            self.register(base.server, self._placed)

    def _placed(self, reason: str | None) -> None:
        if reason is None:
            self._be_in_service()
        else:
            self.component.enter("Failed", self.clock.now(), reason)
            self.next = None

    def register(self, server: ModelServer, done: Callable[[str | None], None]) -> None:
        """Put the artifact beside a container and tell it; `done` gets the reason when that fails, as an action."""
        body: dict[str, Any] = {"name": self.component.name, "preload": True, "pin": False}

        def ask() -> str | None:
            try:
                body["src"] = self._artifact(server)
            except LaunchFailedError as failed:
                return str(failed)
            return self._told(server, "POST", "/adapters", json.dumps(body).encode())

        self._in_background(ask, done)

    def _leave(self, done: Callable[[], None]) -> None:
        """Have the container forget the adapter; what it says to that changes nothing."""
        base = self.base
        if base is None or base.server is None:
            done()
            return
        server = base.server
        self._in_background(lambda: self._told(server, "DELETE", f"/adapters/{self.component.name}"), lambda _: done())

    def _told(self, server: ModelServer, method: str, path: str, body: bytes = b"") -> str | None:
        """Make a call to the container and return the reason when it fails."""
        headers = {ALIAS_HEADER: self.component.name} | ({"Content-Type": _JSON} if body else {})
        try:
            reply = server.ask(method, path, headers, body, _REGISTER_SECONDS)
        except (BrokenError, TimeoutError) as error:
            return f"The adapter could not be loaded by the container: {error}"
        if 200 <= reply.status < 300:
            return None
        words = reply.content.decode(errors="replace")
        return f"The adapter could not be loaded by the container: received error ({reply.status}) with message {words}"

    def _artifact(self, server: ModelServer) -> str:
        """Download and unpack the artifact, and return its folder; raises LaunchFailedError."""
        uri = self.component.specification["Container"]["ArtifactUrl"]
        folder = server.layout.root / ADAPTERS / f"{self.component.name}-{instance_id()}"
        s3 = self.hosting.simulator.client_for(server.order, "s3")
        try:
            archive = server.layout.fetch_file(s3, uri, folder)
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(folder, filter="data")
            archive.unlink()
        except (ClientError, OSError, ValueError, tarfile.TarError) as error:
            words = described(error) if isinstance(error, ClientError) else str(error)
            raise LaunchFailedError(f"Failed to download the adapter {uri}: {words}") from error
        return str(folder)

    def _in_background(self, ask: Callable[[], str | None], done: Callable[[str | None], None]) -> None:
        """Ask a container on a thread of its own, and hand what it says over to the clock."""
        self.is_registering = True

        def finish(reason: str | None) -> None:
            self.is_registering = False
            if not self.hosting.simulator.closed:
                self.hosting.simulator.guarded(lambda: done(reason))
            self.hosting.simulator.changed()

        def run() -> None:
            reason = ask()
            self.clock.post(lambda: finish(reason))

        thread = threading.Thread(target=self.hosting.simulator.guarded, args=(run,), name="adapter", daemon=True)
        thread.start()

    # Ended

    def delete(self) -> None:
        self.stop_launch()
        self.component.enter("Deleting", self.clock.now())
        if self.component.base is not None:
            self._leave(lambda: self.delete_after(self.hosting.timeline.component))
            return
        self._drop_incoming()
        if self.server is not None:
            self.end(self.server)
            self.server = None
        self.component.copies = self.component.desired_copies = 0
        self.host.fit_instances(self.component.variant)
        self.delete_after(self.hosting.timeline.component)


def variant_of(endpoint: Endpoint, name: str | None) -> str:
    """Return a variant that is named, or the only one."""
    return name or endpoint.variants[0].name
