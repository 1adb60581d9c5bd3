"""How a job is shown: its state, and once it is complete its adapter and figures."""

from typing import Any

import click

from orchestrator.adapters.registry import name_of
from orchestrator.cli.output import print_facts, print_json, print_table
from orchestrator.contract.adapter import CONTACT_SHEET_FILE, AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.contract.events import Step
from orchestrator.contract.figures import AFTER, BEFORE, CEILING, MEASURES, Measure
from orchestrator.errors import JobError
from orchestrator.jobs.job import ENDED_EARLY, Job, cost
from orchestrator.planning.pricing import dollars
from orchestrator.storage.folder import place_of
from orchestrator.targets.base import JobDescription, JobStatus

Facts = list[tuple[str, str]]
"""Names and values, one pair a line."""


def print_outcome(job: Job, *, as_json: bool) -> None:
    """Print where a submitted job stands; raises JobError when it failed or was stopped."""
    description = job.describe()
    if description.status in ENDED_EARLY:
        explanation = job.explain()
        message = f"{job.name}: {description.status}. {explanation.cause}"
        raise JobError(message, next_step=explanation.next_step)
    _print(job, description, as_json=as_json)


def print_job(job: Job, *, as_json: bool) -> None:
    """Print a job with everything known of it."""
    _print(job, job.describe(), as_json=as_json)


def _print(job: Job, description: JobDescription, *, as_json: bool) -> None:
    manifest = job.manifest() if description.status is JobStatus.COMPLETED else None
    if as_json:
        print_json(job_json(job, description, manifest))
        return
    print_facts(_facts(job, description, manifest))
    if manifest is not None and manifest.metrics:
        click.echo()
        print_table(("", "BEFORE", "AFTER", "REAL PHOTOS"), _metric_rows(manifest.metrics))


def job_json(
    job: Job,
    description: JobDescription,
    manifest: AdapterManifest | None,
) -> dict[str, Any]:
    """Return a job as the value that --json prints."""
    usd = cost(description)
    values = description.model_dump(mode="json")
    values["seconds"] = _seconds(description)
    values["checkpoint_step"] = job.target.checkpoint_step(job.name)
    values["usd"] = None if usd is None else float(usd)
    values["adapter"] = None
    values["loading"] = []
    values["metrics"] = {}
    if manifest is not None:
        where = place_of(description.output)
        values["adapter"] = where
        values["loading"] = manifest.loading(_folder_to_load(job, where))
        values["metrics"] = manifest.metrics
    return values


def _facts(job: Job, description: JobDescription, manifest: AdapterManifest | None) -> Facts:
    facts = _course(description)
    if manifest is None:
        facts += _progress(job)
    if description.failure_reason:
        facts.append(("why", description.failure_reason))
    if manifest is not None:
        facts += _adapter(job, place_of(description.output), manifest)
    return facts


def _course(description: JobDescription) -> Facts:
    """Return where the job stands, what it runs on, how long it took and what it cost."""
    submitted = description.created.astimezone().strftime("%Y-%m-%d %H:%M:%S")
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
        facts.append(("cost", f"{dollars(usd)} for {_billed(description)}, by the list price"))
    return facts


def _progress(job: Job) -> Facts:
    """Return how far a job without an adapter has come."""
    facts = []
    last = _last_step(job)
    if last is not None:
        facts.append(("progress", f"step {last.step} of {last.of}, loss {last.loss:.4f}"))
    step = job.target.checkpoint_step(job.name)
    if step is not None:
        facts.append(("checkpoint", f"step {step}"))
    return facts


def _adapter(job: Job, where: str, manifest: AdapterManifest) -> Facts:
    """Return where the adapter is and how it is used."""
    weights = 0
    for name, file in manifest.files.items():
        if name.endswith(".safetensors"):
            weights += file.size
    facts = [
        ("adapter", where),
        ("size", f"{weights / 1e6:.2f} MB"),
        ("say", f'"{manifest.trigger}"' if manifest.trigger else "any prompt"),
    ]
    if CONTACT_SHEET_FILE in manifest.files:
        facts.append(("pictures", f"{where.rstrip('/')}/{CONTACT_SHEET_FILE}"))
    folder = _folder_to_load(job, where)
    if folder != where:
        facts.append(("fetch", command("adapters", "pull", folder)))
    label = "load"
    for line in manifest.loading(folder):
        facts.append((label, line))
        label = ""
    return facts


def _folder_to_load(job: Job, where: str) -> str:
    """Return the folder to load an adapter from: where it is, or where `adapters pull` brings it."""
    if not where.startswith("s3:"):
        return where
    return name_of(job.target.store.name(where)) or where


def _metric_rows(metrics: dict[str, float]) -> list[tuple[str, str, str, str]]:
    def text(measure: Measure, moment: str) -> str:
        figure = metrics.get(measure.figure(moment))
        return "-" if figure is None else f"{figure:.3f}"

    rows = []
    for measure in MEASURES:
        rows.append((measure.label, text(measure, BEFORE), text(measure, AFTER), text(measure, CEILING)))
    return rows


def _last_step(job: Job) -> Step | None:
    last = None
    for event in job.events(latest_attempt=True):
        if isinstance(event, Step):
            last = event
    return last


def _billed(description: JobDescription) -> str:
    attempts = description.billed_attempts
    text = f"{sum(one.seconds for one in attempts)} billed seconds"
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
    if description.started is None or description.ended is None:
        return None
    return round((description.ended - description.started).total_seconds(), 1)
