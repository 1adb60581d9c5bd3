"""Getting a job its machines: what cannot be had for want of quota or capacity is tried elsewhere, or again later.

A quota refuses a job when it is created. Want of capacity shows later, as a job that failed before it began, or that
waited for spot capacity in vain. To a person both are the same: no machine. All that is tried costs together no more
than the first of it was allowed to.
"""

import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple

from orchestrator.contract.problem import Problem
from orchestrator.errors import AccountError, CapacityError, QuotaError
from orchestrator.jobs.failure_patterns import diagnose
from orchestrator.jobs.job import Job, cost
from orchestrator.planning.plan import Plan
from orchestrator.planning.pricing import dollars
from orchestrator.targets.base import JobDescription

ROUND_SECONDS = 60.0
_NO_SPOT = "MaxWaitTimeExceeded"
Start = Callable[[Plan, bool], Job]
"""Submits a plan, as a further attempt when the flag says that there was one, and may watch it to its end."""


class Patience(NamedTuple):
    """What is done when an instance cannot be had; nothing, by default."""

    fallback: bool = False
    """Try what can stand in for it, in the plan's order."""
    minutes: float = 0
    """Ask again for so long."""


def acquire(
    plan: Plan,
    start: Start,
    patience: Patience,
    told: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Job:
    """Start a plan, or what stands in for it, and return its job; `told` hears what is tried next.

    Raises QuotaError or CapacityError, with the priced stand-ins, when the patience is over.
    """
    ways = [plan, *plan.stand_ins] if patience.fallback else [plan]
    deadline = clock() + patience.minutes * 60
    again, spent = False, Decimal()
    while True:
        refusals: dict[str, AccountError] = {}
        for way in ways:
            if (rest := way.after_spending(spent)) is None:
                refusals[_type_of(way)] = _spent(plan, spent)
                continue
            try:
                job = start(rest, again)
                again = True
                found = job.describe()
                want = _want(found)
                spent += _bill(found)
            except (QuotaError, CapacityError) as error:
                want = error
            if want is None:
                if refusals:
                    told(f"{_type_of(way)} it is.")
                return job
            refusals[_type_of(way)] = want
            if len(ways) > 1:
                told(f"{_type_of(way)} is not to be had. {want.message}")
        left = deadline - clock()
        if left <= 0:
            raise _refusal(plan, refusals)
        told(f"Asking again every minute, for {left / 60:.0f} minutes more. Ctrl-C ends that; nothing runs meanwhile.")
        sleep(min(left, ROUND_SECONDS))


def _want(found: JobDescription) -> AccountError | None:
    """Return what a job lacked when it ended without a machine, or None."""
    known = diagnose(found.failure_reason) if found.region else None
    if found.stage == _NO_SPOT or (known is not None and known.signature.kind == "capacity"):
        return CapacityError(f"{found.name}: {found.failure_reason}", next_step="try again later")
    return None


def _bill(found: JobDescription) -> Decimal:
    """Return what the latest attempt cost: on spot it may have run for hours and lost its machine."""
    latest = found.model_copy(update={"bills": found.bills[-1:]})
    return (cost(latest) if found.started else None) or Decimal()


def _spent(plan: Plan, usd: Decimal) -> AccountError:
    name = plan.request["TrainingJobName"]
    message = f"{name} has cost {dollars(usd)}, and what is left of its limit pays for no run."
    return CapacityError(message, next_step=f"python -m orchestrator jobs retry {name}")


def _type_of(plan: Plan) -> str:
    return plan.placement.instance.name if plan.placement else "this machine"


def _refusal(plan: Plan, refusals: Mapping[str, AccountError]) -> AccountError:
    """Return the refusal of the plan itself, with what could stand in or was tried in vain."""
    first = refusals[_type_of(plan)]
    problems = [problem for one in plan.stand_ins if (problem := _offer(one, refusals)) is not None]
    offered = "the same command with --fallback (the first of these to be had), or " if problems else ""
    error = type(first)(
        f"{first.message} Nothing runs now.",
        next_step=f"{offered}with --wait-minutes 60; or {first.next_step}",
        problems=problems,
    )
    error.code = first.code
    return error


def _offer(plan: Plan, refusals: Mapping[str, AccountError]) -> Problem | None:
    if plan.placement is None:
        return None
    place = plan.placement
    if place.instance.name in refusals:
        return Problem(where=place.instance.name, what=f"was not to be had either: {refusals[place.instance.name]}")
    what = f"{place.instance.gpu.name}, {place.instance.gpu.memory_gib} GiB: could stand in, {place.cost.describe()}"
    return Problem(where=place.instance.name, what=what, fix=f"--instance-type {place.instance.name}")
