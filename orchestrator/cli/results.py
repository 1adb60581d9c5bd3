"""How a job is shown: its state, and once it is complete its adapter and figures."""

import shlex
from pathlib import Path, PurePath
from typing import Any

import click

from orchestrator.adapters.evaluations import Outcome
from orchestrator.adapters.registry import name_of
from orchestrator.adapters.usage import example_controls, example_prompt, snippet
from orchestrator.cli.evaluation_results import evaluation_facts, print_evaluation
from orchestrator.cli.images_results import images_facts
from orchestrator.cli.output import print_facts, print_json, print_table, say
from orchestrator.contract.adapter import CONTACT_SHEET_FILE, AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.contract.environment import Environment
from orchestrator.contract.events import Step
from orchestrator.contract.figures import AFTER, BEFORE, CEILING, measures_in
from orchestrator.contract.plurals import counted
from orchestrator.errors import JobError, OrchestratorError
from orchestrator.jobs.exchanges import waits_for_labels
from orchestrator.jobs.job import ENDED_EARLY, Job, cost
from orchestrator.planning.pricing import dollars
from orchestrator.settings import Settings
from orchestrator.storage.folder import folder_of, location_of
from orchestrator.targets.base import JobDescription, JobStatus
from orchestrator.targets.local.publication import base_model_of
from orchestrator.targets.names import TargetName
from orchestrator.terminal import printable, size_text

_NOTHING = Outcome()
"""What is known of the result of a job that is not complete."""
_METRIC_HEADS = ("", "BEFORE", "AFTER", "REAL PHOTOS")
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
    report = _report(job, description)
    if report is not None and not as_json:
        say(f"Report: {report}", err=True)
    if not _stopped_by_a_person(description):
        message = f"{job.name}: {description.status}. {explanation.cause}"
        raise JobError(message, next_step=explanation.next_step)
    if as_json:
        print_json(job_json(job, description, _NOTHING))
    elif waits_for_labels(description):
        say(f"{job.name}: {explanation.cause}")
        say(f"Next: {explanation.next_step}")
    else:
        say(f"Stopped {job.name}. {explanation.cause}")
        say(f"Resume it with: {explanation.next_step}")
    return JobError.exit_code


def _stopped_by_a_person(description: JobDescription) -> bool:
    """Whether a job ended because somebody stopped it, or waits for people, and not by a limit of the service."""
    if description.status is not JobStatus.STOPPED:
        return False
    if waits_for_labels(description):
        return True
    if description.target is not TargetName.SAGEMAKER:
        return True
    return description.failure_reason is None


def print_job(job: Job, *, as_json: bool) -> None:
    """Print the state of a job, and its adapter and figures once it is complete."""
    description = job.describe()
    _print(job, description, as_json=as_json)


def _print(job: Job, description: JobDescription, *, as_json: bool) -> None:
    finished = _NOTHING
    if description.status is JobStatus.COMPLETED:
        finished = job.finished()
    if as_json:
        print_json(job_json(job, description, finished))
        return
    facts = _facts(job, description, finished)
    print_facts(facts)
    if finished.evaluation is not None:
        print_evaluation(finished.evaluation)
    manifest = finished.manifest
    problem = finished.problem
    if manifest is None:
        return
    if manifest.metrics:
        rows = _metric_rows(manifest.metrics)
        click.echo()
        print_table(_METRIC_HEADS, rows)
    if problem is None:
        adapter = location_of(description.output)
        folder = _folder_to_load(job, adapter)
        base_folder = base_folder_of(description.output)
        print_snippet(manifest, folder, base_folder)


def base_folder_of(uri: str) -> Path | None:
    """Return the folder of the base model that an adapter was trained on, where a job of this machine made it."""
    if not uri.startswith("file:"):
        return None
    settings = Settings.from_environment()
    return base_model_of(folder_of(uri), settings.jobs)


def print_snippet(manifest: AdapterManifest, folder: str, base_folder: Path | None) -> None:
    """Print the Python program that loads an adapter and draws with it, ready to be copied."""
    lines = snippet(manifest, folder, base_folder)
    if lines:
        click.echo("\nDraw with it in Python:\n")
    for line in lines:
        click.echo(printable(line))


def job_json(
    job: Job,
    description: JobDescription,
    finished: Outcome,
) -> dict[str, Any]:
    """Return a job as the value that --json prints."""
    usd = cost(description)
    manifest = finished.manifest
    problem = finished.problem
    values = description.model_dump(mode="json")
    values["seconds"] = _seconds(description)
    values["checkpoint_step"] = job.target.checkpoint_step(job.name)
    values["usd"] = None
    if usd is not None:
        values["usd"] = float(usd)
    values["report"] = _report(job, description)
    values["problem"] = None
    if problem is not None:
        values["problem"] = problem.message
        values["next_step"] = problem.next_step
    values["adapter"] = None
    values["loading"] = []
    values["snippet"] = ""
    values["metrics"] = {}
    if finished.evaluation is not None:
        values["evaluation"] = finished.evaluation.model_dump(mode="json")
    if finished.images is not None:
        images = []
        for image in finished.images.images:
            images.append(image.model_dump(mode="json"))
        values["images"] = images
    if manifest is None:
        return values
    adapter = location_of(description.output)
    values["adapter"] = adapter
    values["metrics"] = manifest.metrics
    if problem is None:
        folder = _folder_to_load(job, adapter)
        base_folder = base_folder_of(description.output)
        program = snippet(manifest, folder, base_folder)
        values["loading"] = manifest.loading(folder)
        values["snippet"] = "\n".join(program)
    return values


def _facts(job: Job, description: JobDescription, finished: Outcome) -> Facts:
    """Return everything that is known of a job."""
    manifest = finished.manifest
    problem = finished.problem
    facts = _state_facts(description)
    if description.status is not JobStatus.COMPLETED:
        facts += _progress_facts(job)
    if description.failure_reason:
        facts.append(("why", description.failure_reason))
    if description.status in ENDED_EARLY:
        next_step = _next_step(job, description)
        facts.append(("next", next_step))
    if problem is not None:
        noun = description.makes.value
        facts.append((noun, problem.message))
        facts.append(("next", problem.next_step))
    elif finished.evaluation is not None:
        folder = location_of(description.output)
        facts += evaluation_facts(folder)
    elif finished.images is not None:
        folder = location_of(description.output)
        facts += images_facts(folder, finished.images)
    elif manifest is not None:
        adapter = location_of(description.output)
        facts += _adapter_facts(job, adapter, manifest)
    report = _report(job, description)
    if report is not None:
        facts.append(("report", report))
    facts += _curve_facts(job)
    return facts


def _curve_facts(job: Job) -> Facts:
    """Return the command that shows the curves of a job of this machine."""
    root = job.target.root(job.name)
    if root is None:
        return []
    environment = Environment(root=root)
    folder = environment.tensorboard
    if not folder.is_dir():
        return []
    show = shlex.join(["tensorboard", "--logdir", str(folder)])
    return [("curves", show)]


def _report(job: Job, description: JobDescription) -> str | None:
    """Return where the report of a job that has ended lies; None without one, and where nobody can be asked."""
    if not description.status.is_final:
        return None
    try:
        uri = job.target.report(job.name)
    except OrchestratorError:  # it is a by-product, and everything else is known
        return None
    if uri is None:
        return None
    return location_of(uri)


def _next_step(job: Job, description: JobDescription) -> str:
    """Return the next command after an early end: that of the explanation, or a retry where the log cannot be read."""
    try:
        return job.explain().next_step
    except OrchestratorError:
        if description.next_step:
            return description.next_step
        return command("jobs", "retry", job.name)


def _state_facts(description: JobDescription) -> Facts:
    """Return status, instances, running time and cost."""
    created = description.created.astimezone()
    submitted = created.strftime("%Y-%m-%d %H:%M:%S")
    facts = [
        ("job", description.name),
        ("status", _status(description)),
        ("submitted", submitted),
    ]
    if description.scorer is not None:
        clip = location_of(description.scorer)
        facts.append(("measured by", f"the CLIP in {clip}"))
    instance_type = description.instance_type
    if instance_type:
        runs_on = f"{description.instance_count} x {instance_type} in {description.region}"
        facts.append(("runs on", runs_on))
    seconds = _seconds(description)
    if seconds is not None:
        facts.append(("seconds", f"{seconds:.0f}"))
    if not description.billed_attempts:
        return facts
    billed = _billed(description)
    usd = cost(description)
    price = f"unknown for {billed}: no price of {instance_type} is known here"
    if usd is not None:
        price = f"{dollars(usd)} for {billed}, at list price"
    facts.append(("cost", price))
    return facts


def _progress_facts(job: Job) -> Facts:
    """Return the last optimizer step and the newest checkpoint of a job without an adapter."""
    facts = []
    try:
        last = _last_step(job)
        if last is not None:
            progress = f"step {last.step} of {last.of}, loss {last.loss:.4f}"
            facts.append(("progress", progress))
    except OrchestratorError as error:
        facts.append(("log", error.message))
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
        captions = manifest.captions or "none"
        images = counted(manifest.images, "image")
        facts.append(("trained on", f"{images}, {captions} with a caption"))
    if CONTACT_SHEET_FILE in manifest.files:
        parent = adapter.rstrip("/")
        facts.append(("images", f"{parent}/{CONTACT_SHEET_FILE}"))
    folder = _folder_to_load(job, adapter)
    if folder != adapter:
        pull = command("adapters", "pull", folder)
        facts.append(("fetch", pull))
    name = PurePath(folder).name
    prompt = example_prompt(manifest)
    controls = example_controls(manifest)
    draw = command("adapters", "draw", name, prompt, *controls)
    facts.append(("draw", draw))
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
    name = name_of(key)
    return name or adapter


def _metric_rows(metrics: dict[str, float]) -> list[list[str]]:
    """Return a row for each measure: before and after training, and what real photos reach."""
    rows = []
    for measure in measures_in(metrics):
        row = [measure.label]
        for moment in (BEFORE, AFTER, CEILING):
            name = measure.figure(moment)
            figure = metrics.get(name)
            text = "-"
            if figure is not None:
                text = f"{figure:.3f}"
            row.append(text)
        rows.append(row)
    return rows


def _last_step(job: Job) -> Step | None:
    last = None
    for event in job.events(latest_attempt=True):
        if isinstance(event, Step):
            last = event
    return last


def _billed(description: JobDescription) -> str:
    attempts = len(description.billed_attempts)
    seconds = 0
    for attempt in description.billed_attempts:
        seconds += attempt.seconds
    text = counted(seconds, "billed second")
    if attempts > 1:
        text = f"{text} in {attempts} attempts"
    if not description.status.is_final:
        text = f"{text} so far"
    return text


def _status(description: JobDescription) -> str:
    status = description.status.value
    stage = description.stage
    if stage is None:
        return status
    if stage == status:
        return status
    return f"{status}: {stage}"


def _seconds(description: JobDescription) -> float | None:
    """Return how long the latest attempt ran, or None while it has not ended."""
    if description.started is None:
        return None
    if description.ended is None:
        return None
    duration = description.ended - description.started
    seconds = duration.total_seconds()
    return round(seconds, 1)
