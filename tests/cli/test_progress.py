"""The progress of a job as a person sees it, on a terminal of any width and in a pipe."""

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

import pytest
from wcwidth import width as width_of

from orchestrator.cli.board import board
from orchestrator.cli.progress import uploading
from orchestrator.cli.progress_line import Marks, clock, marks_for, progress_line, stage_line
from orchestrator.cli.screen import LiveLines
from orchestrator.cli.timeline import Stage, Timeline
from orchestrator.contract.events import Event, Item, Phase, Resumed, Sample, Step, Warned
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.process import ProcessTarget
from tests.cli.emulation import Terminal, on_a_terminal, resize

BEGAN = datetime(2026, 11, 25, 12, tzinfo=UTC)
MARKS = Marks(done="+", ended="x", ellipsis="...", full="#", empty="-")


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def now(seconds: float) -> float:
    return at(seconds).timestamp()


def step(number: int, of: int, *, seconds: float, each: float = 2.0) -> Step:
    return Step(step=number, of=of, loss=0.12345, learning_rate=1e-4, seconds_per_step=each, at=at(seconds))


def told(events: list[Event], timeline: Timeline | None = None) -> tuple[Timeline, list[Stage]]:
    """Return the timeline that heard these events long after they happened, and the stages that ended."""
    timeline = timeline or Timeline()
    ended = [timeline.hear(event, now(9999)) for event in events]
    return timeline, [stage for stage in ended if stage is not None]


STARTED: list[Event] = [
    Phase(name="starting", at=at(0)),
    Phase(name="loading", at=at(1)),
    Phase(name="class images", of=2, at=at(4)),
    Item(done=2, of=2, at=at(9)),
    Phase(name="training", of=300, at=at(9)),
]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_one_line_holds_stage_step_loss_elapsed_and_what_is_left_of_the_stage(width: int) -> None:
    timeline, _ = told([*STARTED, step(120, 300, seconds=249)])
    line = progress_line(timeline, now(252), width - 1, MARKS)
    assert width_of(line) < width
    words = re.sub(r" [#-]+ ", " ", line).split()
    labelled = "training step 120/300 loss 0.1235 elapsed 4:12 left in training 5:57"
    if width == 60:
        labelled = labelled.replace("loss 0.1235 ", "")
    assert words == labelled.split()


@pytest.mark.parametrize("width", range(4, 200, 28))
def test_the_line_fits_whatever_the_width_and_the_stage(width: int) -> None:
    timeline, _ = told([Phase(name="画像を描く" * 4, of=12000, at=at(0)), Item(done=7, of=12000, at=at(1))])
    assert width_of(progress_line(timeline, now(7200), width, MARKS, "rank=4")) <= width


def test_stages_that_have_ended_are_told_once_with_their_own_duration() -> None:
    validation: list[Event] = [
        Phase(name="validation", of=1, at=at(20)),
        Sample(path="a.png", at=at(24)),
        Phase(name="training", of=300, at=at(24)),
    ]
    _, ended = told([*STARTED, step(150, 300, seconds=19), *validation, step(300, 300, seconds=40)])
    assert [stage.name for stage in ended] == ["starting", "loading", "class images", "validation"]
    timeline, _ = told([*STARTED, step(150, 300, seconds=19), *validation, step(300, 300, seconds=40)])
    training = timeline.hear(Phase(name="contact sheet", of=4, at=at(41)), now(41))
    assert training == Stage("training", 28.0, 300, 300, "step")  # 9 to 20 and 24 to 41
    assert stage_line(training, "+", is_complete=True).split() == ["+", "training", "0:28", "300", "steps"]


def test_the_stages_of_the_service_are_told_in_words_and_have_their_times() -> None:
    stages = ("Starting", "Pending", "Downloading", "Training")
    phases: list[Event] = [Phase(name=name, at=at(10 * number)) for number, name in enumerate(stages)]
    timeline, ended = told([*phases, Phase(name="loading", at=at(50))])
    assert [(stage.name, stage.seconds) for stage in ended] == [
        ("waiting for an instance", 20.0),
        ("download", 10.0),
        ("container start", 20.0),
    ]
    assert timeline.elapsed(now(60)) == 60


def test_a_job_that_ends_early_ends_in_a_stage_that_is_not_done() -> None:
    timeline, _ = told([*STARTED, step(20, 300, seconds=49)])
    stage = timeline.end(JobStatus.STOPPED, now(50))
    assert stage is not None
    assert timeline.end(JobStatus.STOPPED, now(60)) is None
    killed, _ = told([*STARTED, step(20, 300, seconds=50)])
    assert killed.end(JobStatus.FAILED, None) == stage
    assert stage_line(stage, "x", is_complete=False).split() == ["x", "training", "0:41", "20", "of", "300", "steps"]


def test_who_attaches_later_sees_the_time_since_the_attempt_began() -> None:
    timeline, _ = told([*STARTED, step(120, 300, seconds=249)])
    assert clock(timeline.elapsed(now(3600))) == "1:00:00"


def test_after_a_resume_only_new_steps_count_for_what_is_left() -> None:
    resumed: list[Event] = [
        Phase(name="starting", at=at(0)),
        Resumed(step=200, at=at(5)),
        Phase(name="training", of=300, at=at(5)),
    ]
    timeline, _ = told(resumed)
    assert (timeline.done, timeline.left(now(5))) == (200, None)
    told([step(202, 300, seconds=25, each=10.0)], timeline)
    assert timeline.left(now(25)) == 980


def test_what_is_left_of_the_images_after_the_training_is_not_said_of_the_job() -> None:
    sheet: list[Event] = [Phase(name="contact sheet", of=4, at=at(50)), Item(done=1, of=4, at=at(52))]
    timeline, _ = told([*STARTED, step(300, 300, seconds=49), *sheet])
    assert "left in contact sheet 0:06" in progress_line(timeline, now(52), 140, MARKS)


def test_nothing_is_left_unsaid_in_a_log_without_times() -> None:
    timeline = Timeline()
    timeline.hear(Phase(name="training", of=10), 1000.0)
    timeline.hear(Step(step=1, of=10, loss=0.5, learning_rate=1e-4, seconds_per_step=2.0), 1002.0)
    line = progress_line(timeline, 1003.0, 79, MARKS)
    assert line.endswith("step 1/10  loss 0.5000  elapsed 0:03  left in training 0:17")


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """Both sides of a terminal of 140 columns: where its window reads, and where the program writes."""
    window, side = pty.openpty()
    resize(window, 140)
    with os.fdopen(side, "w", encoding="utf-8") as stream:
        yield window, stream
    os.close(window)


def _on_stderr(terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> int:
    """Make the terminal stderr and return its window; pytest sets its own after the fixtures, so this is none."""
    window, stream = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return window


def _show(window: int, shown: Terminal, text: str, below: str = "") -> None:
    """Read what comes until the text is there, the other below it, and the cursor in front of a line."""
    seen = ""
    while text not in seen or below not in seen.partition(text)[2] or not seen.endswith(("\r", "\n")):
        assert select.select([window], [], [], 20)[0], f"{text} did not come"
        chunk = os.read(window, 65536).decode()
        seen += chunk
        shown.feed(chunk)


@pytest.mark.parametrize("count", [1, 3])
def test_a_resize_doubles_no_line(terminal: tuple[int, TextIO], count: int) -> None:
    window, stream = terminal
    shown = Terminal(140)
    with LiveLines(
        stream, lambda columns, _: [f"{columns} {number}".ljust(columns - 1, ".") for number in range(count)]
    ):
        for columns in (140, 60, 139, 50, 20, 80):
            shown.columns = columns
            resize(window, columns)
            _show(window, shown, f"{columns} {count - 1}.")
            assert [row.split(".")[0] for row in shown.rows()] == [f"{columns} {number}" for number in range(count)]


def test_what_is_printed_stands_above_the_lines_and_stays(terminal: tuple[int, TextIO]) -> None:
    window, stream = terminal
    shown = Terminal(140)
    with LiveLines(stream, lambda *_: ["now", "and then"]) as live:
        live.print("one")
        live.print("two")
        _show(window, shown, "two")
        assert shown.rows() == ["one", "two", "now", "and then"]
    stream.write("after\n")
    stream.flush()
    _show(window, shown, "after")
    assert shown.rows() == ["one", "two", "after"]


def test_a_board_has_a_line_for_each_job_that_fits_and_counts_the_rest(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = _on_stderr(terminal, monkeypatch)
    shown = Terminal(140)
    labels = [f"rank={number}" for number in range(30)]
    with board(labels, quiet=False) as watcher:
        watcher.says(25, Phase(name="training", of=10, at=at(0)))
        watcher.stands(0, "Completed")
        _show(window, shown, "training", "more")
        rows = shown.rows()
        assert len(rows) == 23
        assert rows[0].startswith("rank=25  training")
        assert rows[-1] == "and 8 more"


def test_a_board_aligns_labels_of_wide_characters_and_cuts_none_that_fits(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = _on_stderr(terminal, monkeypatch)
    shown = Terminal(140)
    with board(["画像画像", "rank=4"], quiet=False):
        _show(window, shown, "rank=4")
        assert shown.rows() == ["画像画像  waiting", "rank=4    waiting"]


def test_long_labels_that_begin_alike_are_told_apart_on_the_board(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = _on_stderr(terminal, monkeypatch)
    resize(window, 80)
    shown = Terminal(80)
    with board(["learning_rate=0.0001 rank=4", "learning_rate=0.0001 rank=8"], quiet=False):
        _show(window, shown, "rank=4", "rank=8")
        assert [row.split("  ")[0] for row in shown.rows()] == ["... rank=4", "... rank=8"]


def test_a_warning_on_the_board_is_called_one(terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    window = _on_stderr(terminal, monkeypatch)
    shown = Terminal(140)
    with board(["rank=4"], quiet=False) as watcher:
        watcher.says(0, Warned(message="It is odd."))
        _show(window, shown, "It is odd.")
        assert "rank=4: Warning: It is odd." in " ".join(shown.rows())


def test_the_name_of_an_upload_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with uploading(quiet=False) as progress:
        assert progress is not None
        progress("a\x1b[2Jb", 0, 10)
        progress("a\x1b[2Jb", 10, 10)
    assert capsys.readouterr().err == "a\\x1b[2Jb: sending 10 bytes\na\\x1b[2Jb: all sent\n"


def test_a_stage_of_one_step_counts_one() -> None:
    assert stage_line(Stage("training", 1.0, 1, 1, "step"), "+", is_complete=True).endswith("  1 step")
    assert stage_line(Stage("training", 1.0, 0, 1, "step"), "+", is_complete=False).endswith("  0 of 1 step")


LOCALES = [
    ({"LC_ALL": "C.UTF-8"}, "✓"),
    ({"LC_ALL": "C"}, "+"),
    ({"LANG": "C"}, "+"),
    ({"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"}, "+"),
]


@pytest.mark.parametrize(("variables", "mark"), LOCALES, ids=str)
def test_a_locale_without_unicode_gets_ascii(variables: dict[str, str], mark: str) -> None:
    code = "import sys; from orchestrator.cli.progress_line import marks_for; print(ascii(marks_for(sys.stderr).done))"
    command = [sys.executable, "-c", code]
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    printed = subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ascii(mark)


MANY_STEPS = """
emit(event="phase", name="training", of=300)
for number in range(1, 301):
    emit(event="step", step=number, of=300, loss=0.5, learning_rate=1e-4, seconds_per_step=0.01)
emit(event="phase", name="contact sheet", of=1)
"""


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_without_a_terminal_there_are_a_few_plain_lines(
    settings: Settings, training_request: Callable[..., Request], tmp_path: Path, term: str
) -> None:
    ProcessTarget(settings).create(training_request(MANY_STEPS, name="many"))
    command = [sys.executable, "-m", "orchestrator", "jobs", "wait", "many", "--json"]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""
    if term == "dumb":
        error = on_a_terminal(command[:-1], TERM=term)
    else:
        error = subprocess.run(command[:-1], capture_output=True, text=True, check=False).stderr
    assert "\x1b" not in error
    assert "\r" not in error
    assert len(error.splitlines()) < 12
    assert "training" in error
    assert "300 steps" in error


def test_no_color_leaves_the_marks_without_colour(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.cli.screen import styled

    _, stream = terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert styled("done", stream, "green") != "done"
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("done", stream, "green") == "done"
    assert marks_for(stream).done


def test_an_upload_is_a_line_for_each_tree_that_is_not_there_yet(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = _on_stderr(terminal, monkeypatch)
    shown = Terminal(140)
    with uploading(quiet=False) as progress:
        assert progress is not None
        progress("code", 5, 5)
        progress("data", 0, 4_000_000)
        progress("data", 2_000_000, 4_000_000)
        _show(window, shown, "2 MB of 4 MB")
        assert [row.split()[:2] for row in shown.rows()] == [["sending", "data"]]
        progress("data", 4_000_000, 4_000_000)
    _show(window, shown, "sent data")
    assert [row.partition(" ")[2] for row in shown.rows()] == ["sent data  4 MB"]
