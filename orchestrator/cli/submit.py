"""`submit`: from photos and a prompt to an adapter."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.job_options import check_target, job_options, spec_fields, turn_of, turn_options
from orchestrator.cli.output import json_option, print_json, say
from orchestrator.cli.starting import Start, begin, show_without_calls, start_on_sagemaker, warn
from orchestrator.targets.names import LOCAL_TARGETS

if TYPE_CHECKING:
    from orchestrator.settings import Settings
    from orchestrator.specs.job import JobSpec


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
    submit job.yaml --target container
    submit job.yaml --target sagemaker --max-usd 3
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.settings import Settings

    check_target(target, given)
    flags = {name: given.pop(name) for name in Start._fields}
    start = Start(**flags)
    if start.resume and start.restart:
        raise click.UsageError(
            "--resume continues from a checkpoint and --restart starts from the beginning: choose one."
        )
    turn_of(queue=start.queue, together=start.together)  # refuses both
    settings = Settings.from_environment()
    spec = _spec(what, given)
    if target in LOCAL_TARGETS:
        return _submit_here(spec, settings, start, target, dry_run=dry_run)
    return _submit_to_sagemaker(spec, settings, start, dry_run=dry_run, yes=yes)


def _submit_here(
    spec: "JobSpec",
    settings: "Settings",
    start: Start,
    target_name: str,
    *,
    dry_run: bool,
) -> int:
    from orchestrator.cli.local_plan import expected_text, print_local_plan, require_disk
    from orchestrator.cli.plans import warn_of_taken_name
    from orchestrator.planning.inputs import prepare_inputs
    from orchestrator.planning.plan import plan_here, store_trees
    from orchestrator.storage import FolderStore
    from orchestrator.targets.local.opening import open_local

    if not dry_run:
        settings.require_writable()
    target = open_local(target_name, settings, turn_of(queue=start.queue, together=start.together))
    with TemporaryDirectory(prefix="orchestrator-") as staging:
        prepared = prepare_inputs(spec, Path(staging))
        plan = plan_here(spec, settings, prepared, target.container)
        warn(plan)
        if dry_run:
            is_taken = warn_of_taken_name(
                plan,
                target,
                resume=start.resume,
                restart=start.restart,
            )
            if start.as_json:
                print_json(plan.request)
            else:
                print_local_plan(plan, spec, prepared, target, is_taken=is_taken)
            return 0
        target.require_machine(plan.request)
        require_disk(plan, spec, target)
        store_trees(plan, FolderStore(settings.store))
    if not start.as_json and not target.has(plan.request["TrainingJobName"]):
        say(f"Expected duration: {expected_text(spec, target)}", err=True)
    return begin(plan, target, start)


def _submit_to_sagemaker(
    spec: "JobSpec",
    settings: "Settings",
    start: Start,
    *,
    dry_run: bool,
    yes: bool,
) -> int:
    from orchestrator.planning.inputs import prepare_inputs

    with TemporaryDirectory(prefix="orchestrator-") as staging:
        if dry_run:
            show_without_calls(spec, settings, prepare_inputs(spec, Path(staging)), as_json=start.as_json)
            return 0
        account = settings.account()
        return start_on_sagemaker(spec, settings, account, prepare_inputs(spec, Path(staging)), start, yes=yes)


def _spec(what: str, given: dict[str, Any]) -> "JobSpec":
    from orchestrator.specs.building import build_spec
    from orchestrator.specs.job_file import parse_overrides

    overrides = parse_overrides(given.pop("pairs"))
    fields = spec_fields(what, given, overrides)
    return build_spec(fields, overrides)
