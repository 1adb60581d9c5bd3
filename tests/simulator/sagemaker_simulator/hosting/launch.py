"""Brings containers up on instances: capacity, model data, image, health check, each with its time on the clock."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sagemaker_simulator.clock import Timer

from .faults import NOT_HEALTHY, FailLaunch, UnhealthyContainer, insufficient_capacity
from .server import LaunchFailedError, ModelServer

if TYPE_CHECKING:
    from .hosting import Hosting


class Instances:
    """Instances of one type that an endpoint holds or wants."""

    def __init__(self, type_name: str, count: int) -> None:
        self.type_name = type_name
        self.count = count


class Launch:
    """One attempt; everything here runs as an action of the clock unless it says otherwise."""

    def __init__(
        self,
        hosting: "Hosting",
        name: str,
        instances: list[Instances],
        servers: list[ModelServer],
        done: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self.hosting = hosting
        self.name = name
        """Of the endpoint or the component, by which faults are meant for it."""
        self.instances = instances
        """What has to be found before anything starts."""
        self.servers = servers
        self.done = done
        self.failed = failed
        self.next: Timer | None = None
        self.is_over = False
        self.has_instances = False
        self._deadlines: list[Timer] = []
        self._patience: list[threading.Timer] = []

    def start(self) -> None:
        timeline = self.hosting.timeline
        if self.instances:
            self._then("Provisioning", timeline.provisioning, lambda: self._provision(timeline.capacity_patience))
        else:
            self._then("Downloading", timeline.downloading, self._download)

    def _provision(self, patience: float) -> None:
        timeline = self.hosting.timeline
        if not self.hosting.has_capacity(self.instances):
            if patience <= 0:
                raise LaunchFailedError(insufficient_capacity().reason)
            pause = timeline.capacity_retry
            self._then("Provisioning", pause, lambda: self._provision(patience - pause))
            return
        self.has_instances = True
        if self.servers:
            self._then("Downloading", timeline.downloading, self._download)
        else:
            self._finish()

    def _download(self) -> None:
        for server in self.servers:
            server.fill()
        self._then("Image", self.hosting.timeline.image, self._run)

    def _run(self) -> None:
        self.next = None
        for server in self.servers:
            seconds = server.order.startup_seconds
            deadline = self.hosting.clock.after(seconds, self._guarded(lambda one=server: self._overdue(one)))
            self._deadlines.append(deadline)
            sick = self.hosting.take_fault(UnhealthyContainer, {"EndpointName": self.name})
            server.start(
                on_healthy=(lambda: None) if sick else (lambda one=server: self._healthy(one)),
                on_exit=lambda one=server: self.hosting.exited(one),
            )
            if sick:
                server.is_starting = False
        self.hosting.simulator.changed()

    def _healthy(self, server: ModelServer) -> None:
        """Hand the news over to the clock (on the thread that checks)."""

        def passed() -> None:
            server.pass_health_check()
            if all(one.is_healthy for one in self.servers):
                self._finish()

        self.hosting.clock.post(self._guarded(passed))

    def _overdue(self, server: ModelServer) -> None:
        """End the launch, unless the process has not had its real time: the clock may run faster than it can start."""
        if server.is_healthy:
            return
        left = server.started_at + self.hosting.startup_patience - time.monotonic()
        if server.is_starting and left > 0:
            self._wait_on(left, lambda: self._overdue(server))
            return
        raise LaunchFailedError(NOT_HEALTHY.format(variant=server.order.variant))

    def _wait_on(self, seconds: float, step: Callable[[], None]) -> None:
        """Take a step when so much real time has passed."""
        action = self._guarded(step)
        timer = threading.Timer(seconds, lambda: self.hosting.clock.post(action))
        timer.daemon = True
        self._patience.append(timer)
        timer.start()

    def _finish(self) -> None:
        self.cancel()
        self.done()
        self.hosting.simulator.changed()

    def cancel(self) -> None:
        """Begin nothing any more."""
        self.is_over = True
        for timer in (*self._deadlines, *self._patience):
            timer.cancel()
        if self.next is not None:
            self.next.cancel()
            self.next = None

    def next_due(self) -> Timer | None:
        """Return what the clock has to reach for this to go on; None while a process starts."""
        if self.is_over:
            return None
        if self.next is not None:
            return self.next
        waiting = [timer for timer in self._deadlines if not timer.cancelled]
        if any(one.is_busy for one in self.servers) or not waiting:
            return None
        return min(waiting)

    def _fail(self, reason: str) -> None:
        self.cancel()
        self.failed(reason)
        self.hosting.simulator.changed()

    def _then(self, stage: str, seconds: float, step: Callable[[], None]) -> None:
        """Take the next step when this stage has lasted so long, if it is not the one to fail in."""
        fault = self.hosting.take_fault(FailLaunch, {"EndpointName": self.name}, lambda one: one.stage == stage)
        if fault is not None:
            variant = self.servers[0].order.variant if self.servers else "AllTraffic"
            reason = fault.reason.replace("{variant}", variant)
            step = lambda: self._fail(reason)  # noqa: E731
        self.next = self.hosting.clock.after(seconds, self._guarded(step))
        self.hosting.simulator.changed()

    def _guarded(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a step after which a failure is the launch's end and a bug is known to the simulator."""

        def run() -> None:
            if self.is_over or self.hosting.simulator.closed:
                return
            try:
                step()
            except LaunchFailedError as failed:
                self._fail(str(failed))
            except Exception as error:  # noqa: BLE001 - raised again by the simulator's close
                self.hosting.simulator.errors.append(error)
                self._fail(f"InternalServerError: the simulator broke: {error!r}")

        return run
