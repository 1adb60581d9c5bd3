"""The money of a sweep: one total, divided before anything starts.

Why it is kept: each job gets the same share, in whole cents rounded down, and a share becomes a limit in seconds that
the service itself enforces. `pricing.runtime_for` counts in the two minutes of stopping and an allowance for the
upload, to which the service promises no upper end; retries of the service and interruptions count towards the same
limit. A sweep starts each job once at most. A job that runs already has the limit it was submitted with, and is refused
when its share does not pay for that.
All by the list prices of `assets/instances.json`; the next sweep has a total of its own.
"""

from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from pydantic import ValidationError

from orchestrator.aws.instances import instances
from orchestrator.contract.problem import Problem, problems_of
from orchestrator.errors import SpecError
from orchestrator.models.size import of_source
from orchestrator.planning.duration import upload_seconds
from orchestrator.planning.plan import Plan
from orchestrator.planning.pricing import CENT, dollars, worst_case
from orchestrator.specs.compute import Budget
from orchestrator.specs.job import JobSpec
from orchestrator.sweeps.grid import Variant
from orchestrator.targets.base import JobDescription
from orchestrator.targets.names import TargetName


def with_shares(
    variants: Sequence[Variant],
    max_usd: Any,  # a number of the command line, or None
) -> list[Variant]:
    """Give each job its share of the total; a job's own budget stays if it is lower.

    Without a total the jobs stay as they are. Raises SpecError when it is no sum of money, or too small to divide.
    """
    total = _parse_total(max_usd)
    if total is None:
        return list(variants)
    share = (total / len(variants)).quantize(CENT, ROUND_FLOOR)
    if not share:
        raise _refused(f"{dollars(total)} is less than a cent for each of {len(variants)} jobs")
    paid = []
    for variant in variants:
        spec = _with_share(variant.spec, share)
        paid.append(variant._replace(spec=spec))
    return paid


def total_worst_case(plans: Sequence[Plan]) -> Decimal | None:
    """Return the most that all jobs together can cost.

    None on this machine, which costs nothing, and when the price of an instance type is not known.
    """
    total = None
    for plan in plans:
        if plan.placement is None:
            continue
        usd = plan.placement.cost.usd
        if usd is None:
            return None
        total = (total or Decimal()) + usd
    return total


def require_share(spec: JobSpec, description: JobDescription) -> None:
    """Raise SpecError for a job that runs by a limit of its own which its share does not pay for."""
    share = spec.budget.max_usd
    if share is None or description.target is not TargetName.SAGEMAKER:
        return
    instance_type, region, limit = description.instance_type, description.region, description.runtime_limit_seconds
    if instance_type is None or region is None or limit is None:  # not told by the service: nothing to compare
        return
    machine = instances().get(instance_type)
    most = None
    if machine is not None:
        compute = spec.compute.model_copy(update={"instance_count": description.instance_count})
        upload = upload_seconds(spec.recipe, of_source(spec.base_model))
        most = worst_case(machine, compute, region, limit, upload).usd
    if most is None:
        raise _refused(f"{description.name} runs on {instance_type}, whose price is not known")
    if most > share:
        message = f"{description.name} was submitted before and may still cost {dollars(most)}"
        raise _refused(f"{message}; its share is {dollars(share)}")


def _parse_total(max_usd: Any) -> Decimal | None:  # as in with_shares
    """Return the total, None when there is none; raises SpecError when it is no sum of money."""
    try:
        return Budget(max_usd=max_usd).max_usd
    except ValidationError as error:
        raise SpecError(
            "The sweep's budget cannot be read; nothing was started.",
            problems=problems_of(error),
            next_step="write --max-usd 10",
        ) from error


def _with_share(spec: JobSpec, share: Decimal) -> JobSpec:
    """Return a job that may cost no more than its share."""
    own = spec.budget.max_usd
    if own is not None:
        share = min(own, share)
    budget = Budget(max_usd=share)
    return spec.model_copy(update={"budget": budget})


def _refused(what: str) -> SpecError:
    """Return the error for a total that is too small."""
    return SpecError(
        "The total does not pay for this sweep; nothing was started.",
        problems=[Problem(where="--max-usd", what=what)],
        next_step="allow more with --max-usd, or vary less",
    )
