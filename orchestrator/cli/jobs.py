"""`jobs`: the jobs that were submitted."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.completion import job_names
from orchestrator.cli.job_options import check_target, turn_of, turn_options
from orchestrator.cli.output import json_option, print_facts, print_json, print_table, print_warning, say
from orchestrator.contract.command_line import command
from orchestrator.targets.names import TARGET_NAMES
from orchestrator.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from orchestrator.jobs.job import Job
    from orchestrator.targets.base import JobDescription, JobSummary, Target
    from orchestrator.targets.local.queue import Turn


_ALREADY = {
    "Completed": "complete",
    "Failed": "over (it failed)",
    "Stopped": "stopped",
    "Deleting": "being deleted",
}
"""Final statuses in words."""


def job_argument(function: Any) -> Any:  # click's decorators take any function
    """Decorate a command with the name of a job (its first letters are enough) and the target to search."""
    choice = click.option(
        "--target",
        type=click.Choice(TARGET_NAMES),
        help="Where to look for the job.",
    )
    return click.argument("name", shell_complete=job_names)(choice(function))


@click.group()
def jobs() -> None:
    """List, watch, stop, resume, explain and remove jobs."""


@jobs.command("list")
@json_option
def list_jobs(as_json: bool) -> None:
    """List all jobs, the oldest first."""
    summaries: list[JobSummary] = []
    for target in _targets():
        summaries += _summaries(target)
    summaries.sort(key=lambda summary: summary.created)
    if as_json:
        print_json([summary.model_dump(mode="json") for summary in summaries])
        return
    if not summaries:
        say(f"No jobs yet. Begin with: {command('submit', 'dreambooth')}")
        return
    _print_summaries(summaries)


def _print_summaries(summaries: "Sequence[JobSummary]") -> None:
    heads = ("JOB", "STATUS", "STEP", "SUBMITTED", "TARGET", "RECIPE AND SETTINGS")
    rows = []
    for summary in summaries:
        step = "-"
        if summary.step is not None:
            step = f"{summary.step}/{summary.steps}"
        where = summary.target.value
        if summary.region is not None:
            where = summary.region
        row = (summary.name, summary.status.value, step, _day_and_time(summary.created), where, _what(summary))
        rows.append(row)
    print_table(heads, rows, stacks=["RECIPE AND SETTINGS"])


def _day_and_time(moment: "datetime") -> str:
    local = moment.astimezone()
    return local.strftime("%Y-%m-%d %H:%M")


def _what(summary: "JobSummary") -> str:
    """Return the recipe, the prompt and the other settings that differ from their defaults, as one types them."""
    from orchestrator.contract.recipe import settings_class
    from orchestrator.storage.folder import location_of

    if summary.recipe is None:
        return "-"
    words = [summary.recipe]
    prompt_field = settings_class(summary.recipe).prompt_field
    for name, value in reversed(summary.settings.items()):  # those of the recipe before those of every recipe
        if name == prompt_field:
            words.insert(1, json.dumps(value, ensure_ascii=False))
        elif isinstance(value, str):
            words.append(f"{name}={value}")
        else:
            text = json.dumps(_typed(name, value), ensure_ascii=False)
            words.append(f"{name}={text}")
    if summary.scorer is not None:
        words.append(f"scorer={location_of(summary.scorer)}")
    return " ".join(words)


def _typed(name: str, value: Any) -> Any:
    """Return a setting as short as one can type it: of a reward without what it has by default."""
    from orchestrator.contract.rewards import RewardUse

    if name not in {"rewards", "evaluation_rewards"}:
        return value
    return [str(RewardUse.model_validate(reward)) for reward in value]


def _summaries(target: "Target") -> "Iterator[JobSummary]":
    """Yield the jobs of a target; warn of a damaged job or an unreachable target, which must not hide the others."""
    from orchestrator.errors import OrchestratorError

    try:
        for summary in target.summaries():
            if isinstance(summary, OrchestratorError):
                print_warning(summary)
            else:
                yield summary
    except OrchestratorError as error:
        print_warning(error)


@jobs.command()
@job_argument
@json_option
def show(name: str, target: str | None, as_json: bool) -> None:
    """Show a job, its progress, and its adapter once there is one."""
    from orchestrator.cli.results import print_job

    print_job(_find(name, target), as_json=as_json)


@jobs.command()
@job_argument
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Print new lines until the job ends.",
)
@json_option
def logs(name: str, target: str | None, follow: bool, as_json: bool) -> None:
    """Print a job's log; with --json its events alone, one a line as the job wrote them."""
    from orchestrator.cli.log_line import log_text
    from orchestrator.cli.program import as_called
    from orchestrator.contract.events import parse

    job = _find(name, target)
    is_empty = True
    for line in job.log_lines(follow=follow):
        is_empty = False
        if not as_json:
            click.echo(as_called(log_text(line, job.location)))
        elif parse(line) is not None:
            click.echo(json.dumps(json.loads(line)))
    if is_empty:
        has_ended = job.describe().status.is_final
        what = "left no log" if has_ended else "has printed nothing yet"
        next_step = command("jobs", "explain", job.name)
        say(f"{job.name} {what}. Why: {next_step}", err=True)


@jobs.command()
@job_argument
@json_option
def wait(name: str, target: str | None, as_json: bool) -> int:
    """Wait until a job ends. The exit code is 0 when it is complete, and 4 when it failed or was stopped."""
    from orchestrator.cli.progress import follow, leaving
    from orchestrator.cli.results import print_outcome

    job = _find(name, target)
    with leaving(job):
        follow(job, quiet=as_json)
    return print_outcome(job, as_json=as_json)


@jobs.command()
@job_argument
@click.option(
    "--now",
    is_flag=True,
    help="Kill it at once and lose what it did since its newest checkpoint. Local jobs only.",
)
@json_option
def stop(name: str, target: str | None, now: bool, as_json: bool) -> None:
    """Save a checkpoint and stop; `jobs retry` resumes from it. A job that does not end in two minutes is killed."""
    from orchestrator.cli.progress import leaving
    from orchestrator.cli.results import print_job

    job = _find(name, target)
    status = job.describe().status
    if status.is_final and not as_json:
        what = command("jobs", "show", job.name)
        say(f"{job.name} is {_ALREADY[status]} already; there was nothing to stop. See: {what}")
        return
    with leaving(job):
        job.stop(now=now)
    print_job(job, as_json=as_json)


@jobs.command()
@job_argument
@click.option("--adapter", is_flag=True, help="Delete its adapter too. Local jobs only.")
@click.option("--yes", is_flag=True, help="Do not ask before the adapter is deleted.")
@json_option
def remove(
    name: str,
    target: str | None,
    adapter: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete a job that has ended, or that waits in the queue, and all its files except the adapter.

    What an evaluation has measured, and what a batch has drawn, is deleted with its job; adapters stay.

    With --adapter it asks first, or without a terminal requires --yes: an adapter cannot be brought back.

    On SageMaker the job is deleted from the account's list; its checkpoints in the bucket expire.
    """
    job = _find(name, target)
    before = _description(job)
    if adapter and before is not None:
        _require_own_adapter(before)
    if adapter:
        _ask_to_delete(f"Delete {job.name} and its adapter?", yes=yes)
    job.remove(adapter=adapter)
    if as_json:
        print_json({"removed": job.name, "adapter": adapter})
    else:
        click.echo(_removed(job.name, before, adapter=adapter))


@jobs.command()
@job_argument
@turn_options
@click.option("--detach", is_flag=True, help="Return at once.")
@json_option
def retry(
    name: str,
    target: str | None,
    queue: bool,
    together: bool,
    detach: bool,
    as_json: bool,
) -> int:
    """Resume a job that ended early from its newest checkpoint."""
    from orchestrator.cli.progress import follow_own, leaving
    from orchestrator.cli.results import print_outcome

    job = _find(name, target, turn_of(queue=queue, together=together))
    check_target(job.target.name, {"queue": queue, "together": together})
    job.resume()
    if not detach:
        with leaving(job):
            follow_own(job, quiet=as_json)
    return print_outcome(job, as_json=as_json)


@jobs.command()
@job_argument
@json_option
def explain(name: str, target: str | None, as_json: bool) -> None:
    """Explain the status of a job: cause, evidence and next command."""
    explanation = _find(name, target).explain()
    if as_json:
        print_json(explanation.model_dump(mode="json"))
        return
    print_facts([("status", explanation.status.value), ("cause", explanation.cause)])
    for line in explanation.evidence:
        say(f"  | {line}")
    print_facts([("next", explanation.next_step)])


def _description(job: "Job") -> "JobDescription | None":
    from orchestrator.errors import OrchestratorError

    try:
        return job.describe()
    except OrchestratorError:  # a damaged job can be removed too
        return None


def _removed(name: str, before: "JobDescription | None", *, adapter: bool) -> str:
    """Return what was removed of a job in words, by what was known of it before."""
    from orchestrator.requests import Made
    from orchestrator.targets.base import JobStatus

    if before is not None and before.status is JobStatus.QUEUED:
        return f"Took {name} out of the queue and removed it: it had not started."
    if adapter:
        return f"Removed {name} and its adapter."
    if before is None or before.makes is Made.ADAPTER or before.status is not JobStatus.COMPLETED:
        return f"Removed {name}."
    if not before.output.startswith("file:"):
        verb = "stay" if before.makes is Made.IMAGES else "stays"
        return printable(f"Removed {name}; its {before.makes} {verb} in {before.output}")
    if before.makes is Made.IMAGES:
        return f"Removed {name} and its images."
    return f"Removed {name} and its evaluation: the figures and images that it left."


def _require_own_adapter(job: "JobDescription") -> None:
    """Raise SpecError for a job that has used adapters and made none."""
    from orchestrator.errors import SpecError
    from orchestrator.requests import Made

    used = {
        Made.EVALUATION: "is an evaluation: it has made no adapter, and does not delete the one that it measured",
        Made.IMAGES: "is a batch of images: it has made no adapter, and does not delete those that it drew with",
    }
    if job.makes in used:
        message = f"{job.name} {used[job.makes]}."
        raise SpecError(f"{message} Nothing was deleted.", next_step=command("jobs", "remove", job.name))


def _ask_to_delete(question: str, *, yes: bool) -> None:
    """Ask before what cannot be brought back is deleted; without a terminal require --yes. Raises SpecError or Exit."""
    from orchestrator.errors import SpecError

    if yes:
        return
    if not sys.stdin.isatty():
        message = "Deleting an adapter has to be confirmed, and there is no terminal to ask on. Nothing was deleted."
        raise SpecError(message, next_step="add --yes, or leave out --adapter")
    if not click.confirm(printable(question), default=False, err=True):
        click.echo("Nothing was deleted.", err=True)
        raise click.exceptions.Exit(1)


def _targets(turn: "Turn | None" = None) -> "list[Target]":
    from orchestrator.settings import Settings
    from orchestrator.targets.local.queue import Turn
    from orchestrator.targets.opening import open_targets

    return open_targets(Settings.from_environment(), print_warning, turn or Turn.ALONE)


def _find(name: str, target_name: str | None, turn: "Turn | None" = None) -> "Job":
    """Return the job of that name; `turn` is when it starts if it is started again on this machine."""
    from orchestrator.jobs.job import find

    targets = _targets(turn)
    if target_name is not None:
        targets = [target for target in targets if target.name == target_name]
    return find(name, targets)
