"""Watch several jobs: a line for each that is redrawn on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import in_width, say
from orchestrator.cli.program import as_called
from orchestrator.cli.progress_line import marks_for, plain_line, progress_line
from orchestrator.cli.screen import LiveLines, is_terminal, padded, shortened, styled, width_of
from orchestrator.cli.timeline import Timeline, moment
from orchestrator.contract.events import Event, Item, Step, Warned
from orchestrator.contract.lettering import what_differs
from orchestrator.terminal import printable

if TYPE_CHECKING:
    from orchestrator.sweeps.running import Watcher

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def board(labels: Sequence[str], *, quiet: bool) -> "Iterator[Watcher]":
    """Yield what shows the progress: redrawn lines on a terminal, lines elsewhere, nothing if `quiet`."""
    if quiet:
        yield _Silence()
        return
    if not is_terminal(sys.stderr):
        yield _Lines(labels)
        return
    jobs = [_Shown(printable(label)) for label in labels]

    def lines(columns: int, rows: int) -> list[str]:
        return _lines(jobs, columns, rows)

    with LiveLines(sys.stderr, lines) as live:
        yield _Live(live, jobs)
    for job in jobs:
        click.echo(f"{job.label}: {job.words}", err=True)


class _Silence:
    """Shows nothing."""

    def says(self, number: int, event: Event) -> None:
        """Ignore an event of a job."""

    def stands(self, number: int, words: str) -> None:
        """Ignore where a job stands."""


class _Lines:
    """Prints lines, with at least so much time between two of a job unless a stage begins."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels
        self._timelines = [Timeline() for _ in labels]
        self._printed = [0.0] * len(labels)  # seconds since 1970

    def says(self, number: int, event: Event) -> None:
        """Print a warning, a new stage, or from time to time the progress."""
        now = time.time()
        timeline = self._timelines[number]
        earlier_stage = timeline.stage
        timeline.hear(event, now)
        stage = timeline.stage
        if isinstance(event, Warned):
            self.stands(number, f"Warning: {event.message}")
        is_due = now - self._printed[number] > _SECONDS_BETWEEN_LINES
        is_news = isinstance(event, Step | Item) and is_due
        is_new_stage = stage and stage != earlier_stage
        if is_news or is_new_stage:
            self._printed[number] = now
            line = plain_line(timeline, moment(event, now))
            self.stands(number, line)

    def stands(self, number: int, words: str) -> None:
        """Print where a job stands."""
        label = self.labels[number]
        say(f"{label}: {words}", err=True)


class _Shown:
    """A job of the board: its progress while it runs, else words."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.words = "waiting"
        self.timeline = Timeline()

    @property
    def runs(self) -> bool:
        """Whether the job says something of its progress now."""
        return bool(self.timeline.stage)


class _Live:
    """Redraws the lines of a terminal."""

    def __init__(self, live: LiveLines, jobs: Sequence[_Shown]) -> None:
        self._live = live
        self._jobs = jobs

    def says(self, number: int, event: Event) -> None:
        """Redraw the line of a job; print a warning above all lines."""
        job = self._jobs[number]
        now = time.time()
        with self._live.changing():
            job.timeline.hear(event, now)
        if isinstance(event, Warned):
            warning = printable(f"{job.label}: Warning: {event.message}")
            text = in_width(as_called(warning), sys.stderr)
            line = styled(text, sys.stderr, "yellow")
            self._live.print(line)

    def stands(self, number: int, words: str) -> None:
        """Show words in place of a job's progress, until it says something again."""
        job = self._jobs[number]
        with self._live.changing():
            job.words = printable(words)
            job.timeline = Timeline()


def _lines(jobs: Sequence[_Shown], columns: int, rows: int) -> list[str]:
    """Return a line for each job; where there are more jobs than rows, for those that run and the next ones."""
    width = columns - 1  # a full line would leave the cursor in the next
    marks = marks_for(sys.stderr)
    most = max(1, rows - 2)
    shown = list(jobs)
    if len(jobs) > most:
        shown.sort(key=lambda job: not job.runs)  # keeps the order of each kind
        shown = shown[:most]
    longest = 0
    for job in shown:
        longest = max(longest, width_of(job.label))
    longest = min(longest, width // 3)
    now = time.time()
    lines = []
    for job in shown:
        label = job.label
        if width_of(label) > longest:
            others = [other.label for other in jobs if other is not job]
            label = what_differs(label, others)
        label = shortened(label, longest, marks.ellipsis)
        label = padded(label, longest)
        if job.runs:
            line = progress_line(
                job.timeline,
                now,
                width,
                marks,
                label,
            )
        else:
            line = shortened(f"{label}  {job.words}", width, marks.ellipsis)
        lines.append(line)
    hidden = len(jobs) - len(shown)
    if hidden:
        lines.append(f"and {hidden} more")
    return lines
