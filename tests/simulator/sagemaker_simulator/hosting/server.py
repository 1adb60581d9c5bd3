"""One container that serves: its /opt/ml, its process, the health check, and the requests that go to it."""

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from sagemaker_simulator import permissions
from sagemaker_simulator.training.container import Container, Image
from sagemaker_simulator.training.storage import described

from .faults import NOT_STARTED, ServerDeath
from .layout import ServingLayout
from .log import ServingLog

if TYPE_CHECKING:
    from .hosting import Hosting

ADDRESS = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Where containers are called: a server that listens on 127.0.0.1 alone is out of the service's reach as well."""
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
"""With which the service names a port other than 8080; here each container has its own."""
PING_SECONDS = 2.0
STAND_IN = Image(entrypoint=("python", "-I", "-S", str(Path(__file__).with_name("stand_in.py"))))
"""An image whose server answers without drawing anything: `stand_in.py` says what can be set."""
_PAUSE = 0.05  # seconds of real time between health checks
STARTUP_SECONDS = 480


class LaunchFailedError(Exception):
    """The container does not come up; the message is the FailureReason."""


class BrokenError(Exception):
    """The container gave no answer."""


class Reply(NamedTuple):
    """What a container answered."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Order:
    """What a container is started from."""

    role: str
    account: str
    region: str
    arn: str
    """Of the model, for conditions in the role's trust."""
    container: Mapping[str, Any]
    """A ContainerDefinition."""
    variant: str
    log_group: str
    log_stream: str
    is_isolated: bool = False
    startup_seconds: float = STARTUP_SECONDS
    """How long its health check may fail."""
    names: Mapping[str, str] = field(default_factory=dict)
    """By which faults are meant for it: the endpoint's, and the component's."""
    vpc: Mapping[str, Any] | None = None
    """Subnets and security groups that it is put into."""

    @property
    def image(self) -> str:
        return str(self.container["Image"])


class ModelServer:
    """A container of an endpoint."""

    def __init__(self, hosting: "Hosting", order: Order) -> None:
        self.hosting = hosting
        self.order = order
        folder = tempfile.mkdtemp(prefix="", dir=hosting.simulator.folder)
        self.layout = ServingLayout(Path(folder))
        self.port = 0
        self.is_starting = False
        """Whether its health check has not passed yet, and its process runs."""
        self.is_healthy = False
        self.has_ended = True
        self.exit_status: int | None = None
        self.is_stopping = False
        self.started_at = 0.0
        """In real time."""
        self.answered = 0
        self.in_flight = 0
        self._container: Container | None = None
        self._counting = threading.Lock()

    @property
    def is_busy(self) -> bool:
        """Whether its process is about to begin or to end; one that has had its real time to begin is not."""
        patience = self.hosting.startup_patience
        begins = self.is_starting and time.monotonic() < self.started_at + patience
        return begins or (self.is_stopping and not self.has_ended)

    def fill(self) -> None:
        """Lay out /opt/ml and download the model data; raises LaunchFailedError."""
        if action := self._missing_to_connect():
            raise LaunchFailedError(f"The role {self.order.role} is not authorized to perform: {action}")
        self.layout.make()
        s3 = self.hosting.simulator.client_for(self.order, "s3")
        try:
            self.layout.fill(s3, self.order.container)
        except (ClientError, OSError, ValueError) as error:
            words = described(error) if isinstance(error, ClientError) else str(error)
            raise LaunchFailedError(
                f"Failed to download model data for production variant {self.order.variant}: {words}. Please ensure "
                "that there is an object located at the URL and that the role passed to CreateModel "
                f'"{self.order.role}" has permissions to download the object.'
            ) from error

    def _missing_to_connect(self) -> str | None:
        """Return an action that the role lacks for the subnets."""
        order = self.order
        if order.vpc is None:
            return None
        return permissions.missing_for_vpc(order.role, order.region, dict(order.vpc))

    def start(self, on_healthy: Callable[[], None], on_exit: Callable[[], None]) -> None:
        """Start the process; the two are called on threads of their own. Raises LaunchFailedError."""
        simulator, order = self.hosting.simulator, self.order
        image = simulator.image(order.image)
        if image is None or permissions.missing_for_image(order.role, order.image):
            raise LaunchFailedError(NOT_STARTED.format(variant=order.variant))
        self.port = _free_port()
        variables = {**image.environment, **simulator.role_variables(order)}
        variables |= self.layout.variables(order.container.get("Environment", {}), order.region)
        variables |= {simulator.root_variable: str(self.layout.root), PORT_VARIABLE: str(self.port)}
        log = ServingLog(simulator.client_for(order, "logs"), order.log_group, order.log_stream, simulator.clock.now)

        def keep(line: str) -> None:
            log.write(line)
            self.hosting.note(order.log_group, line)

        try:
            self._container = Container(image.serving_command(), variables, self.layout.root)
        except OSError as error:
            raise LaunchFailedError(NOT_STARTED.format(variant=order.variant)) from error
        self.has_ended, self.is_starting, self.started_at = False, True, time.monotonic()
        self._container.watch(keep, lambda status: self._exited(status, on_exit), simulator.guarded)
        target = threading.Thread(
            target=simulator.guarded,
            args=(lambda: self._check_health(on_healthy),),
            name="health-check",
            daemon=True,
        )
        target.start()

    def _exited(self, status: int, on_exit: Callable[[], None]) -> None:
        self.exit_status = status
        self.has_ended, self.is_healthy, self.is_starting = True, False, False
        self.hosting.simulator.changed()
        on_exit()

    def _check_health(self, on_healthy: Callable[[], None]) -> None:
        pause = threading.Event()
        while self.is_starting and not pause.wait(_PAUSE):
            if self.ping() == 200 and self.is_starting:
                on_healthy()
                return

    def pass_health_check(self) -> None:
        """Take requests from now on."""
        self.is_starting, self.is_healthy = False, not self.has_ended
        self.hosting.simulator.changed()

    def ping(self) -> int:
        """Return the status of the health check, 0 when there is no answer in its time."""
        try:
            return self.ask("GET", "/ping", {}, b"", PING_SECONDS).status
        except BrokenError:
            return 0

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes, seconds: float) -> Reply:
        """Send a request to the container; raises BrokenError, and TimeoutError when it takes longer."""
        connection = HTTPConnection(ADDRESS, self.port, timeout=seconds)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        except TimeoutError:
            if path == "/ping":
                raise BrokenError("timed out") from None
            raise
        except (OSError, HTTPException) as error:
            raise BrokenError(str(error)) from error
        finally:
            connection.close()

    def invoke(self, path: str, headers: Mapping[str, str], body: bytes, seconds: float) -> Reply:
        """Send a request of a client; raises BrokenError and TimeoutError."""
        with self._counting:
            self.in_flight += 1
            dies = self._take_death()
        try:
            if dies:
                self.kill()
                self.join()
                raise BrokenError("the container ended")
            return self.ask("POST", path, headers, body, seconds)
        finally:
            with self._counting:
                self.in_flight -= 1
                self.answered += 1

    def _take_death(self) -> bool:
        death = self.hosting.take_fault(ServerDeath, self.order.names, lambda one: self.answered >= one.after_requests)
        return death is not None

    def terminate(self) -> None:
        """Ask the process to end: SIGTERM."""
        self.is_stopping, self.is_starting, self.is_healthy = True, False, False
        if self._container is not None:
            self._container.terminate()

    def kill(self) -> None:
        self.is_starting, self.is_healthy = False, False
        if self._container is not None:
            self._container.kill()

    def join(self) -> None:
        if self._container is not None:
            self._container.join()

    def close(self) -> None:
        """Leave nothing behind, and wait until all threads know."""
        self.is_stopping = True
        self.kill()
        self.join()
        self.layout.remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])
