"""A job's progress as one line of any width: stage, step, loss, elapsed and left, each with its label."""

from typing import NamedTuple, TextIO

from orchestrator.cli.screen import shortened, shows_unicode
from orchestrator.cli.timeline import Stage, Timeline
from orchestrator.terminal import printable

_LONGEST_BAR = 30
_SHORTEST_BAR = 8


class Marks(NamedTuple):
    """The signs of a progress display."""

    done: str
    ended: str
    ellipsis: str
    full: str
    empty: str


_UNICODE = Marks(done="✓", ended="✗", ellipsis="…", full="━", empty="─")
_ASCII = Marks(done="+", ended="x", ellipsis="...", full="#", empty="-")


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
    from rich.cells import cell_len

    facts = _facts(timeline, now)
    first = printable(timeline.stage) or "waiting"
    if label:
        first = f"{label}  {first}"
    line = _joined("  ", first, facts)
    room = width - cell_len(line) - 2
    if timeline.of and room >= _SHORTEST_BAR:
        first = f"{first}  {bar(timeline.done, timeline.of, min(room, _LONGEST_BAR), marks)}"
        return _joined("  ", first, facts)
    for unneeded in ("", "loss", "left", "elapsed"):
        facts.pop(unneeded, None)
        for gap in ("  ", " "):
            line = _joined(gap, first, facts)
            if cell_len(line) <= width:
                return line
    room = width - cell_len(_joined("  ", "", facts))
    if room < _SHORTEST_BAR:
        return shortened(first, width, marks.ellipsis)
    return _joined("  ", shortened(first, room, marks.ellipsis), facts)


def plain_line(timeline: Timeline, now: float) -> str:
    """Return the line without a bar, as long as it is."""
    first = printable(timeline.stage) or "waiting"
    return _joined("  ", first, _facts(timeline, now))


def stage_line(stage: Stage, mark: str, *, is_complete: bool) -> str:
    """Return the line of a stage that has ended: a mark, its name, its duration, and how far it came if not done."""
    name = printable(stage.name)
    text = f"{mark} {name:<14}  {clock(stage.seconds)}"
    if not stage.of:
        return text
    count = str(stage.of)
    if not is_complete:
        count = f"{stage.done} of {stage.of}"
    return f"{text}  {count} {stage.unit}s"


def _facts(timeline: Timeline, now: float) -> dict[str, str]:
    """Return what is known beside the stage, each with its label, by name."""
    facts = {}
    step = timeline.step
    if timeline.of:
        count = f"{timeline.done}/{timeline.of}"
        facts["count"] = f"{timeline.unit} {count}"
    if step is not None and timeline.trains:
        facts["loss"] = f"loss {step.loss:.4f}"
    facts["elapsed"] = f"elapsed {clock(timeline.elapsed(now))}"
    left = timeline.left(now)
    if left is not None:
        facts["left"] = f"left {clock(left)}"
    return facts


def _joined(gap: str, first: str, facts: dict[str, str]) -> str:
    return gap.join([first, *facts.values()])


def bar(done: int, of: int, width: int, marks: Marks) -> str:
    """Return a bar of so many columns."""
    share = min(1.0, done / of)
    full = int(share * width)
    return marks.full * full + marks.empty * (width - full)
