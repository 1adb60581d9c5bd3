"""What each job of a sweep would be: all are planned before the first is started, and refused together."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.models.mirrored import NOT_ASKED, MirrorAnswer
from orchestrator.planning.inputs import PreparedInputs, prepare_inputs, reads_masks
from orchestrator.planning.placement import BUDGET_FIELD
from orchestrator.planning.plan import Plan, plan_here, plan_on_sagemaker
from orchestrator.requests import LocalContainer
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.base_model import ModelSource
from orchestrator.specs.job import JobSpec
from orchestrator.storage import Store
from orchestrator.sweeps.grid import Variant
from orchestrator.sweeps.refusal import refusal
from orchestrator.sweeps.running import Entry

_InputsKey = tuple[object, ...]
"""What the prepared inputs of a job depend on: its files, and the settings by which they are read."""


def plan_sweep_here(
    variants: Sequence[Variant],
    settings: Settings,
    staging: Path,
    container: LocalContainer | None = None,
) -> list[Entry]:
    """Plan every job on this machine, in a `container` or as processes; raises one error with the problems of all."""

    def plan(spec: JobSpec, prepared: PreparedInputs) -> Plan:
        return plan_here(spec, settings, prepared, container)

    return _plan_all(variants, staging, plan)


def plan_sweep_on_sagemaker(
    variants: Sequence[Variant],
    settings: Settings,
    account: AwsSettings,
    staging: Path,
    mirrors: Mapping[ModelSource, MirrorAnswer],
) -> list[Entry]:
    """Plan every job in an account; raises one error with the problems of all.

    `mirrors` is what the bucket said of the base models; it was not asked about one that is left out.
    """

    def plan(spec: JobSpec, prepared: PreparedInputs) -> Plan:
        mirror = mirrors.get(spec.base_model, NOT_ASKED)
        return plan_on_sagemaker(
            spec,
            settings,
            account,
            prepared,
            mirror,
        )

    return _plan_all(variants, staging, plan)


def in_image(entries: Sequence[Entry], image: str) -> list[Entry]:
    """Return the same jobs in an image of another name."""
    changed = []
    for entry in entries:
        plan = entry.plan.in_image(image)
        changed.append(entry._replace(plan=plan))
    return changed


def store_trees(entries: Sequence[Entry], store: Store) -> None:
    """Store what the jobs read: once what several of them do."""
    trees = {}
    for entry in entries:
        for tree in entry.plan.trees:
            trees[tree.name] = tree
    for tree in trees.values():
        store.put_tree(tree)


def _plan_all(
    variants: Sequence[Variant],
    staging: Path,
    plan: Callable[[JobSpec, PreparedInputs], Plan],
) -> list[Entry]:
    """Plan every job; the pictures are prepared once for all jobs that learn from them at one resolution."""
    entries: list[Entry] = []
    errors: dict[int, OrchestratorError] = {}
    prepared: dict[_InputsKey, PreparedInputs] = {}
    for number, variant in enumerate(variants):
        spec = variant.spec
        inputs = frozenset(spec.inputs.items())
        recipe = spec.recipe
        key = (
            inputs,
            spec.prompts,
            recipe.prompts_held_out,
            recipe.learns_from.name,
            recipe.resolution,
            reads_masks(recipe),
            recipe.reads_conditions,
        )
        if key not in prepared:
            folder = staging / str(len(prepared))
            prepared[key] = prepare_inputs(spec, folder)
        try:
            planned = plan(spec, prepared[key])
        except OrchestratorError as error:
            errors[number] = _of_share(error, len(variants))
            continue
        entry = Entry(variant, planned)
        entries.append(entry)
    if errors:
        settings = [variant.settings for variant in variants]
        raise refusal(settings, errors)
    return entries


def _of_share(error: OrchestratorError, jobs: int) -> OrchestratorError:
    """Say of a budget that is too small whose it is: what a person typed is the total."""
    share = {
        "where": "share of --max-usd",
        "fix": f"for each of the {jobs} jobs",
    }
    problems = []
    for problem in error.problems:
        if problem.where == BUDGET_FIELD:
            problems.append(problem.model_copy(update=share))
        else:
            problems.append(problem)
    kind = type(error)
    return kind(
        error.message,
        next_step=error.next_step,
        problems=problems,
        warnings=error.warnings,
    )
