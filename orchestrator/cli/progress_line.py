"""A job's progress as one line of any width: stage, step, loss, time elapsed, and time left in the stage."""

from typing import NamedTuple, TextIO

from orchestrator.cli.screen import shortened, shows_unicode, width_of
from orchestrator.cli.timeline import Stage, Timeline
from orchestrator.contract.plurals import counted
from orchestrator.terminal import printable

_LONGEST_BAR = 30
_SHORTEST_BAR = 8
_GAP = "  "
_NARROW_GAP = " "
_LEAST_NEEDED = ("loss", "left", "elapsed")
"""Facts that are left out where there is no room, the first of them first."""


class Marks(NamedTuple):
    """The signs of a progress display."""

    done: str
    ended: str
    ellipsis: str
    full: str
    empty: str


_UNICODE = Marks(
    done="✓",
    ended="✗",
    ellipsis="…",
    full="━",
    empty="─",
)
_ASCII = Marks(
    done="+",
    ended="x",
    ellipsis="...",
    full="#",
    empty="-",
)


def marks_for(stream: TextIO) -> Marks:
    """Return the signs that the stream can show."""
    if shows_unicode(stream):
        return _UNICODE
    return _ASCII


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours where there are any: 0:05, 12:30, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"


def progress_line(
    timeline: Timeline,
    now: float,
    width: int,
    marks: Marks,
    label: str = "",
) -> str:
    """Return the line: a bar where there is room, and less of the rest where there is not."""
    first = _first(timeline)
    if label:
        first = f"{label}  {first}"
    facts = _facts(timeline, now)
    without_bar = _joined(first, facts)
    room = width - width_of(without_bar) - len(_GAP)
    if timeline.of and room >= _SHORTEST_BAR:
        columns = min(room, _LONGEST_BAR)
        drawn = bar(timeline.done, timeline.of, columns, marks)
        return _joined(f"{first}{_GAP}{drawn}", facts)
    line = _fitting(first, facts, width)
    for unneeded in _LEAST_NEEDED:
        if line is None:
            facts.pop(unneeded, None)
            line = _fitting(first, facts, width)
    if line is not None:
        return line
    count = _joined("", facts)
    room = width - width_of(count)
    if room < _SHORTEST_BAR:
        return shortened(first, width, marks.ellipsis)
    first = shortened(first, room, marks.ellipsis)
    return _joined(first, facts)


def plain_line(timeline: Timeline, now: float) -> str:
    """Return the line without a bar, as long as it is."""
    first = _first(timeline)
    facts = _facts(timeline, now)
    return _joined(first, facts)


def stage_line(stage: Stage, mark: str, *, is_complete: bool) -> str:
    """Return the line of a stage that has ended: a mark, its name, its duration, and how far it came if not done."""
    name = printable(stage.name)
    duration = clock(stage.seconds)
    text = f"{mark} {name:<14}  {duration}"
    if not stage.of:
        return text
    count = counted(stage.of, stage.unit)
    if not is_complete:
        count = f"{stage.done} of {count}"
    return f"{text}  {count}"


def _first(timeline: Timeline) -> str:
    """Return what the job does."""
    return printable(timeline.stage) or "waiting"


def _facts(timeline: Timeline, now: float) -> dict[str, str]:
    """Return what is known beside the stage, each with its label, by name."""
    facts: dict[str, str] = {}
    step = timeline.step
    if timeline.of:
        count = f"{timeline.done}/{timeline.of}"
        facts["count"] = f"{timeline.unit} {count}"
    if step is not None and timeline.trains:
        facts["loss"] = f"loss {step.loss:.4f}"
    elapsed = clock(timeline.elapsed(now))
    facts["elapsed"] = f"elapsed {elapsed}"
    silence = timeline.heartbeat.silence(now)
    seconds_left = timeline.left(now)
    if silence is not None:
        facts["left"] = f"no step for {clock(silence.seconds)}, see jobs explain"
    elif seconds_left is not None:
        left = clock(seconds_left)
        stage = printable(timeline.stage)  # what comes after it is not known
        facts["left"] = f"left in {stage} {left}"
    return facts


def _fitting(first: str, facts: dict[str, str], width: int) -> str | None:
    """Return the line with wide gaps, else with narrow ones; None when it fits with neither."""
    for gap in (_GAP, _NARROW_GAP):
        line = _joined(first, facts, gap)
        if width_of(line) <= width:
            return line
    return None


def _joined(
    first: str,
    facts: dict[str, str],
    gap: str = _GAP,
) -> str:
    parts = [first, *facts.values()]
    return gap.join(parts)


def bar(done: int, of: int, width: int, marks: Marks) -> str:
    """Return a bar of so many columns."""
    share = min(1.0, done / of)
    full = int(share * width)
    empty = width - full
    return marks.full * full + marks.empty * empty
