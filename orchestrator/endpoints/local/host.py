"""Endpoints on this machine."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from orchestrator.adapters.registry import Adapter, Registry, Report
from orchestrator.contract.command_line import command
from orchestrator.contract.serving import LOCALHOST
from orchestrator.endpoints.commands import deploy_command
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.finding import no_endpoint
from orchestrator.endpoints.hosts import Answer, Contents, DeploymentPlan, EndpointDescription, EndpointStatus
from orchestrator.endpoints.inputs import BaseModel, find_adapters, find_base
from orchestrator.endpoints.leases import why_expired
from orchestrator.endpoints.local.adapter_changes import change_adapters, changes_between, known_adapters
from orchestrator.endpoints.local.calls import ServerCalls
from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, Served, ServerFolder, left_behind
from orchestrator.endpoints.local.outcome import outcome_of
from orchestrator.endpoints.local.planning import LocalPlan, require_machine
from orchestrator.endpoints.local.removal import collect, end_all, tidy
from orchestrator.endpoints.local.starting import start_server
from orchestrator.endpoints.local.supervisor import last_used
from orchestrator.endpoints.names import HostName
from orchestrator.errors import EndpointError, OrchestratorError
from orchestrator.settings import Settings
from orchestrator.storage.names import is_folder_name
from orchestrator.targets.local.detached import printed_lines
from orchestrator.targets.opening import open_stores

STOP_SECONDS = 30.0
"""A server answers what it has admitted within 25 seconds of SIGTERM."""
_POLL_SECONDS = 0.1
_DELETED = "It was ended because the endpoint was deleted."
_LIST = command("endpoints", "list")


def _ignore(error: OrchestratorError) -> None:
    """Report nothing."""


class LocalHost:
    """Runs each endpoint as a detached server process whose state is a folder."""

    name = HostName.LOCAL
    start_server = staticmethod(start_server)
    """Starts another server, which replaces the one that runs once it serves."""

    def __init__(
        self,
        settings: Settings,
        report: Report = _ignore,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self.settings = settings
        self.report = report
        self.stop_seconds = stop_seconds

    def plan(self, deployment: Deployment, *, keeps_base: bool = False) -> LocalPlan:  # noqa: ARG002
        """Check a deployment and return what it starts; starts nothing. Base models are read here in any case."""
        self.require_machine()
        self.settings.require_writable()
        self._require_own(self._folder(deployment.name))
        base = find_base(deployment, self.settings)
        registry = self._registry()
        adapters = find_adapters(deployment, base, registry, self.report)
        change = self._change(deployment, base, adapters)
        return LocalPlan(deployment, base, adapters, change)

    def require_machine(self) -> None:
        """Raise MachineError when this machine lacks what a server runs with."""
        require_machine()

    def _change(
        self,
        deployment: Deployment,
        base: BaseModel,
        adapters: Mapping[str, Adapter],
    ) -> str:
        """Return in words what becomes of the endpoint of a name."""
        endpoint = self._folder(deployment.name)
        if not endpoint.exists():
            return "is created"
        server = _living(endpoint)
        if server is None:
            return "has ended, and is started again"
        served = server.served()
        wanted = _served(deployment, base, adapters, served.created)
        changes = changes_between(served, wanted)
        if _is_to_be_replaced(endpoint, server, wanted):
            return f"runs, and another server takes its place{changes}"
        if served == wanted:
            return "runs already as it is asked for"
        return f"runs, and is changed without a restart{changes}"

    def deploy(self, plan: DeploymentPlan) -> EndpointDescription:
        """Start the server of an endpoint, or change the one that runs to what is asked for. Idempotent."""
        if not isinstance(plan, LocalPlan):
            raise TypeError(f"{plan} is the plan of another host")
        endpoint = self._folder(plan.deployment.name)
        self._require_own(endpoint)
        with endpoint.locked():
            self._fetch(plan, endpoint)
            server = _living(endpoint)
            created = datetime.now(UTC)
            if server is not None:
                created = server.served().created
            wanted = _served(plan.deployment, plan.base, plan.adapters, created)
            if server is None or _is_to_be_replaced(endpoint, server, wanted):
                server = self.start_server(endpoint, wanted, self.settings)
            else:
                change_adapters(endpoint, server, wanted)
            tidy(endpoint, server)
        return self.describe(endpoint.name)

    def _require_own(self, endpoint: EndpointFolder) -> None:
        """Raise EndpointError for an endpoint of another host of this machine."""
        other = endpoint.host()
        if endpoint.exists() and other is not self.name:
            delete = command("endpoints", "delete", endpoint.name)
            raise EndpointError(
                f"The endpoint {endpoint.name} exists with --host {other}. Nothing was deployed.",
                next_step=f"deploy it with --host {other}  (or, to have it here instead: {delete})",
            )

    def _fetch(self, plan: LocalPlan, endpoint: EndpointFolder) -> None:
        """Copy the adapters into the endpoint, each verified: what becomes of them elsewhere does not reach it."""
        registry = self._registry()
        for adapter in plan.adapters.values():
            folder = endpoint.adapter(adapter.manifest.files_sha256)
            if not folder.exists():
                registry.pull(adapter, folder)

    def deployment(self, name: str) -> Deployment:
        """Return what was asked for when an endpoint was deployed or changed last."""
        return self._served(name).deployment

    def contents(self, name: str) -> Contents:
        """Return what an endpoint draws with, as its server says."""
        adapters = known_adapters(self._calls(name))
        served = self._served(name)
        asked = served.deployment
        base_model = served.base_sha256 or f"{asked.base_model}@{asked.base_revision}"
        return Contents(base_model, adapters)

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
        newest = self._newest(endpoint)
        answering = endpoint.answering()
        shown = answering or newest
        served = shown.served()
        asked = served.deployment
        outcome = outcome_of(newest, is_update=answering is not None)
        now = datetime.now(UTC)
        used = None
        url = None
        if answering is not None:
            used = last_used(endpoint, answering, now)
            port = answering.progress().port
            url = f"http://{LOCALHOST}:{port}"
        expired = why_expired(asked.lease, served.created, used, now)
        return EndpointDescription(
            name=name,
            host=self.name,
            mode=asked.mode,
            status=outcome.status,
            base_model=asked.base_model,
            adapters=tuple(sorted(served.adapters)),
            created=served.created,
            lease=asked.lease,
            last_used=used,
            expired=expired,
            failure_reason=outcome.reason,
            next_step=outcome.next_step,
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
        names = []
        for path in sorted(self.settings.endpoints.glob("[!.]*")):
            endpoint = EndpointFolder(path)
            if endpoint.exists() and endpoint.host() is self.name:
                names.append(path.name)
        return names

    def invoke(
        self,
        name: str,
        body: bytes,
        accept: str,
    ) -> Answer:
        """Send a body of `/invocations` and return the answer."""
        return self._calls(name).call("POST", "/invocations", body, accept)

    def scale(
        self,
        name: str,
        fewest: int,
        most: int,
    ) -> None:
        """Refuse: a server on this machine is one process."""
        self._endpoint(name)
        if (fewest, most) != (1, 1):
            message = f"The endpoint {name} is one process on this machine, and cannot be scaled."
            raise EndpointError(
                message,
                next_step=command("deploy", name, "--host", "sagemaker", "--dry-run"),
            )

    def delete(self, name: str, *, keep_logs: bool = False) -> Sequence[str]:  # noqa: ARG002
        """End the servers of an endpoint and delete its folder, in which its logs are too; return what is gone."""
        endpoint = self._endpoint(name)
        self.settings.require_writable()
        with endpoint.locked(self.stop_seconds):
            gone = end_all(endpoint.servers(), _DELETED, self.stop_seconds)
            endpoint.remove()
        return [*gone, f"folder {endpoint.path}"]

    def finish(self) -> Sequence[EndpointDescription]:
        """Return none: a server on this machine needs nobody to wait for it."""
        return ()

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
            if endpoint.host() is not self.name:
                continue
            try:
                with endpoint.locked(0.0):
                    gone += self._collect(endpoint)
            except OrchestratorError as error:
                self.report(error)
        return gone

    def _collect(self, endpoint: EndpointFolder) -> list[str]:
        expired = None
        if endpoint.exists():
            expired = self.describe(endpoint.name).expired
        return collect(endpoint, expired, self.stop_seconds)

    def log_lines(self, name: str, *, follow: bool) -> Iterator[str]:
        """Yield what the newest server logged; with `follow`, go on until it ends."""
        server = self._newest(self._endpoint(name))
        try:
            log = server.log.open("rb")
        except FileNotFoundError:
            return
        with log:
            yield from printed_lines(log, lambda: follow and server.is_alive())

    def _calls(self, name: str) -> ServerCalls:
        """Return how to call an endpoint; raises EndpointError for one that does not answer now."""
        endpoint = self._endpoint(name)
        answering = endpoint.answering()
        token = endpoint.token()
        if answering is None:
            newest = outcome_of(self._newest(endpoint), is_update=False)
            if newest.status is EndpointStatus.CREATING:
                message = f"The endpoint {endpoint.name} is starting, and takes no requests yet."
                raise EndpointError(
                    message,
                    next_step=command("endpoints", "show", endpoint.name),
                )
            message = f"The endpoint {endpoint.name} does not run. {newest.reason}"
            raise EndpointError(message, next_step=newest.next_step or _LIST)
        port = answering.progress().port
        if token is None or port is None:
            again = deploy_command(answering.served().deployment)
            message = f"The token of the endpoint {endpoint.name} is gone, and its server takes no request without it."
            raise EndpointError(message, next_step=again)
        return ServerCalls(endpoint.name, port, token)

    def _registry(self) -> Registry:
        return Registry(open_stores(self.settings, self.report))

    def _served(self, name: str) -> Served:
        """Return what an endpoint serves, or what it served last."""
        endpoint = self._endpoint(name)
        shown = endpoint.answering() or self._newest(endpoint)
        return shown.served()

    def _newest(self, endpoint: EndpointFolder) -> ServerFolder:
        """Return the newest server; raises EndpointError when the endpoint was just deleted."""
        servers = endpoint.servers()
        if not servers:
            raise no_endpoint(endpoint.name, self.names())
        return servers[-1]

    def _endpoint(self, name: str) -> EndpointFolder:
        endpoint = self._folder(name)
        if endpoint.exists() and endpoint.host() is self.name:
            return endpoint
        raise no_endpoint(name, self.names())

    def _folder(self, name: str) -> EndpointFolder:
        if not is_folder_name(name) or name.startswith("."):
            raise no_endpoint(name, self.names())
        return EndpointFolder(self.settings.endpoints / name)


def _served(
    deployment: Deployment,
    base: BaseModel,
    adapters: Mapping[str, Adapter],
    created: datetime,
) -> Served:
    """Return what a server of a deployment serves."""
    hashes = {}
    for name, adapter in adapters.items():
        hashes[name] = adapter.manifest.files_sha256
    return Served(
        deployment=deployment,
        created=created,
        adapters=hashes,
        base_folder=base.folder,
        base_sha256=base.sha256,
    )


def _is_to_be_replaced(
    endpoint: EndpointFolder,
    server: ServerFolder,
    wanted: Served,
) -> bool:
    """Return whether a server cannot become what is wanted; without the token nobody can tell it anything."""
    is_lost = endpoint.token() is None
    return is_lost or server.served().needs_another_server(wanted)


def _living(endpoint: EndpointFolder) -> ServerFolder | None:
    """Return the newest server that serves, or is about to; None when there is none."""
    for server in reversed(endpoint.servers()):
        is_ending = server.stop_reason() is not None or server.progress().failed is not None
        if server.is_alive() and not is_ending:
            return server
    return None
