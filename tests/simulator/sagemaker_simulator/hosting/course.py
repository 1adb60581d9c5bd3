"""What the courses of endpoints and of components have in common: stages on the clock, containers that come and go."""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from sagemaker_simulator.clock import Timer

from .launch import Instances, Launch
from .records import Resource
from .server import ModelServer

if TYPE_CHECKING:
    from .hosting import Hosting

KILL_SECONDS = 30  # between SIGTERM and SIGKILL


class Course:
    """Moves a resource through its stages; what changes it runs as an action of the clock."""

    def __init__(self, hosting: "Hosting", resource: Resource) -> None:
        self.hosting = hosting
        self.clock = hosting.clock
        self.resource = resource
        self.leaving: list[ModelServer] = []
        """Containers that were asked to end."""
        self.launch: Launch | None = None
        self.next: Timer | None = None
        """What it waits for by itself, beside its launch."""
        self.is_registering = False
        """Whether a container is told of an adapter."""
        self._deletion_is_due = False

    def containers(self) -> list[ModelServer]:
        """Return all containers there are."""
        return list(self.leaving)

    @property
    def is_busy(self) -> bool:
        """Whether a process is about to begin or to end: meanwhile the clock should stand still."""
        return self.is_registering or any(server.is_busy for server in self.containers())

    def next_due(self) -> Timer | None:
        """Return what the clock has to reach for the course to go on; None while a process starts or ends."""
        if self.is_busy:
            return None
        if self.launch is not None and (timer := self.launch.next_due()) is not None:
            return timer
        return self.next

    def begin_launch(
        self,
        instances: list[Instances],
        servers: list[ModelServer],
        done: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self.launch = Launch(self.hosting, self.resource.name, instances, servers, done, failed)
        self.launch.start()

    def stop_launch(self) -> None:
        if self.launch is not None:
            self.launch.cancel()
            self.launch = None

    def end(self, server: ModelServer) -> None:
        """Send a container SIGTERM, and SIGKILL when the time is over."""
        if server.has_ended:
            server.layout.remove()
            return
        self.leaving.append(server)
        server.terminate()
        self.clock.after(KILL_SECONDS, server.kill)

    def delete_after(self, seconds: float) -> None:
        """Be gone when the time has passed and all containers have ended."""

        def due() -> None:
            self._deletion_is_due = True
            self.next = None
            self._forget_if_over()

        self.then(seconds, due)

    def _forget_if_over(self) -> None:
        if self._deletion_is_due and not self.leaving:
            self.forget()

    def forget(self) -> None:
        """Be gone."""
        raise NotImplementedError

    def serves_with(self, server: ModelServer) -> bool:
        """Return whether a container is one that requests go to."""
        raise NotImplementedError

    def restarted(self, server: ModelServer) -> None:
        """Do what a container needs that was started again."""

    def exited(self, server: ModelServer) -> None:
        """Clear up after a container that ended, or start it again when nobody had asked it to (an action)."""
        if server in self.leaving:
            self.leaving.remove(server)
            server.layout.remove()
            self._forget_if_over()
        elif self.serves_with(server):
            self.clock.after(self.hosting.timeline.restart, lambda: self._restart(server))
        self.hosting.simulator.changed()

    def _restart(self, server: ModelServer) -> None:
        if not self.serves_with(server) or self.hosting.simulator.closed:
            return

        def healthy() -> None:
            server.pass_health_check()
            self.restarted(server)

        server.start(lambda: self.clock.post(healthy), lambda: self.hosting.exited(server))
        self.hosting.simulator.changed()

    def then(self, seconds: float, step: Callable[[], None]) -> None:
        """Take a step when so much time has passed; one that was to be taken before is not."""

        def run() -> None:
            if not self.hosting.simulator.closed and self.next is timer:
                self.hosting.simulator.guarded(step)

        if self.next is not None:
            self.next.cancel()
        timer = self.clock.after(seconds, run)
        self.next = timer
        self.hosting.simulator.changed()

    def close(self) -> None:
        """End whatever runs (the simulator is closed)."""
        if self.launch is not None:
            self.launch.cancel()
        for server in self.containers():
            server.close()


def instance_id() -> str:
    """Return a new name of an instance, as log streams have it."""
    return f"i-{secrets.token_hex(8)}"
