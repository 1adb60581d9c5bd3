"""The process that starts the server of an endpoint, waits for its end, and outlives the command that deployed it.

`python -m orchestrator.endpoints.local.supervisor SERVER_FOLDER BUNDLE LOCK_DESCRIPTOR [WORD...]`, with its order on
stdin; the words start it elsewhere than in a process of this machine.
It inherits the server's lock from the command and passes it on to the server.
Once the server serves, those that it replaces are ended; when its lease is over, it is ended itself.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.endpoints.leases import why_expired
from orchestrator.endpoints.local.calls import QUICK_SECONDS, ServerCalls
from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, ServerFolder, ServerState
from orchestrator.endpoints.local.processes import Process
from orchestrator.errors import OrchestratorError
from orchestrator.targets.local.drawing import variables_of

LOADING_SECONDS = 0.1
"""Between two looks while the server loads."""
SERVING_SECONDS = 5.0
"""And once it serves."""
REPLACED = "A newer server has taken its place."


class Supervisor:
    """Runs one server until it ends."""

    def __init__(
        self,
        server: ServerFolder,
        bundle: Path,
        lock: int,
        words: Sequence[str],
    ) -> None:
        self.server = server
        self.endpoint = EndpointFolder(server.path.parents[1])
        self.bundle = bundle
        self.lock = lock
        self.words = words or (sys.executable, "-m", "entrypoints.serve")
        self.ended = threading.Event()

    def start(self, order: bytes) -> "subprocess.Popen[bytes]":
        """Start the server and record its process."""
        with self.server.log.open("ab") as log:
            child = subprocess.Popen(
                self.words,
                env={**os.environ, **variables_of(self.bundle, self.server.path)},
                cwd=self.server.path,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(self.lock,),
            )
        state = ServerState(
            process=Process.now(child.pid),
            supervisor=Process.now(os.getpid()),
        )
        self.server.write_state(state)
        if child.stdin is not None:
            with suppress(BrokenPipeError), child.stdin as stdin:  # it may end before it reads, and says why
                stdin.write(order)
        return child

    def watch(self, child: "subprocess.Popen[bytes]") -> None:
        """Wait for the end of the server, look after it meanwhile, and record how it ended."""
        waiting = threading.Thread(
            target=self._wait,
            args=(child,),
            daemon=True,
        )
        waiting.start()
        serves = False
        while not self.ended.wait(SERVING_SECONDS if serves else LOADING_SECONDS):
            if not serves and self.server.progress().serves:
                serves = True
                end_older(self.endpoint, self.server)
            if serves:
                self._end_when_expired(child)
        state = self.server.state()
        if state is not None:
            ended = {"ended": datetime.now(UTC), "exit_code": child.returncode}
            self.server.write_state(state.model_copy(update=ended))

    def _wait(self, child: "subprocess.Popen[bytes]") -> None:
        child.wait()
        self.ended.set()

    def _end_when_expired(self, child: "subprocess.Popen[bytes]") -> None:
        try:
            served = self.server.served()
            now = datetime.now(UTC)
            used = last_used(
                self.endpoint,
                self.server,
                now,
            )
        except OrchestratorError:  # the endpoint is being deleted
            return
        why = why_expired(
            served.deployment.lease,
            served.created,
            used,
            now,
        )
        if why is not None:
            self.server.request_stop(f"It was ended because {why}.")
            child.terminate()


def last_used(
    endpoint: EndpointFolder,
    server: ServerFolder,
    now: datetime,
) -> datetime | None:
    """Return when a server was called last; None when it does not say."""
    port = server.progress().port
    token = endpoint.token()
    if port is None or token is None:
        return None
    calls = ServerCalls(
        endpoint.name,
        port,
        token,
    )
    try:
        status = calls.json(
            "GET",
            "/status",
            seconds=QUICK_SECONDS,
        )
        seconds = float(status["last_used"])
    except (OrchestratorError, KeyError, TypeError, ValueError):
        return None
    return now - timedelta(seconds=seconds)


def end_older(endpoint: EndpointFolder, newest: ServerFolder) -> list[ServerFolder]:
    """Ask the servers that one has replaced to answer what they have admitted and to end; return them."""
    asked = []
    for server in endpoint.servers():
        if server.number >= newest.number or not server.is_alive():
            continue
        state = server.state()
        if state is not None:
            server.request_stop(REPLACED)
            state.process.send(signal.SIGTERM)
            asked.append(server)
    return asked


def main(folder: str, bundle: str, lock: str, *words: str) -> int:
    """Start a server in a child that init adopts; the command waits for this process, which ends once it is started."""
    order = sys.stdin.buffer.read()
    reading, writing = os.pipe()
    if os.fork() != 0:
        os.close(writing)
        started = os.read(reading, 1)
        return 0 if started else 1
    os.close(reading)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the command blocked Ctrl-C while it started this
    supervisor = Supervisor(
        ServerFolder(Path(folder)),
        Path(bundle),
        int(lock),
        words,
    )
    child = supervisor.start(order)
    os.write(writing, b"1")
    os.close(writing)
    supervisor.watch(child)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
