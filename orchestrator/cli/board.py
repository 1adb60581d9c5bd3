"""Watch several jobs: a bar for each on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from orchestrator.contract.events import Event, Item, Phase, Step, Warned
from orchestrator.terminal import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from orchestrator.sweeps.running import Watcher

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def board(labels: Sequence[str], *, quiet: bool) -> "Iterator[Watcher]":
    """Yield what shows the progress: bars on a terminal, lines elsewhere, nothing if `quiet`."""
    labels = [printable(label) for label in labels]
    if quiet:
        yield _Silence()
    elif sys.stderr.isatty():
        with _progress() as progress:
            yield _Bars(progress, labels)
    else:
        yield _Lines(labels)


class _Silence:
    def says(self, number: int, event: Event) -> None:
        pass

    def stands(self, number: int, words: str) -> None:
        pass


class _Lines:
    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels
        self._last = [0.0] * len(labels)

    def says(self, number: int, event: Event) -> None:
        match event:
            case Phase(name=name):
                self.stands(number, name)
            case Warned(message=message):
                self.stands(number, f"Warning: {message}")
            case Step(step=step, of=of, loss=loss):
                now = time.monotonic()
                silent_for = now - self._last[number]
                if silent_for > _SECONDS_BETWEEN_LINES or step == of:
                    self._last[number] = now
                    self.stands(number, f"step {step}/{of}  loss {loss:.4f}")

    def stands(self, number: int, words: str) -> None:
        label = self.labels[number]
        click.echo(f"{label}: {printable(words)}", err=True)


class _Bars:
    def __init__(self, progress: "Progress", labels: Sequence[str]) -> None:
        self.progress = progress
        self.tasks = []
        for label in labels:
            task = progress.add_task(label, total=None, start=False, words="waiting")
            self.tasks.append(task)

    def says(self, number: int, event: Event) -> None:
        task = self.tasks[number]
        match event:
            case Phase(name=name, of=of):
                words = printable(name)
                self.progress.reset(task, total=of or None, words=words)
            case Step(step=step, of=of, loss=loss):
                self.progress.update(
                    task,
                    completed=step,
                    total=of,
                    words=f"training, loss {loss:.4f}",
                )
            case Item(done=done, of=of):
                self.progress.update(task, completed=done, total=of)
            case Warned(message=message):
                label = self.progress.tasks[number].description
                text = printable(f"{label}: {message}")
                self.progress.console.print(text, markup=False, highlight=False)

    def stands(self, number: int, words: str) -> None:
        self.progress.update(self.tasks[number], words=printable(words))


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    return Progress(*columns, console=Console(stderr=True))
