"""What an endpoint serves, on any host: its base model and its adapters, found and checked before anything starts."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.registry import Adapter, Registry, Report
from orchestrator.contract.families import is_hub_id
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.contract.problem import Problem
from orchestrator.endpoints.deployment import Deployment
from orchestrator.errors import EndpointError, OrchestratorError, SpecError
from orchestrator.settings import Settings
from orchestrator.specs.base_model import Hub, base_model_problems, parse_base_model
from orchestrator.storage.hash_cache import HashCache

UNDONE = "Nothing was deployed."


@dataclass(frozen=True)
class BaseModel:
    """The base model of an endpoint, found on this machine or named on the Hub."""

    folder: Path | None
    """Its folder; None for one of the Hub."""
    sha256: str | None
    """Hash of its weights; None for one of the Hub."""


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
