"""End servers, and delete what nobody needs any more."""

import shlex
import shutil
import signal
import time
from collections.abc import Sequence

from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, ServerFolder
from orchestrator.endpoints.local.supervisor import end_older
from orchestrator.errors import EndpointError

_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.1


def end_all(servers: Sequence[ServerFolder], reason: str, seconds: float) -> list[str]:
    """End servers, in the time in which they answer what they have admitted or else at once, and name them.

    Raises EndpointError for one whose process is not known.
    """
    gone = []
    alive = [server for server in servers if server.is_alive()]
    for server in alive:
        server.request_stop(reason)
        state = server.state()
        if state is not None:
            state.process.send(signal.SIGTERM)
            gone.append(f"server (process {state.process.pid})")
    if _wait(alive, seconds):
        return gone
    for server in alive:
        state = server.state()
        if state is not None and server.is_alive():
            state.process.send(signal.SIGKILL)
            state.supervisor.send(signal.SIGKILL)
    if _wait(alive, _KILL_SECONDS):
        return gone
    lock = shlex.quote(str(alive[0].path / "lock"))
    raise EndpointError(
        "A server does not end, and it is not known which process it is.",
        next_step=f"fuser -k {lock}  (ends the processes that hold its lock)",
    )


def _wait(servers: Sequence[ServerFolder], seconds: float) -> bool:
    """Wait until servers and their supervisors have ended, `seconds` at most; return whether they have."""
    deadline = time.monotonic() + seconds
    while any(server.is_alive() for server in servers):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def tidy(endpoint: EndpointFolder, kept: ServerFolder) -> None:
    """Delete ended servers, except for the one that is kept, and the adapters that none of the others has."""
    used: set[str] = set()
    for server in endpoint.servers():
        if server.number == kept.number or server.is_alive():
            used.update(server.served().adapters.values())
        else:
            shutil.rmtree(server.path, ignore_errors=True)
    for folder in endpoint.adapters.glob("*"):
        if folder.name not in used:
            shutil.rmtree(folder, ignore_errors=True)


def collect(endpoint: EndpointFolder, expired: str | None, seconds: float) -> list[str]:
    """Delete an endpoint that is over, or what interrupted commands left in it, and name it.

    `expired` is why its time is over; None while its lease lasts.
    """
    servers = endpoint.servers()
    if expired is not None:
        gone = end_all(servers, f"It was ended because {expired}.", seconds)
        endpoint.remove()
        return [f"{endpoint.name}: {expired}", *gone]
    ran = [server for server in servers if server.state() or server.is_alive()]
    if not ran:
        endpoint.remove()
        return [f"{endpoint.name}: the command that deployed it was interrupted before a server ran"]
    replaced = []
    answering = endpoint.answering()
    if answering is not None:
        replaced = end_older(endpoint, answering)
        _wait(replaced, seconds)
    tidy(endpoint, servers[-1])
    return [f"{endpoint.name}: server {server.number}, which was replaced" for server in replaced]
