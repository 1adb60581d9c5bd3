"""Endpoints on this machine."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO

from orchestrator.adapters.registry import Registry, Report
from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.command_line import command
from orchestrator.contract.serving import LOCALHOST, ServerOrder
from orchestrator.endpoints.commands import deploy_command
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.finding import no_endpoint
from orchestrator.endpoints.hosts import Answer, DeploymentPlan, EndpointDescription, EndpointStatus
from orchestrator.endpoints.leases import why_expired
from orchestrator.endpoints.local.calls import QUICK_SECONDS, RefusedError, ServerCalls
from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, Served, ServerFolder, left_behind
from orchestrator.endpoints.local.outcome import outcome_of
from orchestrator.endpoints.local.planning import LocalPlan, find_adapters, find_base, require_machine
from orchestrator.endpoints.local.supervisor import end_older, last_used
from orchestrator.endpoints.names import HostName
from orchestrator.errors import EndpointError, MachineError, OrchestratorError
from orchestrator.planning.bundle import bundle_tree
from orchestrator.resources import PACKAGE
from orchestrator.settings import Settings
from orchestrator.storage import FolderStore, folder_of
from orchestrator.storage.names import is_folder_name
from orchestrator.targets.opening import open_targets

STOP_SECONDS = 30.0
"""A server answers what it has admitted within 25 seconds of SIGTERM."""
_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.1
_NOT_FOUND = 404
_DELETED = "It was ended because the endpoint was deleted."
_LIST = command("endpoints", "list")
_SUPERVISOR = (sys.executable, "-m", "orchestrator.endpoints.local.supervisor")


def _ignore(error: OrchestratorError) -> None:
    """Report nothing."""


class LocalHost:
    """Runs each endpoint as a detached server process whose state is a folder."""

    name = HostName.LOCAL

    def __init__(self, settings: Settings, report: Report = _ignore, stop_seconds: float = STOP_SECONDS) -> None:
        self.settings = settings
        self.report = report
        self.stop_seconds = stop_seconds

    def plan(self, deployment: Deployment) -> LocalPlan:
        """Check a deployment and return what it starts; starts nothing."""
        require_machine()
        base = find_base(deployment, self.settings)
        registry = Registry([target.store for target in open_targets(self.settings, self.report)])
        adapters = find_adapters(deployment, base, registry, self.report)
        plan = LocalPlan(deployment, base, adapters, "new")
        return LocalPlan(deployment, base, adapters, self._change(plan))

    def _change(self, plan: LocalPlan) -> str:
        """Return in words what a plan makes of the endpoint of its name."""
        endpoint = self._folder(plan.deployment.name)
        if not endpoint.exists():
            return "is created"
        server = _living(endpoint)
        if server is None:
            return "has ended, and is started again"
        served = server.served()
        wanted = _served(plan, served.created)
        changes = _changes(served, wanted)
        if endpoint.token() is None or served.needs_another_server(wanted):
            return f"runs, and another server takes its place{changes}"
        if served == wanted:
            return "runs already as it is asked for"
        return f"runs, and is changed without a restart{changes}"

    def deploy(self, plan: DeploymentPlan) -> EndpointDescription:
        """Start the server of an endpoint, or change the one that runs to what is asked for. Idempotent."""
        if not isinstance(plan, LocalPlan):
            raise TypeError(f"{plan} is the plan of another host")
        self.settings.require_writable()
        endpoint = self._folder(plan.deployment.name)
        with endpoint.locked():
            self._fetch(plan, endpoint)
            server = _living(endpoint)
            created = datetime.now(UTC)
            for earlier in endpoint.servers():
                created = earlier.served().created
            wanted = _served(plan, created)
            token = endpoint.token()
            if server is None or token is None or server.served().needs_another_server(wanted):
                server = self._start(endpoint, wanted, token or endpoint.new_token())
            elif server.served() != wanted:
                self._change_adapters(endpoint, server, wanted, token)
            self._tidy(endpoint, server)
        return self.describe(endpoint.name)

    def _fetch(self, plan: LocalPlan, endpoint: EndpointFolder) -> None:
        """Copy the adapters into the endpoint, each verified: what becomes of them elsewhere does not reach it."""
        registry = Registry([target.store for target in open_targets(self.settings, self.report)])
        for adapter in plan.adapters.values():
            folder = endpoint.adapter(adapter.manifest.files_sha256)
            if not folder.exists():
                registry.pull(adapter, folder)

    def _start(self, endpoint: EndpointFolder, served: Served, token: str) -> ServerFolder:
        """Start another server, which replaces the one that runs once it serves, and return it."""
        store = FolderStore(self.settings.home)
        bundle = folder_of(store.put_tree(bundle_tree(BundleKind.SERVING)))
        server = endpoint.new_server(served)
        asked = served.deployment
        order = ServerOrder(
            base_model=asked.base_model,
            base_folder=served.base_folder,
            base_revision=asked.base_revision,
            adapters={name: endpoint.adapter(sha256) for name, sha256 in served.adapters.items()},
            root=endpoint.adapters,
            host=LOCALHOST,
            port=0,
            token=token,
            slots=asked.slots,
            most_waiting=asked.most_waiting,
        )
        endpoint.adapters.mkdir(exist_ok=True)
        errors = server.path / "supervisor.txt"
        with server.lock() as lock, errors.open("w") as stderr, _blocked_ctrl_c():
            started = subprocess.run(
                [*_SUPERVISOR, str(server.path), str(bundle), str(lock.fileno())],
                input=order.model_dump_json().encode(),
                env={**os.environ, "PYTHONPATH": _import_path()},
                cwd=server.path,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(lock.fileno(),),
                start_new_session=True,  # a Ctrl-C in the terminal must not reach the server
                check=False,
            )
        if started.returncode != 0:
            message = f"The server of {endpoint.name} could not be started."
            raise MachineError(message, next_step=f"cat {shlex.quote(str(errors))}")
        return server

    def _change_adapters(self, endpoint: EndpointFolder, server: ServerFolder, wanted: Served, token: str) -> None:
        """Have a server learn and forget adapters until it has those that are wanted."""
        progress = server.progress()
        if not progress.serves or progress.port is None:
            message = f"The endpoint {endpoint.name} is being started, and cannot be changed meanwhile."
            raise EndpointError(message, next_step=command("endpoints", "show", endpoint.name))
        calls = ServerCalls(endpoint.name, progress.port, token)
        known = _known(calls)
        for name, sha256 in wanted.adapters.items():
            if known.get(name) == sha256:
                continue
            calls.json("POST", "/adapters", {"name": name, "src": str(endpoint.adapter(sha256))})
            server.write_served(_with(server.served(), name, sha256))
        for name in known.keys() - wanted.adapters.keys():
            try:
                calls.json("DELETE", f"/adapters/{name}")
            except RefusedError as error:
                if error.status != _NOT_FOUND:
                    raise
        server.write_served(wanted)

    def _tidy(self, endpoint: EndpointFolder, kept: ServerFolder) -> None:
        """Delete ended servers, except for the one that is kept, and the adapters that none of the others has."""
        used = set()
        for server in endpoint.servers():
            if server.number == kept.number or server.is_alive():
                used |= set(server.served().adapters.values())
            else:
                shutil.rmtree(server.path, ignore_errors=True)
        for folder in endpoint.adapters.glob("*"):
            if folder.name not in used:
                shutil.rmtree(folder, ignore_errors=True)

    def deployment(self, name: str) -> Deployment:
        """Return what was asked for when an endpoint was deployed or changed last."""
        return self._shown(self._endpoint(name)).served().deployment

    def known_adapters(self, name: str) -> Mapping[str, str]:
        """Return the hash of the files of each adapter that an endpoint has, by its name."""
        return _known(self._calls(self._endpoint(name)))

    def base_model(self, name: str) -> str:
        """Return what tells the base model of an endpoint from others: the hash of its weights, or its name."""
        served = self._shown(self._endpoint(name)).served()
        asked = served.deployment
        return served.base_sha256 or f"{asked.base_model} {asked.base_revision}"

    def wait_until_in_service(self, name: str, seconds: float) -> EndpointDescription:
        """Wait until an endpoint is no longer started or replaced, `seconds` at most, and describe it."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.describe(name)
            is_settled = found.status not in (EndpointStatus.CREATING, EndpointStatus.UPDATING)
            if is_settled or time.monotonic() > deadline:
                return found
            time.sleep(_POLL_SECONDS)

    def describe(self, name: str) -> EndpointDescription:
        """Return what is known of an endpoint; raises EndpointError when there is none."""
        endpoint = self._endpoint(name)
        servers = endpoint.servers()
        answering = endpoint.answering()
        shown = answering or servers[-1]
        served = shown.served()
        newest = outcome_of(servers[-1], is_update=answering is not None)
        now = datetime.now(UTC)
        used = None
        url = None
        if answering is not None:
            used = last_used(endpoint, answering, now)
            url = f"http://{LOCALHOST}:{answering.progress().port}"
        asked = served.deployment
        return EndpointDescription(
            name=name,
            host=self.name,
            mode=asked.mode,
            status=newest.status,
            base_model=asked.base_model,
            adapters=tuple(sorted(served.adapters)),
            created=served.created,
            lease=asked.lease,
            last_used=used,
            expired=why_expired(asked.lease, served.created, used, now),
            failure_reason=newest.reason,
            next_step=newest.next_step,
            url=url,
        )

    def summaries(self) -> Iterator[EndpointDescription | OrchestratorError]:
        """Yield every endpoint; an error for an unreadable one."""
        for name in self.names():
            try:
                yield self.describe(name)
            except OrchestratorError as error:
                yield error

    def has(self, name: str) -> bool:
        """Return whether there is an endpoint of that name, damaged or not."""
        return name in self.names()

    def names(self) -> list[str]:
        """Return the names of all endpoints."""
        folders = [EndpointFolder(path) for path in sorted(self.settings.endpoints.glob("[!.]*"))]
        return [folder.name for folder in folders if folder.exists()]

    def invoke(self, name: str, body: bytes, accept: str) -> Answer:
        """Send a body of `/invocations` and return the answer."""
        return self._calls(self._endpoint(name)).call("POST", "/invocations", body, accept)

    def scale(self, name: str, fewest: int, most: int) -> None:
        """Refuse: a server on this machine is one process."""
        self._endpoint(name)
        if (fewest, most) != (1, 1):
            message = f"The endpoint {name} is one process on this machine, and cannot be scaled."
            raise EndpointError(message, next_step=command("deploy", name, "--host", "sagemaker", "--dry-run"))

    def delete(self, name: str) -> Sequence[str]:
        """End the servers of an endpoint and delete its folder; return what is gone."""
        endpoint = self._endpoint(name)
        self.settings.require_writable()
        with endpoint.locked(self.stop_seconds):
            gone = self._end_all(endpoint.servers(), _DELETED)
            endpoint.remove()
        return [*gone, f"folder {endpoint.path}"]

    def _end_all(self, servers: Sequence[ServerFolder], reason: str) -> list[str]:
        """End servers, each within the time in which it answers what it has admitted; raises EndpointError."""
        gone = []
        alive = [server for server in servers if server.is_alive()]
        for server in alive:
            server.request_stop(reason)
            state = server.state()
            if state is not None:
                state.process.send(signal.SIGTERM)
                gone.append(f"server process {state.process.pid}")
        if _all_end(alive, self.stop_seconds):
            return gone
        for server in alive:
            state = server.state()
            if state is not None and server.is_alive():
                state.process.send(signal.SIGKILL)
                state.supervisor.send(signal.SIGKILL)
        if not _all_end(alive, _KILL_SECONDS):
            lock = shlex.quote(str(alive[0].path / "lock"))
            message = "A server does not end, and it is not known which process it is."
            raise EndpointError(message, next_step=f"fuser -k {lock}  (ends the processes that hold its lock)")
        return gone

    def collect(self) -> Sequence[str]:
        """Delete endpoints whose lease has ended, and what interrupted commands left; return both."""
        gone = []
        for path in left_behind(self.settings.endpoints):
            shutil.rmtree(path, ignore_errors=True)
            gone.append(f"folder {path}")
        for path in sorted(self.settings.endpoints.glob("[!.]*")):
            if not path.is_dir():
                continue
            endpoint = EndpointFolder(path)
            try:
                with endpoint.locked(0.0):
                    gone += self._collect(endpoint)
            except OrchestratorError as error:
                self.report(error)
        return gone

    def _collect(self, endpoint: EndpointFolder) -> list[str]:
        servers = endpoint.servers()
        if not any(server.state() or server.is_alive() for server in servers):
            endpoint.remove()
            return [f"{endpoint.name}: the command that deployed it was interrupted before a server ran"]
        expired = self.describe(endpoint.name).expired
        if expired is not None:
            gone = self._end_all(servers, f"It was ended because {expired}.")
            endpoint.remove()
            return [f"{endpoint.name}: {expired}", *gone]
        gone = []
        answering = endpoint.answering()
        if answering is not None:
            replaced = end_older(endpoint, answering)
            _all_end(replaced, self.stop_seconds)
            gone = [f"{endpoint.name}: a server that was replaced" for _ in replaced]
        self._tidy(endpoint, servers[-1])
        return gone

    def log_lines(self, name: str, *, follow: bool) -> Iterator[str]:
        """Yield what the newest server logged; with `follow`, go on until it ends."""
        server = self._endpoint(name).servers()[-1]
        try:
            log = server.log.open("rb")
        except FileNotFoundError:
            return
        with log:
            yield from _lines(log, server, follow=follow)

    def _calls(self, endpoint: EndpointFolder) -> ServerCalls:
        """Return how to call an endpoint; raises EndpointError for one that does not answer now."""
        answering = endpoint.answering()
        token = endpoint.token()
        if answering is None:
            newest = outcome_of(endpoint.servers()[-1], is_update=False)
            if newest.status is EndpointStatus.CREATING:
                message = f"The endpoint {endpoint.name} is starting, and takes no requests yet."
                raise EndpointError(message, next_step=command("endpoints", "show", endpoint.name))
            message = f"The endpoint {endpoint.name} does not run. {newest.reason}"
            raise EndpointError(message, next_step=newest.next_step or _LIST)
        port = answering.progress().port
        if token is None or port is None:
            again = deploy_command(answering.served().deployment)
            message = f"The token of the endpoint {endpoint.name} is gone, and its server takes no request without it."
            raise EndpointError(message, next_step=again)
        return ServerCalls(endpoint.name, port, token)

    def _shown(self, endpoint: EndpointFolder) -> ServerFolder:
        return endpoint.answering() or endpoint.servers()[-1]

    def _endpoint(self, name: str) -> EndpointFolder:
        endpoint = self._folder(name)
        if endpoint.exists():
            return endpoint
        raise no_endpoint(name, self.names())

    def _folder(self, name: str) -> EndpointFolder:
        if not is_folder_name(name) or name.startswith("."):
            raise no_endpoint(name, self.names())
        return EndpointFolder(self.settings.endpoints / name)


def _served(plan: LocalPlan, created: datetime) -> Served:
    """Return what a server of a plan serves."""
    hashes = {name: adapter.manifest.files_sha256 for name, adapter in plan.adapters.items()}
    return Served(
        deployment=plan.deployment,
        created=created,
        adapters=hashes,
        base_folder=plan.base.folder,
        base_sha256=plan.base.sha256,
    )


def _changes(served: Served, wanted: Served) -> str:
    """Return in words which adapters a server is to learn and to forget."""
    parts = []
    added = [name for name in wanted.adapters if name not in served.adapters]
    renewed = [name for name, sha256 in wanted.adapters.items() if served.adapters.get(name, sha256) != sha256]
    removed = [name for name in served.adapters if name not in wanted.adapters]
    for verb, names in (("adds", added), ("renews", renewed), ("removes", removed)):
        if names:
            parts.append(f"; {verb} {', '.join(names)}")
    return "".join(parts)


def _with(served: Served, name: str, sha256: str) -> Served:
    """Return what a server serves once it has learned one more adapter."""
    adapters = {**served.adapters, name: sha256}
    deployment = served.deployment.model_copy(update={"adapters": tuple(adapters)})
    return served.model_copy(update={"adapters": adapters, "deployment": deployment})


def _living(endpoint: EndpointFolder) -> ServerFolder | None:
    """Return the newest server that serves, or is about to; None when there is none."""
    for server in reversed(endpoint.servers()):
        is_ending = server.stop_reason() is not None or server.progress().failed is not None
        if server.is_alive() and not is_ending:
            return server
    return None


def _known(calls: ServerCalls) -> dict[str, str]:
    """Return the hash of the files of each adapter that a server knows, by its name."""
    answer = calls.json("GET", "/adapters", seconds=QUICK_SECONDS)
    return {adapter["name"]: adapter["sha256"] for adapter in answer["adapters"]}


def _all_end(servers: Sequence[ServerFolder], seconds: float) -> bool:
    """Wait until servers and their supervisors have ended, `seconds` at most; return whether they have."""
    deadline = time.monotonic() + seconds
    while any(server.is_alive() for server in servers):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _lines(log: IO[bytes], server: ServerFolder, *, follow: bool) -> Iterator[str]:
    open_line = b""
    while True:
        goes_on = follow and server.is_alive()  # before reading, so that the last lines are not missed
        while chunk := log.readline():
            open_line += chunk
            if chunk.endswith(b"\n"):
                yield open_line.decode(errors="replace").rstrip("\n")
                open_line = b""
        if not goes_on:
            return
        time.sleep(_POLL_SECONDS)


def _import_path() -> str:
    """Return the supervisor's PYTHONPATH: this package first, whatever else is installed."""
    folders = [str(PACKAGE.parent)]
    inherited = os.environ.get("PYTHONPATH")
    if inherited:
        folders.append(inherited)
    return os.pathsep.join(folders)


@contextmanager
def _blocked_ctrl_c() -> Iterator[None]:
    """Delay a Ctrl-C while it would leave behind a server that was never started."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
