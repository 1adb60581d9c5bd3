"""How a job is shown: its state, and once it is complete its adapter and figures."""

from pathlib import PurePath
from typing import Any

import click

from orchestrator.adapters.registry import Finished, name_of
from orchestrator.adapters.usage import example_prompt, snippet
from orchestrator.cli.output import print_facts, print_json, print_table, say
from orchestrator.contract.adapter import CONTACT_SHEET_FILE, AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.contract.events import Step
from orchestrator.contract.figures import AFTER, BEFORE, CEILING, MEASURES, Measure
from orchestrator.errors import JobError, OrchestratorError
from orchestrator.jobs.job import ENDED_EARLY, Job, cost
from orchestrator.planning.pricing import dollars
from orchestrator.storage.folder import location_of
from orchestrator.targets.base import JobDescription, JobStatus
from orchestrator.targets.names import TargetName
from orchestrator.terminal import printable, size_text

_NOTHING = Finished(None, None)
"""What is known of the adapter of a job that is not complete."""
Facts = list[tuple[str, str]]
"""Names and values, one pair a line."""


def print_outcome(job: Job, *, as_json: bool) -> int:
    """Print the state of a submitted job and return the exit code; raises JobError when it failed.

    A job that somebody stopped is no error, but has made no adapter: the exit code is that of a job that failed.
    """
    description = job.describe()
    if description.status not in ENDED_EARLY:
        _print(job, description, as_json=as_json)
        return 0
    explanation = job.explain()
    if not _was_wished(description):
        message = f"{job.name}: {description.status}. {explanation.cause}"
        raise JobError(message, next_step=explanation.next_step)
    if as_json:
        print_json(job_json(job, description, _NOTHING))
    else:
        say(f"Stopped {job.name}. {explanation.cause}")
        say(f"Resume it with: {explanation.next_step}")
    return JobError.exit_code


def _was_wished(description: JobDescription) -> bool:
    """Whether a job ended because somebody stopped it, and not by a limit of the service."""
    if description.status is not JobStatus.STOPPED:
        return False
    return description.target is not TargetName.SAGEMAKER or description.failure_reason is None


def print_job(job: Job, *, as_json: bool) -> None:
    """Print the state of a job, and its adapter and figures once it is complete."""
    _print(job, job.describe(), as_json=as_json)


def _print(job: Job, description: JobDescription, *, as_json: bool) -> None:
    finished = _NOTHING
    if description.status is JobStatus.COMPLETED:
        finished = job.finished()
    if as_json:
        print_json(job_json(job, description, finished))
        return
    print_facts(_facts(job, description, finished))
    manifest, problem = finished
    if manifest is not None and manifest.metrics:
        click.echo()
        print_table(("", "BEFORE", "AFTER", "REAL PHOTOS"), _metric_rows(manifest.metrics))
    if manifest is not None and problem is None:
        adapter = location_of(description.output)
        print_snippet(manifest, _folder_to_load(job, adapter))


def print_snippet(manifest: AdapterManifest, folder: str) -> None:
    """Print the Python program that loads an adapter and draws with it, ready to be copied."""
    lines = snippet(manifest, folder)
    if lines:
        click.echo("\nDraw with it in Python:\n")
    for line in lines:
        click.echo(printable(line))


def job_json(
    job: Job,
    description: JobDescription,
    finished: Finished,
) -> dict[str, Any]:
    """Return a job as the value that --json prints."""
    values = description.model_dump(mode="json")
    values["seconds"] = _seconds(description)
    values["checkpoint_step"] = job.target.checkpoint_step(job.name)
    usd = cost(description)
    values["usd"] = None
    if usd is not None:
        values["usd"] = float(usd)
    manifest, problem = finished
    values["problem"] = None
    if problem is not None:
        values["problem"] = problem.message
        values["next_step"] = problem.next_step
    if manifest is None:
        return {
            **values,
            "adapter": None,
            "loading": [],
            "snippet": "",
            "metrics": {},
        }
    adapter = location_of(description.output)
    loading = []
    program = []
    if problem is None:
        folder = _folder_to_load(job, adapter)
        loading = manifest.loading(folder)
        program = snippet(manifest, folder)
    return {
        **values,
        "adapter": adapter,
        "loading": loading,
        "snippet": "\n".join(program),
        "metrics": manifest.metrics,
    }


def _facts(job: Job, description: JobDescription, finished: Finished) -> Facts:
    facts = _state_facts(description)
    if description.status is not JobStatus.COMPLETED:
        facts += _progress_facts(job)
    if description.failure_reason:
        facts.append(("why", description.failure_reason))
    if description.status in ENDED_EARLY:
        facts.append(("next", description.next_step or command("jobs", "retry", job.name)))
    manifest, problem = finished
    if problem is not None:
        facts += [("adapter", problem.message), ("next", problem.next_step)]
    elif manifest is not None:
        adapter = location_of(description.output)
        facts += _adapter_facts(job, adapter, manifest)
    return facts


def _state_facts(description: JobDescription) -> Facts:
    """Return status, instances, running time and cost."""
    created = description.created.astimezone()
    submitted = created.strftime("%Y-%m-%d %H:%M:%S")
    facts = [
        ("job", description.name),
        ("status", _status(description)),
        ("submitted", submitted),
    ]
    if description.instance_type:
        runs_on = f"{description.instance_count} x {description.instance_type} in {description.region}"
        facts.append(("runs on", runs_on))
    seconds = _seconds(description)
    if seconds is not None:
        facts.append(("seconds", f"{seconds:.0f}"))
    usd = cost(description)
    if usd is not None:
        billed = _billed(description)
        facts.append(("cost", f"{dollars(usd)} for {billed}, at list price"))
    elif description.billed_attempts:
        billed = _billed(description)
        facts.append(("cost", f"unknown for {billed}: no price of {description.instance_type} is known here"))
    return facts


def _progress_facts(job: Job) -> Facts:
    """Return the last optimizer step and the newest checkpoint of a job without an adapter."""
    facts = []
    try:
        last = _last_step(job)
    except OrchestratorError as error:
        last = None
        facts.append(("log", error.message))
    if last is not None:
        progress = f"step {last.step} of {last.of}, loss {last.loss:.4f}"
        facts.append(("progress", progress))
    step = job.target.checkpoint_step(job.name)
    if step is not None:
        facts.append(("checkpoint", f"step {step}"))
    return facts


def _adapter_facts(job: Job, adapter: str, manifest: AdapterManifest) -> Facts:
    """Return the location of the adapter (a folder or a URI), its size, and how to use it."""
    facts = [
        ("adapter", adapter),
        ("size", size_text(manifest.bytes)),
        ("prompt with", prompt_words(manifest)),
    ]
    if manifest.images is not None:
        facts.append(("trained on", f"{manifest.images} images, {manifest.captions or 'none'} with a caption"))
    if CONTACT_SHEET_FILE in manifest.files:
        folder = adapter.rstrip("/")
        facts.append(("images", f"{folder}/{CONTACT_SHEET_FILE}"))
    folder = _folder_to_load(job, adapter)
    if folder != adapter:
        facts.append(("fetch", command("adapters", "pull", folder)))
    name = PurePath(folder).name
    facts.append(("draw", command("adapters", "draw", name, example_prompt(manifest))))
    return facts


def prompt_words(manifest: AdapterManifest) -> str:
    """Return the words that a prompt has to hold for the adapter to show its subject."""
    if not manifest.trigger:
        return "any words"
    return f'"{manifest.trigger}"'


def _folder_to_load(job: Job, adapter: str) -> str:
    """Return the folder to load an adapter from: its own, or the one that `adapters pull` writes."""
    if not adapter.startswith("s3:"):
        return adapter
    key = job.target.store.name(adapter)
    return name_of(key) or adapter


def _metric_rows(metrics: dict[str, float]) -> list[tuple[str, str, str, str]]:
    rows = []
    for measure in MEASURES:
        row = (
            measure.label,
            _figure_text(metrics, measure, BEFORE),
            _figure_text(metrics, measure, AFTER),
            _figure_text(metrics, measure, CEILING),
        )
        rows.append(row)
    return rows


def _figure_text(metrics: dict[str, float], measure: Measure, moment: str) -> str:
    name = measure.figure(moment)
    if name not in metrics:
        return "-"
    return f"{metrics[name]:.3f}"


def _last_step(job: Job) -> Step | None:
    last = None
    for event in job.events(latest_attempt=True):
        if isinstance(event, Step):
            last = event
    return last


def _billed(description: JobDescription) -> str:
    attempts = description.billed_attempts
    seconds = sum(attempt.seconds for attempt in attempts)
    text = f"{seconds} billed seconds"
    if len(attempts) > 1:
        text = f"{text} in {len(attempts)} attempts"
    if not description.status.is_final:
        text = f"{text} so far"
    return text


def _status(description: JobDescription) -> str:
    status = description.status.value
    if description.stage is None or description.stage == status:
        return status
    return f"{status}: {description.stage}"


def _seconds(description: JobDescription) -> float | None:
    """Return how long the latest attempt ran, or None while it has not ended."""
    if description.started is None or description.ended is None:
        return None
    duration = description.ended - description.started
    return round(duration.total_seconds(), 1)
