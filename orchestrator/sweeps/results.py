"""What became of the jobs of a sweep, and the folder it is kept in."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.jobs.job import Job, cost
from orchestrator.storage import write_atomically
from orchestrator.storage.folder import place_of
from orchestrator.sweeps.record import RECORD_FILE, SHEET_FILE, JobResult, SweepRecord
from orchestrator.sweeps.running import Ending, Entry
from orchestrator.targets.base import JobStatus


def results_of(
    entries: Sequence[Entry], endings: Sequence[Ending], sweeps: Path, max_usd: str | None = None
) -> SweepRecord:
    """Look at every job that has ended, put the finished adapters' pictures side by side, and keep both in `sweeps`."""
    recipe = entries[0].variant.spec.recipe.recipe_name()
    name = _sweep_name(entries)
    results = [_result(entry, ending) for entry, ending in zip(entries, endings, strict=True)]
    record = SweepRecord(name=name, recipe=recipe, max_usd=max_usd, folder=str(sweeps / name), jobs=results)
    done = [
        (result, ending.job)
        for result, ending in zip(results, endings, strict=True)
        if ending.job is not None and result.is_complete
    ]
    return _keep(record, done)


def _sweep_name(entries: Sequence[Entry]) -> str:
    """Return the same name for the same jobs."""
    names = "\n".join(sorted(entry.name for entry in entries))
    return f"{entries[0].variant.stem}-{hashlib.sha256(names.encode()).hexdigest()[:10]}"


def _result(entry: Entry, ending: Ending) -> JobResult:
    """Look at a job that has ended, or that could not be started or followed."""
    error = ending.error
    if ending.job is not None and error is None:
        try:
            return _seen(entry, ending.job)
        except OrchestratorError as caught:
            error = caught
    why = "; ".join([error.message, *(problem.render() for problem in error.problems)]) if error else ""
    return JobResult(
        settings=dict(entry.variant.settings),
        job=entry.name,
        status=None,
        why=why,
        next_step=error.next_step if error else "",
    )


def _seen(entry: Entry, job: Job) -> JobResult:
    description = job.describe()
    manifest = job.manifest() if description.status is JobStatus.COMPLETED else None
    explanation = None if manifest else job.explain()
    return JobResult(
        settings=dict(entry.variant.settings),
        job=job.name,
        region=description.region,
        status=description.status,
        why=explanation.cause if explanation else "",
        next_step=explanation.next_step if explanation else "",
        adapter=place_of(description.output) if manifest else None,
        metrics=manifest.metrics if manifest else {},
        usd=None if (usd := cost(description)) is None else float(usd),
    )


def _keep(record: SweepRecord, done: Sequence[tuple[JobResult, Job]]) -> SweepRecord:
    """Write a sweep's folder, the record last, and return that."""
    from orchestrator.sweeps.drawing import draw_sweep, png_of  # Pillow is imported when there is something to draw
    from orchestrator.sweeps.sheets import columns_of

    columns, remarks = columns_of(done)
    sheet = Path(record.folder) / SHEET_FILE
    if columns:
        write_atomically(sheet, png_of(draw_sweep(columns)))
    whole = record.model_copy(update={"contact_sheet": str(sheet) if columns else None, "remarks": remarks})
    write_atomically(Path(record.folder) / RECORD_FILE, whole.model_dump_json(indent=2) + "\n")
    return whole
