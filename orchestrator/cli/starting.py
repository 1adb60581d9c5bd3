"""From a planned job to a running one: what it warns of, what it costs, and how it is watched."""

from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.cli.job_options import ask_to_spend, turn_of
from orchestrator.cli.output import say

if TYPE_CHECKING:
    from orchestrator.jobs.job import Job
    from orchestrator.planning.inputs import PreparedInputs
    from orchestrator.planning.plan import Plan
    from orchestrator.settings import AwsSettings, Settings
    from orchestrator.specs.job import JobSpec
    from orchestrator.targets.base import Target


class Start(NamedTuple):
    """Options of how a job is started and shown."""

    resume: bool
    restart: bool
    detach: bool
    as_json: bool
    fallback: bool
    wait_minutes: int
    queue: bool
    together: bool


def chosen_start(given: dict[str, Any]) -> Start:
    """Take the options of how a job that trains nothing is started and shown; raises UsageError for two turns."""
    start = Start(
        resume=False,
        restart=given.pop("restart"),
        detach=given.pop("detach"),
        as_json=given.pop("as_json"),
        fallback=False,
        wait_minutes=0,
        queue=given.pop("queue"),
        together=given.pop("together"),
    )
    turn_of(queue=start.queue, together=start.together)
    return start


def show_without_calls(
    spec: "JobSpec",
    settings: "Settings",
    prepared: "PreparedInputs",
    *,
    as_json: bool,
) -> None:
    """Print the plan of a job on SageMaker; asks no service."""
    from orchestrator.cli.plans import NOT_STARTED, print_plan
    from orchestrator.models.mirrored import NOT_ASKED
    from orchestrator.planning.plan import plan_on_sagemaker
    from orchestrator.settings import AwsSettings

    known = settings.aws()
    account = known or AwsSettings.placeholder()
    plan = plan_on_sagemaker(spec, settings, account, prepared, NOT_ASKED)
    warn(plan)
    print_plan(plan, account.bucket, as_json=as_json, ready=known is not None)
    if not as_json:
        say(NOT_STARTED, err=True)


def start_on_sagemaker(
    spec: "JobSpec",
    settings: "Settings",
    account: "AwsSettings",
    prepared: "PreparedInputs",
    start: Start,
    *,
    yes: bool,
) -> int:
    """Plan a job, ask before money is spent, send what it reads, start it, and return the exit code."""
    # Imported late: a dry run needs nothing that watches jobs.
    from orchestrator.cli.progress import uploading
    from orchestrator.planning.plan import store_trees
    from orchestrator.targets.names import TargetName
    from orchestrator.targets.opening import open_target

    plan = _agreed_plan(spec, settings, account, prepared, quiet=start.as_json, yes=yes)
    with uploading(quiet=start.as_json) as progress:
        target = open_target(TargetName.SAGEMAKER, settings, progress)
        store_trees(plan, target.store)
    if plan.mirrored is not None:
        model = plan.mirrored.describe()
        say(f"Base model: the copy of {model}", err=True)
    return begin(plan, target, start)


def _agreed_plan(
    spec: "JobSpec",
    settings: "Settings",
    account: "AwsSettings",
    prepared: "PreparedInputs",
    *,
    quiet: bool,
    yes: bool,
) -> "Plan":
    """Plan a job, show the plan, and ask before money is spent. Stores and starts nothing."""
    from orchestrator.aws.client import Aws
    from orchestrator.cli.plans import print_plan
    from orchestrator.infra.training_image import require_image
    from orchestrator.models.mirror import ask
    from orchestrator.planning.plan import plan_on_sagemaker
    from orchestrator.targets.names import TargetName
    from orchestrator.targets.opening import open_target

    store = open_target(TargetName.SAGEMAKER, settings).store
    mirror = ask(store, spec.base_model)
    plan = plan_on_sagemaker(spec, settings, account, prepared, mirror)
    warn(plan)
    image = require_image(Aws(account.region), account)
    plan = plan.in_image(image)
    if not quiet:
        print_plan(
            plan,
            account.bucket,
            as_json=False,
            ready=True,
        )
    ask_to_spend("Submit it?", yes=yes, capped=spec.budget.max_usd is not None)
    return plan


def warn(plan: "Plan") -> None:
    """Print what a plan warns of, and what it derives from its settings."""
    from orchestrator.contract.events import NOTE

    for warning in plan.warnings:
        say(f"Warning: {warning.render()}", err=True)
    for note in plan.notes:
        say(f"{NOTE}{note}", err=True)


def begin(plan: "Plan", target: "Target", start: Start) -> int:
    """Start a planned job whose trees are stored, watch it unless told not to, and return the exit code."""
    from orchestrator.cli.results import print_outcome
    from orchestrator.jobs.capacity import CapacityRetry, acquire

    def run(attempt: "Plan", again: bool) -> "Job":
        return _run(attempt, target, start, again=again)

    def report(text: str) -> None:
        say(text, err=True)

    retry = CapacityRetry(start.fallback, start.wait_minutes)
    job = acquire(plan, run, retry, report)
    return print_outcome(job, as_json=start.as_json)


def _run(plan: "Plan", target: "Target", start: Start, *, again: bool) -> "Job":
    from orchestrator.cli.progress import follow, follow_own, leaving
    from orchestrator.jobs.job import submit as submit_plan

    job, started = submit_plan(
        plan,
        target,
        resume=start.resume or again,
        restart=start.restart and not again,
    )
    if not started:
        say(f"{job.name} was submitted before; --restart starts it from its beginning.", err=True)
    if start.detach:
        return job
    with leaving(job):
        if started:
            follow_own(job, quiet=start.as_json)
        else:
            follow(job, quiet=start.as_json)
    return job
