"""What a deployment on this machine starts: everything that can be wrong with it is found before that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from orchestrator.adapters.registry import Adapter
from orchestrator.contract.plurals import counted
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.inputs import UNDONE, BaseModel
from orchestrator.endpoints.leases import duration_text
from orchestrator.endpoints.names import HostName
from orchestrator.errors import MachineError
from orchestrator.targets.local.process import ProcessLauncher
from orchestrator.terminal import size_text

_SHOWN = 8
"""Adapters that a plan lists."""
_HOSTS = {HostName.LOCAL: "a server process on this machine", HostName.CONTAINER: "a container on this machine"}
_SERVER_PACKAGES = ("fastapi", "uvicorn")


@dataclass(frozen=True)
class LocalPlan:
    """What a deployment on this machine starts."""

    deployment: Deployment
    """What was asked for."""
    base: BaseModel
    """Its base model."""
    adapters: Mapping[str, Adapter]
    """Its adapters by name, as they were found."""
    change: str
    """What becomes of an endpoint of that name."""

    @property
    def usd_per_hour(self) -> float | None:
        """None: nothing is billed."""
        return None

    @property
    def facts(self) -> Sequence[tuple[str, str]]:
        """Label and value of each fact to show."""
        asked = self.deployment
        base = asked.base_model
        if asked.base_revision is not None:
            base = f"{base} {asked.base_revision}"
        facts = [
            ("endpoint", asked.name),
            ("host", _HOSTS[asked.host]),
            ("status", self.change),
            ("base model", base),
            ("adapters", self._adapters_text()),
        ]
        lease = asked.lease
        if lease.ttl_seconds is not None:
            facts.append(("ends after", duration_text(lease.ttl_seconds)))
        if lease.idle_seconds is not None:
            facts.append(("ends when idle", duration_text(lease.idle_seconds)))
        facts.append(("cost", "nothing is billed"))
        return facts

    def _adapters_text(self) -> str:
        if not self.adapters:
            return "none"
        texts = [f"{name} ({size_text(adapter.bytes)})" for name, adapter in self.adapters.items()]
        shown = ", ".join(texts[:_SHOWN])
        more = len(texts) - _SHOWN
        if more > 0:
            return f"{shown} and {counted(more, 'other')}"
        return shown


def require_machine() -> None:
    """Raise MachineError when this machine lacks what a server runs with."""
    ProcessLauncher().require_machine()
    for package in _SERVER_PACKAGES:
        if find_spec(package) is None:
            raise MachineError(
                f"A server on this machine needs {package}, which is not installed. {UNDONE}",
                next_step="pip install 'orchestrator[serve]'",
            )
