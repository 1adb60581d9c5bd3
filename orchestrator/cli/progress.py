"""Watch a job: one line that is redrawn on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from orchestrator.cli.output import in_width, say
from orchestrator.cli.program import as_called
from orchestrator.cli.progress_line import bar, marks_for, plain_line, progress_line, stage_line
from orchestrator.cli.screen import LiveLines, is_terminal, shortened, styled
from orchestrator.cli.timeline import Stage, Timeline, moment
from orchestrator.contract.command_line import command
from orchestrator.contract.events import Checkpoint, Event, Item, Resumed, Sample, Step, Warned
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.job import Job
from orchestrator.storage import Progress as StorageProgress
from orchestrator.targets.base import JobStatus
from orchestrator.terminal import printable, size_text

_SECONDS_BETWEEN_LINES = 10.0
_BYTE_BAR = 20  # columns


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
        text = _keeps_running(job)
        say(f"\n{text}", keep="\n", err=True)
        raise click.Abort from None


@contextmanager
def uploading(*, quiet: bool) -> Iterator[StorageProgress | None]:
    """Yield a listener for a store that shows uploads: one bar a tree; what the store already holds is not shown."""
    if quiet:
        yield None
        return
    if not is_terminal(sys.stderr):
        yield _byte_lines()
        return
    with _byte_bars() as bars:
        yield bars


def _byte_lines() -> StorageProgress:
    """Return a listener that prints a line when a tree begins to be sent, and another when it is."""
    started: set[str] = set()

    def progress(what: str, done: int, of: int) -> None:
        is_complete = done == of
        name = printable(what)
        if is_complete and what in started:
            click.echo(f"{name}: all sent", err=True)
        elif not is_complete and what not in started:
            started.add(what)
            size = size_text(of)
            click.echo(f"{name}: sending {size}", err=True)

    return progress


@contextmanager
def _byte_bars() -> Iterator[StorageProgress]:
    """Yield a listener that redraws a bar for each tree; what was sent stays as a line each."""
    marks = marks_for(sys.stderr)
    sent: dict[str, tuple[int, int]] = {}  # bytes of each tree, and of how many

    def lines(columns: int, _rows: int) -> list[str]:
        shown = []
        for what, (done, of) in sent.items():
            name = printable(what)
            drawn = bar(done, of, _BYTE_BAR, marks)
            size_sent = size_text(done)
            size = size_text(of)
            line = f"sending {name}  {drawn}  {size_sent} of {size}"
            shown.append(shortened(line, columns - 1, marks.ellipsis))
        return shown

    with LiveLines(sys.stderr, lines) as live:

        def progress(what: str, done: int, of: int) -> None:
            is_stored = done == of and what not in sent  # complete from the beginning
            if is_stored:
                return
            with live.changing():
                sent[what] = (done, of)

        yield progress
    mark = styled(marks.done, sys.stderr, "green")
    for what, (_, of) in sent.items():
        name = printable(what)
        size = size_text(of)
        click.echo(f"{mark} sent {name}  {size}", err=True)


def _keeps_running(job: Job) -> str:
    """Return what to say of a job that this command leaves alone."""
    state = "keeps running"
    described = job.describe()
    if described.status is JobStatus.STOPPING:
        state = "is stopping"
    wait = command("jobs", "wait", job.name)
    stop = command("jobs", "stop", job.name)
    return f"{job.name} {state}.\nWatch it with: {wait}\nStop it with:  {stop}"


def _ask_to_stop(job: Job) -> None:
    """Stop a job, on a terminal only after asking."""
    stops = True
    if sys.stdin.isatty():
        kept = _what_is_kept(job)
        say(f"\n{kept} Answer no to keep it running.", keep="\n", err=True)
        stops = click.confirm(f"Stop {job.name}?", default=True, err=True)
    if not stops:
        text = _keeps_running(job)
        say(text, keep="\n", err=True)
        return
    click.echo("Stopping ...", err=True)
    job.stop()


def _what_is_kept(job: Job) -> str:
    """Return what is kept of a job that is stopped now."""
    try:
        step = job.target.checkpoint_step(job.name)
    except OrchestratorError:  # the service does not answer now
        return "Its newest checkpoint is kept."
    if step is None:
        return "It has no checkpoint yet; it saves one if it has begun to train."
    return f"Its checkpoint at step {step} is kept."


def _redraw_line(job: Job) -> None:
    """Show one line on a terminal, and above it each stage that has ended."""
    timeline = Timeline()
    marks = marks_for(sys.stderr)

    def lines(columns: int, _rows: int) -> list[str]:
        now = time.time()
        width = columns - 1  # a full line would leave the cursor in the next
        return [progress_line(timeline, now, width, marks)]

    with LiveLines(sys.stderr, lines) as live:
        for event in job.events(follow=True, latest_attempt=True):
            with live.changing():
                ended = timeline.hear(event, time.time())
            for text in _remarks(job, event, ended):
                live.print(text)
    _print_end(job, timeline)


def _print_lines(job: Job) -> None:
    """Print a line when a stage begins, and while it lasts one every few seconds.

    What happened before this command began to watch is not printed, apart from the stages and what a person should
    know.
    """
    timeline = Timeline()
    printed = 0.0  # seconds since 1970
    for event in job.events(follow=True, latest_attempt=True):
        now = time.time()
        earlier_stage = timeline.stage
        ended = timeline.hear(event, now)
        stage = timeline.stage
        for text in _remarks(job, event, ended):
            click.echo(text, err=True)
        said = moment(event, now)  # long ago, if the job ran before somebody began to watch
        is_recent = now - said < _SECONDS_BETWEEN_LINES
        is_due = now - printed > _SECONDS_BETWEEN_LINES
        is_news = isinstance(event, Step | Item) and is_recent and is_due
        is_new_stage = stage and stage != earlier_stage
        if is_news or is_new_stage:
            printed = now
            line = plain_line(timeline, said)
            click.echo(line, err=True)
    _print_end(job, timeline)


def _print_end(job: Job, timeline: Timeline) -> None:
    """Print the stage in which the job ended."""
    described = job.describe()
    status = described.status
    ended = None
    if described.ended is not None:
        ended = described.ended.timestamp()
    stage = timeline.end(status, ended)
    if stage is None:
        return
    line = _done(stage)
    if status is not JobStatus.COMPLETED:
        marks = marks_for(sys.stderr)
        mark = styled(marks.ended, sys.stderr, "red")
        line = stage_line(stage, mark, is_complete=False)
    click.echo(line, err=True)


def _remarks(job: Job, event: Event, ended: Stage | None) -> list[str]:
    """Return the lines that stay: the stage that has ended, and what a person should know."""
    texts = []
    if ended is not None:
        texts.append(_done(ended))
    text = _remark(job, event)
    if text:
        texts.append(f"  {text}")
    return texts


def _done(stage: Stage) -> str:
    """Return the line of a stage that has ended well."""
    marks = marks_for(sys.stderr)
    mark = styled(marks.done, sys.stderr, "green")
    return stage_line(stage, mark, is_complete=True)


def _remark(job: Job, event: Event) -> str:
    """Return what a person should know of an event; empty for most."""
    match event:
        case Resumed(step=step):
            return f"resumed at step {step}"
        case Checkpoint(step=step):
            return f"checkpoint at step {step}"
        case Warned(message=message):
            warning = printable(f"  Warning: {message}")
            lines = in_width(as_called(warning), sys.stderr)
            text = lines.lstrip(" ")
            return styled(text, sys.stderr, "yellow")
        case Sample(path=path):
            return printable(f"image: {job.location(path)}")
    return ""
