"""`submit`: from photos and a prompt to an adapter."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from orchestrator.cli.job_options import ask_to_spend, check_target, job_options, spec_fields, turn_of, turn_options
from orchestrator.cli.output import json_option, print_json, say

if TYPE_CHECKING:
    from orchestrator.jobs.job import Job
    from orchestrator.planning.plan import Plan
    from orchestrator.settings import AwsSettings, Settings
    from orchestrator.specs.job import JobSpec
    from orchestrator.targets.base import Target


_A_WEEK = 7 * 24 * 60  # in minutes


@click.command()
@job_options(
    setting="FIELD=VALUE",
    sets="Set any field of the recipe.",
    max_usd="On SageMaker: what the job may cost; sets its time limit, with an allowance for stopping and uploading.",
)
@click.option(
    "--fallback",
    is_flag=True,
    help="On SageMaker: try other instance types when the chosen one is not available.",
)
@click.option(
    "--wait-minutes",
    metavar="N",
    type=click.IntRange(0, _A_WEEK),
    default=0,
    help="On SageMaker: retry for up to N minutes when no instance is available.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume the same job from its newest checkpoint.",
)
@click.option("--restart", is_flag=True, help="Start the same job again from its beginning.")
@turn_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be started and start nothing; makes no call.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="On SageMaker: do not ask before spending.",
)
@click.option(
    "--detach",
    is_flag=True,
    help="Return at once; `jobs wait` watches the job.",
)
@json_option
def submit(what: str, *, target: str, dry_run: bool, yes: bool, **given: Any) -> int:
    """Train an adapter with a RECIPE (see `recipes list`) or from a JOB.yaml.

    \b
    submit dreambooth
    submit dreambooth --images ./dog --prompt "a photo of sks dog" -s steps=400
    submit job.yaml --resume
    submit job.yaml --target sagemaker --max-usd 3
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.settings import Settings

    check_target(target, given)
    flags = {name: given.pop(name) for name in _Start._fields}
    start = _Start(**flags)
    if start.resume and start.restart:
        raise click.UsageError(
            "--resume continues from a checkpoint and --restart starts from the beginning: choose one."
        )
    turn_of(queue=start.queue, together=start.together)  # refuses both
    settings = Settings.from_environment()
    spec = _spec(what, given)
    if target == "local":
        return _submit_here(spec, settings, start, dry_run=dry_run)
    return _submit_to_sagemaker(spec, settings, start, dry_run=dry_run, yes=yes)


class _Start(NamedTuple):
    """Options of how a job is started and shown."""

    resume: bool
    restart: bool
    detach: bool
    as_json: bool
    fallback: bool
    wait_minutes: int
    queue: bool
    together: bool


def _submit_here(
    spec: "JobSpec",
    settings: "Settings",
    start: _Start,
    *,
    dry_run: bool,
) -> int:
    from orchestrator.cli.local_plan import expected_text, print_local_plan, require_disk
    from orchestrator.cli.plans import warn_of_taken_name
    from orchestrator.planning.inputs import prepare_inputs
    from orchestrator.planning.plan import plan_here, store_trees
    from orchestrator.storage import FolderStore
    from orchestrator.targets.local.process import ProcessTarget

    if not dry_run:
        settings.require_writable()
    target = ProcessTarget(settings, turn_of(queue=start.queue, together=start.together))
    with TemporaryDirectory(prefix="orchestrator-") as staging:
        prepared = prepare_inputs(spec, Path(staging))
        plan = plan_here(spec, settings, prepared)
        _warn(plan)
        if dry_run:
            is_taken = warn_of_taken_name(
                plan,
                settings,
                resume=start.resume,
                restart=start.restart,
            )
            if start.as_json:
                print_json(plan.request)
            else:
                print_local_plan(plan, spec, prepared, target, is_taken=is_taken)
            return 0
        require_disk(plan, spec, target)
        store_trees(plan, FolderStore(settings.store))
    if not start.as_json and not target.has(plan.request["TrainingJobName"]):
        say(f"Expected duration: {expected_text(spec, target)}", err=True)
    return _begin(plan, target, start)


def _submit_to_sagemaker(
    spec: "JobSpec",
    settings: "Settings",
    start: _Start,
    *,
    dry_run: bool,
    yes: bool,
) -> int:
    from orchestrator.planning.plan import store_trees

    with TemporaryDirectory(prefix="orchestrator-") as staging:
        if dry_run:
            _show_without_calls(spec, settings, Path(staging), as_json=start.as_json)
            return 0
        # Imported late: a dry run needs nothing that watches jobs.
        from orchestrator.cli.progress import uploading
        from orchestrator.targets.names import TargetName
        from orchestrator.targets.opening import open_target

        account = settings.account()
        plan = _agreed_plan(
            spec,
            settings,
            account,
            Path(staging),
            quiet=start.as_json,
            yes=yes,
        )
        with uploading(quiet=start.as_json) as progress:
            target = open_target(TargetName.SAGEMAKER, settings, progress)
            store_trees(plan, target.store)
    if plan.mirrored is not None:
        model = plan.mirrored.describe()
        say(f"Base model: the copy of {model}", err=True)
    return _begin(plan, target, start)


def _show_without_calls(
    spec: "JobSpec",
    settings: "Settings",
    staging: Path,
    *,
    as_json: bool,
) -> None:
    from orchestrator.cli.plans import NOT_STARTED, print_plan
    from orchestrator.models.mirrored import NOT_ASKED
    from orchestrator.planning.inputs import prepare_inputs
    from orchestrator.planning.plan import plan_on_sagemaker
    from orchestrator.settings import AwsSettings

    known = settings.aws()
    account = known or AwsSettings.placeholder()
    prepared = prepare_inputs(spec, staging)
    plan = plan_on_sagemaker(spec, settings, account, prepared, NOT_ASKED)
    _warn(plan)
    print_plan(plan, account.bucket, as_json=as_json, ready=known is not None)
    if not as_json:
        say(NOT_STARTED, err=True)


def _agreed_plan(
    spec: "JobSpec",
    settings: "Settings",
    account: "AwsSettings",
    staging: Path,
    *,
    quiet: bool,
    yes: bool,
) -> "Plan":
    """Plan a job, show the plan, and ask before money is spent. Stores and starts nothing."""
    from orchestrator.aws.client import Aws
    from orchestrator.cli.plans import print_plan
    from orchestrator.infra.training_image import require_image
    from orchestrator.models.mirror import ask
    from orchestrator.planning.inputs import prepare_inputs
    from orchestrator.planning.plan import plan_on_sagemaker
    from orchestrator.targets.names import TargetName
    from orchestrator.targets.opening import open_target

    store = open_target(TargetName.SAGEMAKER, settings).store
    mirror = ask(store, spec.base_model)
    prepared = prepare_inputs(spec, staging)
    plan = plan_on_sagemaker(spec, settings, account, prepared, mirror)
    _warn(plan)
    require_image(Aws(account.region), account)
    if not quiet:
        print_plan(
            plan,
            account.bucket,
            as_json=False,
            ready=True,
        )
    ask_to_spend("Submit it?", yes=yes, capped=spec.budget.max_usd is not None)
    return plan


def _warn(plan: "Plan") -> None:
    from orchestrator.contract.events import NOTE

    for warning in plan.warnings:
        say(f"Warning: {warning.render()}", err=True)
    for note in plan.notes:
        say(f"{NOTE}{note}", err=True)


def _begin(plan: "Plan", target: "Target", start: _Start) -> int:
    from orchestrator.cli.results import print_outcome
    from orchestrator.jobs.capacity import CapacityRetry, acquire

    def run(attempt: "Plan", again: bool) -> "Job":
        return _run(attempt, target, start, again=again)

    def report(text: str) -> None:
        say(text, err=True)

    retry = CapacityRetry(start.fallback, start.wait_minutes)
    job = acquire(plan, run, retry, report)
    return print_outcome(job, as_json=start.as_json)


def _run(plan: "Plan", target: "Target", start: _Start, *, again: bool) -> "Job":
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


def _spec(what: str, given: dict[str, Any]) -> "JobSpec":
    from orchestrator.specs.building import build_spec
    from orchestrator.specs.job_file import parse_overrides

    overrides = parse_overrides(given.pop("pairs"))
    fields = spec_fields(what, given, overrides)
    return build_spec(fields, overrides)
