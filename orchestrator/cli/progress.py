"""Watch a job: a progress bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from orchestrator.contract.command_line import command
from orchestrator.contract.events import Checkpoint, Event, Item, Phase, Resumed, Sample, Step, Warned
from orchestrator.jobs.job import Job
from orchestrator.storage import Progress as StorageProgress
from orchestrator.targets.base import JobStatus
from orchestrator.terminal import printable, size_text

_SECONDS_BETWEEN_LINES = 10.0


def follow(job: Job, *, quiet: bool) -> None:
    """Show the job's progress until it ends."""
    if quiet:
        job.wait()
    elif sys.stderr.isatty():
        _draw_bar(job.events(follow=True, latest_attempt=True))
    else:
        _print_lines(job.events(follow=True, latest_attempt=True))


def follow_own(job: Job, *, quiet: bool) -> None:
    """Show the progress of a job that this command started; Ctrl-C asks once whether to stop the job."""
    try:
        follow(job, quiet=quiet)
    except KeyboardInterrupt:
        _ask_to_stop(job)


@contextmanager
def leaving(job: Job) -> Iterator[None]:
    """When Ctrl-C ends this command, say that the job keeps running."""
    try:
        yield
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"\n{_keeps_running(job)}", err=True)
        raise click.Abort from None


@contextmanager
def uploading(*, quiet: bool) -> Iterator[StorageProgress | None]:
    """Yield a listener for a store that shows uploads: one bar a tree; what the store already holds is not shown."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _byte_bars() as bars:
            yield bars
    else:
        yield _byte_lines()


def _byte_lines() -> StorageProgress:
    started: set[str] = set()

    def progress(what: str, done: int, of: int) -> None:
        if done == of and what in started:
            click.echo(f"{what}: all sent", err=True)
        elif done < of and what not in started:
            started.add(what)
            click.echo(f"{what}: sending {size_text(of)}", err=True)

    return progress


@contextmanager
def _byte_bars() -> Iterator[StorageProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description:<16}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[size]}", markup=False),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in tasks and done < of:
                tasks[what] = bars.add_task(f"sending {what}", total=of, size="")
            if what in tasks:
                size = f"{size_text(done)} of {size_text(of)}"
                bars.update(tasks[what], completed=done, size=size)

        yield progress


def _keeps_running(job: Job) -> str:
    state = "keeps running"
    if job.describe().status is JobStatus.STOPPING:
        state = "is stopping"
    wait = command("jobs", "wait", job.name)
    return f"{job.name} {state}. Watch it with: {wait}"


def _ask_to_stop(job: Job) -> None:
    question = f"\nStop {job.name}? Its checkpoint is kept. Answer no to keep it running"
    if sys.stdin.isatty() and not click.confirm(question, default=True, err=True):
        click.echo(_keeps_running(job), err=True)
        return
    click.echo("Saving a checkpoint and stopping ...", err=True)
    job.stop()


def _draw_bar(events: Iterator[Event]) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<16}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=60) as progress:
        task = None
        for event in events:
            match event:
                case Phase(name=name, of=of):
                    if task is not None:
                        progress.stop_task(task)
                    task = progress.add_task(printable(name), total=of or None, loss="")
                case Step(step=step, of=of, loss=loss) if task is not None:
                    # A resumed run does not start at step 0: what it had done before must not count as speed.
                    if progress.tasks[task].completed == 0:
                        progress.reset(task, completed=step - 1, total=of, loss="")
                    progress.update(
                        task,
                        completed=step,
                        total=of,
                        loss=f"loss {loss:.4f}",
                    )
                case Item(done=done, of=of) if task is not None:
                    progress.update(task, completed=done, total=of)
                case _:
                    text = _remark(event)
                    if text:
                        progress.console.print(text, markup=False, highlight=False)


def _print_lines(events: Iterator[Event]) -> None:
    last = 0.0
    for event in events:
        text = _remark(event)
        now = time.monotonic()
        if isinstance(event, Phase):
            text = printable(event.name)
        elif isinstance(event, Step) and (now - last > _SECONDS_BETWEEN_LINES or event.step == event.of):
            last = now
            text = _step_line(event)
        if text:
            click.echo(text, err=True)


def _step_line(event: Step) -> str:
    speed = event.seconds_per_step
    left = (event.of - event.step) * speed
    return f"step {event.step}/{event.of}  loss {event.loss:.4f}  {speed:.2f} s/step  {left:.0f} s left"


def _remark(event: Event) -> str:
    match event:
        case Resumed(step=step):
            return f"resumed at step {step}"
        case Checkpoint(step=step):
            return f"checkpoint at step {step}"
        case Warned(message=message):
            return printable(f"Warning: {message}")
        case Sample(path=path):
            return printable(f"image: {path}")
    return ""
