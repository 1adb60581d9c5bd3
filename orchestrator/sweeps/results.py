"""What became of the jobs of a sweep, and the folder it is kept in."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.jobs.job import Job, cost
from orchestrator.storage import write_atomically
from orchestrator.storage.folder import location_of
from orchestrator.sweeps.record import RECORD_FILE, SHEET_FILE, JobResult, SweepRecord
from orchestrator.sweeps.running import Ending, Entry
from orchestrator.targets.base import JobStatus

_HASH_DIGITS = 10
"""Of the hash in a sweep's name."""


def results_of(
    entries: Sequence[Entry],
    endings: Sequence[Ending],
    sweeps: Path,
    max_usd: str | None = None,
) -> SweepRecord:
    """Look at every job that has ended, and put the finished adapters' images side by side.

    Both are kept in a folder of the sweep's own below `sweeps`; a later call for the same jobs replaces them.
    """
    results: list[JobResult] = []
    done: list[tuple[JobResult, Job]] = []
    for entry, ending in zip(entries, endings, strict=True):
        result = _result(entry, ending)
        results.append(result)
        if ending.job is not None and result.is_complete:
            done.append((result, ending.job))
    name = _sweep_name(entries)
    record = SweepRecord(
        name=name,
        recipe=entries[0].variant.spec.recipe.recipe_name(),
        max_usd=max_usd,
        folder=str(sweeps / name),
        jobs=results,
    )
    return _keep(record, done)


def _sweep_name(entries: Sequence[Entry]) -> str:
    """Return the same name for the same jobs."""
    names = sorted(entry.name for entry in entries)
    text = "\n".join(names)
    digest = hashlib.sha256(text.encode()).hexdigest()
    stem = entries[0].variant.stem
    return f"{stem}-{digest[:_HASH_DIGITS]}"


def _result(entry: Entry, ending: Ending) -> JobResult:
    """Look at a job that has ended, or that could not be started or followed."""
    if ending.job is None or ending.error is not None:
        return _result_without_job(entry, ending.error)
    try:
        return _result_of_job(entry, ending.job)
    except OrchestratorError as error:
        return _result_without_job(entry, error)


def _result_without_job(
    entry: Entry,
    error: OrchestratorError | None,
) -> JobResult:
    """Return what is known of a job that cannot be looked at: why, and what to do."""
    why = ""
    next_step = ""
    if error is not None:
        problems = [problem.render() for problem in error.problems]
        why = "; ".join([error.message, *problems])
        next_step = error.next_step
    return JobResult(
        settings=dict(entry.variant.settings),
        job=entry.name,
        status=None,
        why=why,
        next_step=next_step,
    )


def _result_of_job(entry: Entry, job: Job) -> JobResult:
    """Return what became of a job that can be looked at; raises OrchestratorError when it cannot."""
    description = job.describe()
    usd = cost(description)
    result = JobResult(
        settings=dict(entry.variant.settings),
        job=job.name,
        region=description.region,
        status=description.status,
        usd=None if usd is None else float(usd),
    )
    if description.status is not JobStatus.COMPLETED:
        explanation = job.explain()
        return result.model_copy(update={"why": explanation.cause, "next_step": explanation.next_step})
    finished = job.finished()
    manifest, problem = finished.manifest, finished.problem
    if problem is not None:
        return result.model_copy(update={"why": problem.message, "next_step": problem.next_step})
    found = {
        "adapter": location_of(description.output),
        "metrics": manifest.metrics if manifest else {},
    }
    return result.model_copy(update=found)


def _keep(
    record: SweepRecord,
    done: Sequence[tuple[JobResult, Job]],
) -> SweepRecord:
    """Write a sweep's folder, the record last, and return that."""
    # Pillow is imported only when there may be something to show.
    from orchestrator.sweeps.contact_sheet import encode_png, render_contact_sheet
    from orchestrator.sweeps.samples import read_columns

    folder = Path(record.folder)
    columns, remarks = read_columns(done)
    sheet = None
    if columns:
        path = folder / SHEET_FILE
        image = render_contact_sheet(columns)
        write_atomically(path, encode_png(image))
        sheet = str(path)
    shown = {
        "contact_sheet": sheet,
        "remarks": remarks,
    }
    complete = record.model_copy(update=shown)
    text = complete.model_dump_json(indent=2)
    write_atomically(folder / RECORD_FILE, text + "\n")
    return complete
