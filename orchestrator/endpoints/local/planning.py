"""What a deployment on this machine starts: everything that can be wrong with it is found before that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from orchestrator.adapters.registry import Adapter, Registry, Report
from orchestrator.contract.families import is_hub_id
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.leases import duration_text
from orchestrator.errors import EndpointError, MachineError, OrchestratorError, SpecError
from orchestrator.settings import Settings
from orchestrator.specs.base_model import Hub, base_model_problems, parse_base_model
from orchestrator.storage.hash_cache import HashCache
from orchestrator.targets.local.process import ProcessLauncher
from orchestrator.terminal import size_text

UNDONE = "Nothing was deployed."
_SHOWN = 8
"""Adapters that a plan lists."""
_SERVER_PACKAGES = ("fastapi", "uvicorn")


@dataclass(frozen=True)
class BaseModel:
    """The base model of an endpoint, found on this machine or named on the Hub."""

    folder: Path | None
    """Its folder; None for one of the Hub."""
    sha256: str | None
    """Hash of its weights; None for one of the Hub."""


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
            ("host", "a server process on this machine"),
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


def find_base(deployment: Deployment, settings: Settings) -> BaseModel:
    """Return the base model of a deployment; raises SpecError when it cannot be used."""
    problems = base_model_problems(deployment.base_model, deployment.base_revision)
    if problems:
        shown = []
        for problem in problems:
            option = {"base_model": "--base-model", "base_revision": "--base-revision"}.get(
                problem.where, problem.where
            )
            shown.append(problem.model_copy(update={"where": option}))
        raise SpecError(
            f"The base model cannot be used. {UNDONE}",
            problems=shown,
            next_step="name a model in the diffusers layout: --base-model FOLDER, or a Hugging Face id",
        )
    source = parse_base_model(deployment.base_model, deployment.base_revision)
    if isinstance(source, Hub):
        return BaseModel(None, None)
    hashes = HashCache(settings.cache / "hashes")
    sha256 = files_sha256(
        source.folder,
        weight_files(source.folder),
        hashes.digest,
    )
    return BaseModel(source.folder, sha256)


def find_adapters(
    deployment: Deployment,
    base: BaseModel,
    registry: Registry,
    report: Report,
) -> dict[str, Adapter]:
    """Return the adapters of a deployment; raises one error for all that cannot be served."""
    found: dict[str, Adapter] = {}
    problems = []
    next_step = ""
    for name in dict.fromkeys(deployment.adapters):
        try:
            adapter = registry.verified(registry.find(name, report))
            adapter.require_complete()
        except OrchestratorError as error:
            problems.append(
                Problem(
                    where=name,
                    what=error.message.rstrip("."),
                    fix=error.next_step,
                )
            )
            next_step = next_step or error.next_step
            continue
        misfit = _misfit(adapter, deployment, base)
        if misfit is not None:
            problems.append(misfit)
        found[name] = adapter
    if problems:
        raise EndpointError(
            f"Not every adapter can be served by {deployment.name}. {UNDONE}",
            problems=problems,
            next_step=next_step or "name the base model that they were trained on: --base-model MODEL",
        )
    return found


def _misfit(
    adapter: Adapter,
    deployment: Deployment,
    base: BaseModel,
) -> Problem | None:
    """Return how the base model is not the one that an adapter was trained on; None when it is, or cannot be known."""
    trained_on = adapter.manifest.base_model
    if base.sha256 is None:
        # The weights of one of the Hub are not known before the server has fetched them, and it looks again.
        same = trained_on.id == deployment.base_model or not is_hub_id(trained_on.id)
    else:
        same = trained_on.fingerprint == base.sha256
    if same:
        return None
    what = f'was trained on "{trained_on.id}" ({trained_on.fingerprint[:12]})'
    if base.sha256 is None:
        what = f'was trained on "{trained_on.id}"'
    whose = f'"{deployment.base_model}"'
    if base.sha256 is not None:
        whose = f"{whose} ({base.sha256[:12]})"
    return Problem(
        where=adapter.name,
        what=f"{what}, and the base model is {whose}",
        fix="leave it out",
    )
