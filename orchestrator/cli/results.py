"""How a job is shown: its state, and once it is complete its adapter and figures."""

from typing import Any

import click

from orchestrator.adapters.registry import name_of
from orchestrator.cli.output import print_facts, print_json, print_table
from orchestrator.contract.adapter import CONTACT_SHEET_FILE, AdapterManifest
from orchestrator.contract.events import Step
from orchestrator.contract.figures import AFTER, BEFORE, CEILING, MEASURES, Measure
from orchestrator.errors import JobError
from orchestrator.jobs.job import ENDED_EARLY, Job, cost
from orchestrator.planning.pricing import dollars
from orchestrator.storage.folder import place_of
from orchestrator.targets.base import JobDescription, JobStatus


def print_outcome(job: Job, *, as_json: bool) -> None:
    """Print where a submitted job stands; raises JobError when it failed or was stopped."""
    description = job.describe()
    if description.status in ENDED_EARLY:
        explanation = job.explain()
        raise JobError(f"{job.name}: {description.status}. {explanation.cause}", next_step=explanation.next_step)
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


def job_json(job: Job, description: JobDescription, manifest: AdapterManifest | None) -> dict[str, Any]:
    """Return a job as the value that --json prints."""
    values = description.model_dump(mode="json")
    values["seconds"] = _seconds(description)
    values["checkpoint_step"] = job.target.checkpoint_step(job.name)
    place = place_of(description.output)
    values["adapter"] = place if manifest else None
    values["loading"] = manifest.loading(_folder(job, place)) if manifest else []
    values["usd"] = None if (usd := cost(description)) is None else float(usd)
    values["metrics"] = manifest.metrics if manifest else {}
    return values


def _facts(job: Job, description: JobDescription, manifest: AdapterManifest | None) -> list[tuple[str, str]]:
    facts = [("job", job.name), ("status", _status(description)), ("submitted", _clock(description))]
    if description.instance_type:
        facts.append(("runs on", f"{description.instance_count} x {description.instance_type} in {description.region}"))
    seconds = _seconds(description)
    if seconds is not None:
        facts.append(("seconds", f"{seconds:.0f}"))
    if (usd := cost(description)) is not None:
        facts.append(("cost", f"{dollars(usd)} for {_billed(description)}, by the list price"))
    if manifest is None and (last := _last_step(job)):
        facts.append(("progress", f"step {last.step} of {last.of}, loss {last.loss:.4f}"))
    if manifest is None and (step := job.target.checkpoint_step(job.name)) is not None:
        facts.append(("checkpoint", f"step {step}"))
    if description.failure_reason:
        facts.append(("why", description.failure_reason))
    if manifest is not None:
        place = place_of(description.output)
        megabytes = sum(file.size for name, file in manifest.files.items() if name.endswith(".safetensors")) / 1e6
        facts += [("adapter", place), ("size", f"{megabytes:.2f} MB"), ("say", _say(manifest))]
        if CONTACT_SHEET_FILE in manifest.files:
            facts.append(("pictures", f"{place.rstrip('/')}/{CONTACT_SHEET_FILE}"))
        folder = _folder(job, place)
        if folder != place:
            facts.append(("fetch", f"python -m orchestrator adapters pull {folder}"))
        facts += [("load" if n == 0 else "", line) for n, line in enumerate(manifest.loading(folder))]
    return facts


def _say(manifest: AdapterManifest) -> str:
    """Return the words that call the adapter's result up in a prompt."""
    return f'"{manifest.trigger}"' if manifest.trigger else "any prompt"


def _folder(job: Job, place: str) -> str:
    """Return the folder to load an adapter from: where it is, or where `adapters pull` brings it."""
    return place if not place.startswith("s3:") else name_of(job.target.store.name(place)) or place


def _metric_rows(metrics: dict[str, float]) -> list[tuple[str, str, str, str]]:
    def text(measure: Measure, moment: str) -> str:
        figure = metrics.get(measure.figure(moment))
        return "-" if figure is None else f"{figure:.3f}"

    return [
        (measure.label, text(measure, BEFORE), text(measure, AFTER), text(measure, CEILING)) for measure in MEASURES
    ]


def _last_step(job: Job) -> Step | None:
    last = None
    for event in job.events(latest_attempt=True):
        last = event if isinstance(event, Step) else last
    return last


def _billed(description: JobDescription) -> str:
    bills = description.bills
    attempts = f" in {len(bills)} attempts" if len(bills) > 1 else ""
    going_on = "" if description.status.is_final else " so far"
    return f"{sum(bill.seconds for bill in bills)} billed seconds{attempts}{going_on}"


def _status(description: JobDescription) -> str:
    stage = description.stage
    return description.status.value if stage in {None, description.status.value} else f"{description.status}: {stage}"


def _seconds(description: JobDescription) -> float | None:
    if description.started is None or description.ended is None:
        return None
    return round((description.ended - description.started).total_seconds(), 1)


def _clock(description: JobDescription) -> str:
    return description.created.astimezone().strftime("%Y-%m-%d %H:%M:%S")
