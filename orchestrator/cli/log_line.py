"""A line of a job's log for people: an event in words with its time, anything else as it was printed."""

import re
import sys
from collections.abc import Callable
from datetime import datetime

from orchestrator.cli.screen import styled
from orchestrator.contract.events import (
    ATTEMPT_PHASE,
    Checkpoint,
    Event,
    Failed,
    Item,
    Listening,
    Metrics,
    Phase,
    Resumed,
    Sample,
    Step,
    Warned,
    parse,
)
from orchestrator.contract.labels import WAITS_FOR_LABELS
from orchestrator.terminal import printable

# ECMA-48: control sequences, strings such as a window's title, and the other escapes.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])")
_COLOURS = {Warned: "yellow", Failed: "red"}


def log_text(line: str, located: Callable[[str], str] = str) -> str:
    """Return the line as text that is safe to print, coloured where it is a warning or an error on a terminal.

    `located` says where a file of the job lies.
    """
    event = parse(line)
    if event is None:
        return plain_text(line)
    text = printable(_words(event, located))
    colour = _COLOURS.get(type(event))
    if isinstance(event, Failed) and event.kind == WAITS_FOR_LABELS:
        colour = "yellow"
    if colour is not None:
        text = styled(text, sys.stdout, colour)
    return f"{_time(event)}  {text}"


def plain_text(line: str) -> str:
    """Return what a terminal would show of a line in the end: without control codes, and redrawn bars only once."""
    text = _ESCAPE.sub("", line)
    last = text.rstrip("\r").rpartition("\r")[2]
    return printable(last, keep="\t")


def _time(event: Event) -> str:
    """Return the time of day here, with the date where an attempt begins; dashes for a log of an older version."""
    is_beginning = isinstance(event, Phase) and event.name == ATTEMPT_PHASE
    if event.at is None:
        return "--:--:--"
    local: datetime = event.at.astimezone()
    if is_beginning:
        return local.strftime("%Y-%m-%d %H:%M:%S")
    return local.strftime("%H:%M:%S")


def _words(event: Event, located: Callable[[str], str]) -> str:
    match event:
        case Phase(name=name, of=of):
            text = f"{name}, {of} to do" if of else name
        case Item(done=done, of=of):
            text = f"{done}/{of} done"
        case Step():
            text = _step(event)
        case Checkpoint(step=step):
            text = f"checkpoint at step {step}"
        case Resumed(step=step):
            text = f"resumed at step {step}"
        case Sample(path=path):
            text = f"image: {located(path)}"
        case Metrics(values=values):
            text = _figures(values)
        case Listening(host=host, port=port):
            text = f"listening on {host}:{port}"
        case Warned() | Failed():
            text = _fault(event)
    return text


def _step(event: Step) -> str:
    text = f"step {event.step}/{event.of}  loss {event.loss:.4f}  learning rate {event.learning_rate:.3g}"
    if event.measures:
        text = f"{text}  {_figures(event.measures)}"
    return f"{text}  {event.seconds_per_step:.2f} s/step"


def _figures(values: dict[str, float]) -> str:
    words = []
    for name, value in values.items():
        label = name.replace("_", " ")
        words.append(f"{label} {value:.3f}")
    return "  ".join(words)


def _fault(event: Warned | Failed) -> str:
    if isinstance(event, Warned):
        return f"Warning: {event.message}"
    text = f"Error: {event.message}"
    if event.kind == WAITS_FOR_LABELS:
        text = event.message
    if event.next_step:
        text = f"{text} Next: {event.next_step}"
    return text
