"""`sweep`: several jobs that differ in a few settings, and a contact sheet to compare their adapters."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from orchestrator.cli.job_options import ask_to_spend, check_target, job_options, spec_fields
from orchestrator.cli.output import json_option, print_facts, print_json, print_table, say
from orchestrator.contract.command_line import command
from orchestrator.contract.figures import AFTER, MEASURES
from orchestrator.targets.names import LOCAL_TARGETS

if TYPE_CHECKING:
    from orchestrator.planning.placement import Placement
    from orchestrator.settings import Settings
    from orchestrator.sweeps.grid import Variant
    from orchestrator.sweeps.record import JobResult, SweepRecord
    from orchestrator.sweeps.running import Entry, SweepRun
    from orchestrator.targets.base import Target
    from orchestrator.targets.local.local_jobs import LocalJobs


class _Start(NamedTuple):
    """Options of how a sweep is started and shown."""

    parallel: int | None
    resume: bool
    dry_run: bool
    yes: bool
    as_json: bool


@click.command()
@job_options(
    setting="FIELD=A,B,...",
    sets="Values of a field of the recipe, or one for all; a JSON list for values that hold commas.",
    max_usd="On SageMaker: what all jobs together may cost; each gets an equal share.",
)
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    help="Jobs at a time; one on this machine, all on SageMaker when left out.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume jobs that ended early.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show every job and start none; makes no call.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="On SageMaker: do not ask before spending.",
)
@json_option
def sweep(
    what: str,
    *,
    target: str,
    pairs: tuple[str, ...],
    max_usd: str | None,
    **given: Any,
) -> int:
    """Train an adapter for each combination of settings and show them side by side.

    Idempotent: a job that is complete is not run again, so the same command resumes the sweep. With --name, the name
    of each adapter also holds its settings.

    \b
    sweep dreambooth -s rank=4,8,16
    sweep job.yaml -s rank=4,8 -s learning_rate=1e-4,5e-4 -s steps=300
    sweep job.yaml -s 'instance_prompt=["a photo of sks, a dog", "sks dog"]'
    sweep job.yaml -s rank=4,8,16 --target sagemaker --max-usd 10
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.settings import Settings
    from orchestrator.sweeps.budget import with_shares
    from orchestrator.sweeps.grid import expand

    check_target(target, {**given, "max_usd": max_usd, "pairs": pairs})
    start = _Start(
        parallel=given.pop("parallel"),
        resume=given.pop("resume"),
        dry_run=given.pop("dry_run"),
        yes=given.pop("yes"),
        as_json=given.pop("as_json"),
    )
    settings = Settings.from_environment()
    if not start.dry_run:
        settings.require_writable()
    lists = {}
    for pair in pairs:
        field, _, values = pair.partition("=")
        lists[field] = values
    fields = spec_fields(what, given, lists)
    variants = expand(fields, pairs)
    if target in LOCAL_TARGETS:
        return _here(variants, settings, start, target)
    capped = with_shares(variants, max_usd)
    return _on_sagemaker(capped, settings, start, max_usd)


def _here(variants: Sequence["Variant"], settings: "Settings", start: _Start, target_name: str) -> int:
    from orchestrator.cli.plans import warn_of_taken_name
    from orchestrator.storage import FolderStore
    from orchestrator.sweeps.planning import plan_sweep_here, store_trees
    from orchestrator.targets.local.opening import open_local
    from orchestrator.targets.local.queue import Turn

    with TemporaryDirectory(prefix="orchestrator-") as staging:
        turn = Turn.QUEUED  # behind other jobs; with --parallel the person asked for several at once
        if start.parallel is not None and start.parallel > 1:
            turn = Turn.TOGETHER
        target = open_local(target_name, settings, turn)
        entries = plan_sweep_here(variants, settings, Path(staging), target.container)
        _show_plan(entries, start)
        if not start.as_json and turn is Turn.QUEUED:
            _print_expected(entries, target)
        if start.dry_run:
            for entry in entries:
                resume = start.resume and target.has(entry.name)
                warn_of_taken_name(
                    entry.plan,
                    target,
                    resume=resume,
                    restart=False,
                )
            return 0
        target.require_machine(entries[0].plan.request)
        store_trees(entries, FolderStore(settings.store))
    return _run(entries, target, settings, start, None)


def _on_sagemaker(
    variants: Sequence["Variant"],
    settings: "Settings",
    start: _Start,
    max_usd: str | None,
) -> int:
    from orchestrator.settings import AwsSettings
    from orchestrator.sweeps.planning import in_image, plan_sweep_on_sagemaker, store_trees

    with TemporaryDirectory(prefix="orchestrator-") as staging:
        if start.dry_run:
            planned_for = settings.aws() or AwsSettings.placeholder()
            entries = plan_sweep_on_sagemaker(
                variants,
                settings,
                planned_for,
                Path(staging),
                mirrors={},
            )
            _show_plan(entries, start)
            return 0
        # Imported late: a dry run needs nothing that watches jobs.
        from orchestrator.aws.client import Aws
        from orchestrator.infra.training_image import require_image
        from orchestrator.models.mirror import ask_all
        from orchestrator.sweeps.running import check
        from orchestrator.targets.names import TargetName
        from orchestrator.targets.opening import open_target

        account = settings.account()
        target = open_target(TargetName.SAGEMAKER, settings)
        models = [variant.spec.base_model for variant in variants]
        mirrors = ask_all(target.store, models)
        entries = plan_sweep_on_sagemaker(
            variants,
            settings,
            account,
            Path(staging),
            mirrors,
        )
        _show_plan(entries, start)
        image = require_image(Aws(account.region), account)
        entries = in_image(entries, image)
        check(entries, target)
        ask_to_spend("Start them?", yes=start.yes, capped=max_usd is not None)
        store_trees(entries, target.store)
    return _run(entries, target, settings, start, max_usd)


def _show_plan(entries: Sequence["Entry"], start: _Start) -> None:
    from orchestrator.contract.events import NOTE

    lines: dict[str, None] = {}  # a set that keeps its order: most are the same for all jobs
    for entry in entries:
        for warning in entry.plan.warnings:
            lines[f"Warning: {warning.render()}"] = None
        for note in entry.plan.notes:
            lines[f"{NOTE}{note}"] = None
    for line in lines:
        say(line, err=True)
    if start.dry_run and start.as_json:
        print_json(_plan_json(entries))
    elif not start.as_json:
        _print_plan(entries)


def _plan_json(entries: Sequence["Entry"]) -> dict[str, Any]:
    from orchestrator.sweeps.budget import total_worst_case

    unshown = {"trees", "warnings", "notes", "stand_ins"}
    jobs = []
    for entry in entries:
        settings = dict(entry.variant.settings)
        plan = entry.plan.model_dump(mode="json", exclude=unshown)
        jobs.append({"settings": settings, **plan})
    total = total_worst_case([entry.plan for entry in entries])
    usd = None
    if total is not None:
        usd = float(total)
    return {"jobs": jobs, "usd": usd}


def _print_plan(entries: Sequence["Entry"]) -> None:
    from orchestrator.cli.plans import scorer_facts
    from orchestrator.planning.pricing import dollars
    from orchestrator.sweeps.budget import total_worst_case

    first = entries[0]
    settings = _columns(first.variant.settings)
    columns = [*settings, "JOB"]
    is_paid = first.plan.placement is not None
    if is_paid:
        columns += ["INSTANCE", "LIMIT", "LIKELY", "AT MOST"]
    rows = []
    for entry in entries:
        row = [*entry.variant.settings.values(), entry.name]
        placement = entry.plan.placement
        if placement is not None:
            row += _costs(placement)
        rows.append(row)
    print_table(columns, rows, wraps=settings)
    print_facts(scorer_facts(first.plan))  # the same for all
    if not is_paid:
        return
    total = total_worst_case([entry.plan for entry in entries])
    most = "unknown: no price of an instance type is known"
    if total is not None:
        most = f"at most {dollars(total)} for {len(entries)} jobs"
    print_facts([("total", most)])


def _costs(placement: "Placement") -> list[str]:
    """Return the cells of an instance, its time limit and what the job costs."""
    minutes = placement.cost.runtime_seconds // 60
    return [
        placement.instance.name,
        f"{minutes} min",
        _likely(placement),
        _most(placement),
    ]


def _likely(placement: "Placement") -> str:
    from orchestrator.planning.pricing import dollars

    if placement.likely_usd is None:
        return "unknown"
    low, high = placement.likely_usd
    least = dollars(low)
    most = dollars(high)
    return f"{least} to {most}"


def _most(placement: "Placement") -> str:
    from orchestrator.planning.pricing import dollars

    if placement.cost.usd is None:
        return "unknown"
    return dollars(placement.cost.usd)


def _print_expected(entries: Sequence["Entry"], target: "LocalJobs") -> None:
    """Print how long all jobs are expected to take here, one after another."""
    from orchestrator.jobs.measurements import expected_here, measured_runs
    from orchestrator.planning.duration import one_after_another

    runs = measured_runs(target)
    each = [expected_here(entry.variant.spec, runs) for entry in entries]
    expected = one_after_another(each)
    if expected is None:
        return
    duration = expected.describe()
    print_facts([("expected", f"{duration} for {len(entries)} jobs")])


def _columns(settings: Mapping[str, str]) -> list[str]:
    return [field.upper() for field in settings]


def _run(
    entries: Sequence["Entry"],
    target: "Target",
    settings: "Settings",
    start: _Start,
    max_usd: str | None,
) -> int:
    from orchestrator.cli.board import board
    from orchestrator.sweeps.refusal import label
    from orchestrator.sweeps.results import results_of
    from orchestrator.sweeps.running import SweepRun
    from orchestrator.targets.names import TargetName

    parallel = 1
    if target.name is TargetName.SAGEMAKER:
        parallel = len(entries)
    if start.parallel is not None:
        parallel = start.parallel
    labels = [label(entry.variant.settings) for entry in entries]
    run = SweepRun(
        entries,
        target,
        parallel=parallel,
        resume=start.resume,
    )
    with _leaving(run), board(labels, quiet=start.as_json) as watcher:
        endings = run.run(watcher)
    record = results_of(entries, endings, settings.sweeps, max_usd)
    return _print_record(record, as_json=start.as_json)


@contextmanager
def _leaving(run: "SweepRun") -> Iterator[None]:
    """When Ctrl-C ends this command, say which jobs keep running and how to resume the sweep."""
    try:
        yield
    except KeyboardInterrupt:
        names = [job.name for job in run.running.values()]
        running = ", ".join(names) or "no job"
        waiting = len(run.entries) - len(run.running) - len(run.endings)
        text = f"\nStill running: {running}."
        if waiting:
            text = f"{text} Not started: {waiting}."
        text = f"{text} The same command resumes the sweep: {_same_command()}"
        say(text, keep="\n", err=True)
        raise click.Abort from None


def _same_command() -> str:
    return command(*sys.argv[1:])


def _print_record(record: "SweepRecord", *, as_json: bool) -> int:
    from orchestrator.errors import JobError

    failed = [job for job in record.jobs if not job.is_complete]
    if as_json:
        print_json(record.model_dump(mode="json"))
        return JobError.exit_code if failed else 0
    _print_jobs(record)
    if not failed:
        return 0
    counts = f"{len(failed)} of {len(record.jobs)} jobs made no adapter."
    raise JobError(
        f"{counts} Once they have, the same command shows all side by side: {_same_command()}",
        next_step=failed[0].next_step,
    )


def _print_jobs(record: "SweepRecord") -> None:
    settings = _columns(record.jobs[0].settings)
    columns = [*settings, "JOB", "STATUS"]
    for measure in MEASURES:
        columns.append(measure.label.upper())
    paid = any(job.usd is not None for job in record.jobs)
    if paid:
        columns.append("COST")
    rows = []
    for job in record.jobs:
        row = _row(job, paid=paid)
        rows.append(row)
    click.echo()
    print_table(columns, rows, wraps=settings)
    click.echo()
    for job in record.jobs:
        if job.why:
            say(f"{job.job}: {job.why}")
    for remark in record.remarks:
        say(f"Note: {remark}")
    facts = [
        ("images", record.contact_sheet or "none"),
        ("record", record.file),
    ]
    print_facts(facts)


def _row(job: "JobResult", *, paid: bool) -> list[str]:
    status = str(job.status or "not started")
    row = [*job.settings.values(), job.job, status]
    for measure in MEASURES:
        figure = job.metrics.get(measure.figure(AFTER))
        row.append(_cell(figure, "{:.3f}"))
    if paid:
        row.append(_cell(job.usd, "${:.4f}"))
    return row


def _cell(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return form.format(value)
