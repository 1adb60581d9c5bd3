"""Watch a job: one line that is redrawn on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from orchestrator.cli.output import say
from orchestrator.cli.program import as_called
from orchestrator.cli.progress_line import bar, marks_for, plain_line, progress_line, stage_line
from orchestrator.cli.screen import LiveLines, is_terminal, shortened, styled
from orchestrator.cli.timeline import Stage, Timeline, moment
from orchestrator.contract.command_line import command
from orchestrator.contract.events import Checkpoint, Event, Item, Resumed, Sample, Step, Warned
from orchestrator.jobs.job import Job
from orchestrator.storage import Progress as StorageProgress
from orchestrator.targets.base import JobStatus
from orchestrator.terminal import printable, size_text

_SECONDS_BETWEEN_LINES = 10.0


def follow(job: Job, *, quiet: bool) -> None:
    """Show the job's progress until it ends."""
    if quiet:
        job.wait()
    elif is_terminal(sys.stderr):
        _redraw_line(job)
    else:
        _print_lines(job)


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
        say(f"\n{_keeps_running(job)}", keep="\n", err=True)
        raise click.Abort from None


@contextmanager
def uploading(*, quiet: bool) -> Iterator[StorageProgress | None]:
    """Yield a listener for a store that shows uploads: one bar a tree; what the store already holds is not shown."""
    if quiet:
        yield None
    elif is_terminal(sys.stderr):
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
    marks = marks_for(sys.stderr)
    sent: dict[str, tuple[int, int]] = {}  # bytes of each tree, and of how many

    def lines(columns: int, _rows: int) -> list[str]:
        shown = []
        for what, (done, of) in sent.items():
            drawn = bar(done, of, 20, marks)
            line = f"sending {printable(what)}  {drawn}  {size_text(done)} of {size_text(of)}"
            shown.append(shortened(line, columns - 1, marks.ellipsis))
        return shown

    with LiveLines(sys.stderr, lines) as live:

        def progress(what: str, done: int, of: int) -> None:
            if what in sent or done < of:  # what the store already holds is complete from the beginning
                with live.changing():
                    sent[what] = (done, of)

        yield progress
    for what, (_, of) in sent.items():
        click.echo(f"{styled(marks.done, sys.stderr, 'green')} sent {printable(what)}  {size_text(of)}", err=True)


def _keeps_running(job: Job) -> str:
    state = "keeps running"
    if job.describe().status is JobStatus.STOPPING:
        state = "is stopping"
    wait = command("jobs", "wait", job.name)
    stop = command("jobs", "stop", job.name)
    return f"{job.name} {state}.\nWatch it with: {wait}\nStop it with:  {stop}"


def _ask_to_stop(job: Job) -> None:
    question = f"\nStop {job.name}? Its checkpoint is kept. Answer no to keep it running"
    if sys.stdin.isatty() and not click.confirm(question, default=True, err=True):
        say(_keeps_running(job), keep="\n", err=True)
        return
    click.echo("Saving a checkpoint and stopping ...", err=True)
    job.stop()


def _redraw_line(job: Job) -> None:
    timeline = Timeline()
    marks = marks_for(sys.stderr)

    def lines(columns: int, _rows: int) -> list[str]:
        # One column less: a full line would leave the cursor in the next.
        return [progress_line(timeline, time.time(), columns - 1, marks)]

    with LiveLines(sys.stderr, lines) as live:
        for event in job.events(follow=True, latest_attempt=True):
            with live.changing():
                ended = timeline.hear(event, time.time())
            for text in _remarks(event, ended):
                live.print(text)
    _print_end(job, timeline)


def _print_lines(job: Job) -> None:
    timeline = Timeline()
    printed = 0.0  # seconds since 1970
    for event in job.events(follow=True, latest_attempt=True):
        now = time.time()
        stage = timeline.stage
        ended = timeline.hear(event, now)
        for text in _remarks(event, ended):
            click.echo(text, err=True)
        said = moment(event, now)  # long ago, if the job ran before somebody began to watch
        is_due = now - said < _SECONDS_BETWEEN_LINES < now - printed
        is_news = isinstance(event, Step | Item) and is_due
        if is_news or (timeline.stage and timeline.stage != stage):
            printed = now
            click.echo(plain_line(timeline, said), err=True)
    _print_end(job, timeline)


def _print_end(job: Job, timeline: Timeline) -> None:
    described = job.describe()
    status = described.status
    ended = None
    if described.ended is not None:
        ended = described.ended.timestamp()
    stage = timeline.end(status, ended)
    if stage is None:
        return
    if status is JobStatus.COMPLETED:
        click.echo(_done(stage), err=True)
    else:
        mark = styled(marks_for(sys.stderr).ended, sys.stderr, "red")
        click.echo(stage_line(stage, mark, is_complete=False), err=True)


def _remarks(event: Event, ended: Stage | None) -> list[str]:
    """Return the lines that stay: the stage that has ended, and what a person should know."""
    texts = []
    if ended is not None:
        texts.append(_done(ended))
    text = _remark(event)
    if text:
        texts.append(f"  {text}")
    return texts


def _done(stage: Stage) -> str:
    mark = styled(marks_for(sys.stderr).done, sys.stderr, "green")
    return stage_line(stage, mark, is_complete=True)


def _remark(event: Event) -> str:
    match event:
        case Resumed(step=step):
            return f"resumed at step {step}"
        case Checkpoint(step=step):
            return f"checkpoint at step {step}"
        case Warned(message=message):
            return styled(as_called(printable(f"Warning: {message}")), sys.stderr, "yellow")
        case Sample(path=path):
            return printable(f"image: {path}")
    return ""
