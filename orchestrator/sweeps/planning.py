"""What each job of a sweep would be: all are planned before the first is started, and refused together."""

from collections.abc import Callable, Sequence

from orchestrator.errors import OrchestratorError
from orchestrator.planning.placement import BUDGET_FIELD
from orchestrator.planning.plan import Plan, Shared, plan_here, plan_on_sagemaker
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.job import JobSpec
from orchestrator.storage import DryS3Store, Store
from orchestrator.sweeps.grid import Variant
from orchestrator.sweeps.refusal import refusal
from orchestrator.sweeps.running import Entry


def plan_sweep(
    variants: Sequence[Variant], settings: Settings, account: AwsSettings | None, store: Store | DryS3Store
) -> list[Entry]:
    """Plan every job, in an account or else on this machine; raises one error with the problems of all.

    Pictures, model and code that jobs share are looked at and stored once.
    """
    shared = Shared()
    if account is None:
        return _plan_all(variants, lambda spec: plan_here(spec, settings, store, shared))
    return _plan_all(variants, lambda spec: plan_on_sagemaker(spec, settings, account, store, shared))


def _plan_all(variants: Sequence[Variant], plan: Callable[[JobSpec], Plan]) -> list[Entry]:
    entries: list[Entry] = []
    errors: dict[int, OrchestratorError] = {}
    for number, variant in enumerate(variants):
        try:
            entries.append(Entry(variant, plan(variant.spec)))
        except OrchestratorError as error:
            errors[number] = _of_share(error, len(variants))
    if errors:
        raise refusal([variant.settings for variant in variants], errors)
    return entries


def _of_share(error: OrchestratorError, jobs: int) -> OrchestratorError:
    """Say of a budget that is too small whose it is: what a person typed is the total."""
    problems = [
        problem.model_copy(update={"where": "share of --max-usd", "fix": f"for each of the {jobs} jobs"})
        if problem.where == BUDGET_FIELD
        else problem
        for problem in error.problems
    ]
    return type(error)(error.message, next_step=error.next_step, problems=problems)
