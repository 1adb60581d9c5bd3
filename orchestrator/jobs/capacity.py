"""Get instances for a job: when quota or capacity is lacking, try other instance types or retry later.

A quota refuses a job when it is created. A lack of capacity shows later, as a job that failed before it started, or
that waited for spot capacity until its limit. All attempts together cost no more than the worst case of the plan.
"""

import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple

from orchestrator.contract.command_line import command
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem
from orchestrator.errors import AccountError, CapacityError, NoSuchInstanceError, QuotaError
from orchestrator.jobs.failure_patterns import diagnose
from orchestrator.jobs.job import Job, cost
from orchestrator.planning.plan import Plan
from orchestrator.planning.pricing import dollars
from orchestrator.targets.base import JobDescription
from orchestrator.targets.names import TargetName

ROUND_SECONDS = 60.0
_NO_SPOT = "MaxWaitTimeExceeded"
_NO_INSTANCE = {"capacity", "waited-too-long"}
"""Kinds of failures after which the same instance type may be tried later, and another one now."""
_NO_SUCH_INSTANCE = "no-such-instance"
"""The kind after which only another type may be tried."""
Start = Callable[[Plan, bool], Job]
"""Submits a plan, as a further attempt when the flag is set, and may watch it until it ends."""
Refusals = dict[str, AccountError]
"""Why no instance was available, by instance type."""


class CapacityRetry(NamedTuple):
    """What to do when no instance is available; nothing, by default."""

    fallback: bool = False
    """Try the plan's stand-ins, in their order."""
    minutes: float = 0
    """Retry for up to this many minutes."""


def acquire(
    plan: Plan,
    start: Start,
    retry: CapacityRetry,
    report: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Job:
    """Start a plan, or one of its stand-ins, and return the job; `report` is called with what is tried next.

    Raises QuotaError or CapacityError, with the priced stand-ins, when no instance was available in time.
    """
    search = _Search(plan, start, retry, report)
    deadline = clock() + retry.minutes * 60
    while True:
        job, refusals = search.try_all()
        if job is not None:
            return job
        left = deadline - clock()
        if left <= 0 or not _may_change(refusals):
            raise _refusal(plan, refusals, retry)
        minutes = left / 60
        rest = counted(minutes, "minute")
        report(f"Retrying every minute for another {rest}. Ctrl-C ends this; no job is running now.")
        sleep(min(left, ROUND_SECONDS))


class _Search:
    """The attempts at one plan and its stand-ins, and what they have cost so far."""

    def __init__(
        self,
        plan: Plan,
        start: Start,
        retry: CapacityRetry,
        report: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._start = start
        self._report = report
        self._choices = [plan]
        if retry.fallback:
            self._choices += plan.stand_ins
        self._spent = Decimal()
        self._started_before = False
        self._absent: Refusals = {}

    def try_all(self) -> tuple[Job | None, Refusals]:
        """Try each choice once; return the job of the first that got an instance, and why those before it did not."""
        refusals: Refusals = {}
        for choice in self._choices:
            instance_type = _type_of(choice)
            if instance_type in self._absent:
                refusals[instance_type] = self._absent[instance_type]
                continue
            affordable = choice.after_spending(self._spent)
            if affordable is None:
                refusals[instance_type] = _budget_spent(self._plan, self._spent)
                continue
            job, refusal = self._try(affordable)
            if refusal is None:
                if refusals:
                    self._report(f"{instance_type} is used instead.")
                return job, refusals
            refusals[instance_type] = refusal
            if isinstance(refusal, NoSuchInstanceError):
                self._absent[instance_type] = refusal
            if len(self._choices) > 1:
                self._report(f"{instance_type} is not available. {refusal.message}")
        return None, refusals

    def _try(self, plan: Plan) -> tuple[Job | None, AccountError | None]:
        """Start a plan; return its job, and the refusal if it got no instance."""
        try:
            job = self._start(plan, self._started_before)
            self._started_before = True
            found = job.describe()
            refusal = _lack_of_capacity(found)
            self._spent += _cost_of_latest(found)
        except (QuotaError, CapacityError) as error:
            return None, error
        return job, refusal


def _may_change(refusals: Mapping[str, AccountError]) -> bool:
    """Whether one of the instance types may be available later."""
    return not all(isinstance(refusal, NoSuchInstanceError) for refusal in refusals.values())


def _lack_of_capacity(found: JobDescription) -> CapacityError | None:
    """Return the error for a job that ended without an instance, or None.

    A container that ran had one, whatever its last words remind of; only the wait for spot capacity goes on after it.
    """
    if found.target is not TargetName.SAGEMAKER:
        return None
    message = f"{found.name}: {found.failure_reason}"
    known = diagnose(found.failure_reason)
    kind = ""
    if known is not None and not found.started:
        kind = known.pattern.kind
    if kind == _NO_SUCH_INSTANCE:
        return NoSuchInstanceError(message, next_step="use another instance type, or another region")
    if found.stage == _NO_SPOT or kind in _NO_INSTANCE:
        return CapacityError(message, next_step="try again later")
    return None


def _cost_of_latest(found: JobDescription) -> Decimal:
    """Return what the latest attempt cost: a spot job may have run for hours before it lost its instance."""
    if not found.started:
        return Decimal()
    latest = found.model_copy(update={"billed_attempts": found.billed_attempts[-1:]})
    return cost(latest) or Decimal()


def _budget_spent(plan: Plan, usd: Decimal) -> AccountError:
    name = plan.request["TrainingJobName"]
    message = f"{name} has cost {dollars(usd)}; what is left of its budget is too little for another run."
    return CapacityError(message, next_step=command("jobs", "retry", name))


def _type_of(plan: Plan) -> str:
    if plan.placement is None:
        return "this machine"
    return plan.placement.instance.name


def _refusal(plan: Plan, refusals: Mapping[str, AccountError], retry: CapacityRetry) -> AccountError:
    """Return the refusal of the plan itself, with the stand-ins: their prices, or why they were refused too.

    The next step is what was not tried already: to wait, longer than before, and to take a stand-in.
    """
    first = refusals[_type_of(plan)]
    problems: list[Problem] = []
    for stand_in in plan.stand_ins:
        problem = _offer(stand_in, refusals)
        if problem is not None:
            problems.append(problem)
    minutes = 60
    while minutes <= retry.minutes:
        minutes *= 2
    next_step = first.next_step
    if _may_change(refusals):
        next_step = f"with --wait-minutes {minutes}; or {next_step}"
    if problems and not retry.fallback:
        next_step = f"the same command with --fallback (takes the first of these that is available), or {next_step}"
    error = type(first)(
        f"{first.message} No job is running now.",
        next_step=next_step,
        problems=problems,
    )
    error.code = first.code
    return error


def _offer(stand_in: Plan, refusals: Mapping[str, AccountError]) -> Problem | None:
    """Return the price of a stand-in, or why it was not available."""
    placement = stand_in.placement
    if placement is None:
        return None
    instance = placement.instance
    if instance.name in refusals:
        refusal = refusals[instance.name]
        return Problem(where=instance.name, what=f"not available either: {refusal}")
    gpu = instance.gpu
    price = placement.cost.describe()
    return Problem(
        where=instance.name,
        what=f"{gpu.name}, {gpu.memory_gib} GiB: could be used instead, {price}",
        fix=f"--instance-type {instance.name}",
    )
