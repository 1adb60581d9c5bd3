"""Many images from a file of prompts, as a job: `generate --batch FILE` without an endpoint."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from orchestrator.cli.job_options import check_target, turn_of
from orchestrator.cli.output import print_facts, print_json, say
from orchestrator.cli.starting import Start, begin, chosen_start, show_without_calls, start_on_sagemaker, warn
from orchestrator.contract.command_line import command
from orchestrator.targets.names import LOCAL_TARGETS, TargetName

if TYPE_CHECKING:
    from orchestrator.cli.asked_batch import AskedBatch
    from orchestrator.settings import Settings
    from orchestrator.targets.base import Target


def start_batch(file: Path, given: dict[str, Any]) -> int:
    """Check a batch, start its job, collect its images where that was asked for, and return the exit code.

    `given` are the options of `generate`.
    """
    from orchestrator.cli.asked_batch import ask_batch
    from orchestrator.settings import Settings, typed_path

    target = given["target"]
    check_target(target, given)
    output = given.pop("output")
    folder = None if output is None else typed_path(output)
    dry_run = given.pop("dry_run")
    yes = given.pop("yes")
    start = chosen_start(given)
    settings = Settings.from_environment()
    with TemporaryDirectory(prefix="orchestrator-") as temporary:
        asked = ask_batch(file, settings, given, Path(temporary))
        if target in LOCAL_TARGETS:
            return _draw_here(asked, settings, start, folder, target_name=target, dry_run=dry_run)
        if dry_run:
            if not start.as_json:
                _show(asked)
            show_without_calls(asked.spec, settings, asked.prepared, as_json=start.as_json)
            return 0
        return _draw_on_sagemaker(asked, settings, start, folder, yes=yes)


def _draw_here(
    asked: "AskedBatch",
    settings: "Settings",
    start: Start,
    folder: Path | None,
    *,
    target_name: str,
    dry_run: bool,
) -> int:
    from orchestrator.adapters.images import require_own_folder
    from orchestrator.cli.asked_batch import batch_facts
    from orchestrator.cli.local_plan import expected_text
    from orchestrator.cli.plans import NOT_STARTED
    from orchestrator.planning.plan import plan_here, store_trees
    from orchestrator.storage import FolderStore, folder_of
    from orchestrator.targets.local.opening import open_local

    target = open_local(target_name, settings, turn_of(queue=start.queue, together=start.together))
    plan = plan_here(asked.spec, settings, asked.prepared, target.container)
    name = plan.request["TrainingJobName"]
    if folder is not None:
        require_own_folder(folder, name)
    warn(plan)
    if dry_run and start.as_json:
        print_json(plan.request)
        return 0
    if dry_run:
        left = folder_of(plan.request["OutputDataConfig"]["S3OutputPath"])
        expected = expected_text(asked.spec, target)
        print_facts([("job", name), *batch_facts(asked), ("expected", expected), ("folder", str(left))])
        say(NOT_STARTED, err=True)
        return 0
    settings.require_writable()
    target.require_machine(plan.request)
    store_trees(plan, FolderStore(settings.store))
    if not start.as_json and not target.has(name):
        say(f"Expected duration: {expected_text(asked.spec, target)}", err=True)
    code = begin(plan, target, start)
    return _collected(code, target, name, folder)


def _draw_on_sagemaker(
    asked: "AskedBatch", settings: "Settings", start: Start, folder: Path | None, *, yes: bool
) -> int:
    from orchestrator.adapters.images import require_own_folder
    from orchestrator.models.mirrored import NOT_ASKED
    from orchestrator.planning.plan import plan_on_sagemaker
    from orchestrator.targets.opening import open_target

    account = settings.account()
    # The name does not depend on what the account says of a mirrored model.
    plan = plan_on_sagemaker(asked.spec, settings, account, asked.prepared, NOT_ASKED)
    name = plan.request["TrainingJobName"]
    if folder is not None:
        require_own_folder(folder, name)
    if not start.as_json:
        _show(asked)
    code = start_on_sagemaker(asked.spec, settings, account, asked.prepared, start, yes=yes)
    return _collected(code, open_target(TargetName.SAGEMAKER, settings), name, folder)


def _show(asked: "AskedBatch") -> None:
    """Say what is drawn, beside the plan of its job."""
    from orchestrator.cli.asked_batch import batch_facts

    for label, value in batch_facts(asked):
        say(f"{label}: {value}", err=True)


def _collected(code: int, target: "Target", name: str, folder: Path | None) -> int:
    """Collect the images of a job that is complete, and return the exit code."""
    from orchestrator.adapters.images import collect
    from orchestrator.jobs.job import Job
    from orchestrator.targets.base import JobStatus

    if folder is None or code != 0:
        return code
    job = Job(target, name)
    description = job.describe()
    if description.status is not JobStatus.COMPLETED:
        wait = command("jobs", "wait", name)
        say(f"Nothing is collected yet: {wait}  # then type this command again", err=True)
        return code
    finished = job.finished()
    if finished.images is None or finished.problem is not None:
        raise finished.problem or AssertionError(f"{name} is complete and says nothing of its images")
    index = collect(target.store, target.store.name(description.output), finished.images, folder, name)
    say(f"Images: {len(finished.images.images)} in {folder}, listed in {index}", err=True)
    return code
