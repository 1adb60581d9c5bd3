"""A job's log as a person reads it."""

import subprocess
import sys
from datetime import datetime

import pytest

from orchestrator.cli.log_line import log_text, plain_text
from orchestrator.contract.events import Event, Failed, Item, Metrics, Phase, Resumed, Sample, Step, Warned
from tests.cli.emulation import on_a_terminal

NOON = datetime(2026, 11, 25, 12, 1, 33).astimezone()
SAID: list[tuple[Event, str]] = [
    (Phase(name="starting", at=NOON), "2026-11-25 12:01:33  starting"),
    (Phase(name="training", of=300, at=NOON), "12:01:33  training, 300 to do"),
    (Item(done=2, of=8, at=NOON), "12:01:33  2/8 done"),
    (
        Step(
            step=20, of=300, loss=0.123, learning_rate=1e-4, seconds_per_step=0.5, measures={"reward_mean": 2}, at=NOON
        ),
        "12:01:33  step 20/300  loss 0.1230  learning rate 0.0001  reward mean 2.000  0.50 s/step",
    ),
    (Resumed(step=20), "--:--:--  resumed at step 20"),
    (Sample(path="samples/\x1b[2J.png", at=NOON), "12:01:33  image: samples/\\x1b[2J.png"),
    (Metrics(values={"prompt_fidelity_after": 0.4}, at=NOON), "12:01:33  prompt fidelity after 0.400"),
    (Warned(message="It is odd.", at=NOON), "12:01:33  Warning: It is odd."),
    (Failed(kind="bug", message="It broke.", next_step="mend it", at=NOON), "12:01:33  Error: It broke. Next: mend it"),
]


@pytest.mark.parametrize(("event", "words"), SAID, ids=lambda value: getattr(value, "event", None))
def test_an_event_is_said_in_words_with_its_time(event: Event, words: str) -> None:
    assert log_text(event.model_dump_json()) == words


LIBRARIES = [
    ("plain \tä", "plain \tä"),
    ("\x1b[31mred\x1b[0m and \x1b]0;title\x07the rest", "red and the rest"),
    ("\r 10%|#   |\r 50%|##  |\r100%|####|", "100%|####|"),
    ("100%|####|\r", "100%|####|"),
    ('{"event": "unheard of"}', '{"event": "unheard of"}'),
    ("bell\x07 and \x9b2J", "bell\\x07 and \\x9b2J"),
    ("cut \x1b[3", "cut 3"),
]


@pytest.mark.parametrize(("line", "text"), LIBRARIES, ids=[repr(line) for line, _ in LIBRARIES])
def test_what_a_library_prints_stays_without_its_control_codes(line: str, text: str) -> None:
    assert plain_text(line) == text
    assert log_text(line) == text


def test_warnings_and_errors_stand_out_on_a_terminal_only() -> None:
    events = [Warned(message="It is odd."), Failed(kind="bug", message="It broke."), Phase(name="loading")]
    printing = f"print(*map(log_text, {lines_of(events)!r}), sep=chr(10))"
    code = f"from orchestrator.cli.log_line import log_text; {printing}"
    command = [sys.executable, "-c", code]
    warning, error, phase = on_a_terminal(command, TERM="xterm", NO_COLOR="").splitlines()
    assert "\x1b[33m" in warning
    assert "\x1b[31m" in error
    assert "\x1b" not in phase
    assert "\x1b" not in on_a_terminal(command, TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def lines_of(events: list[Event]) -> list[str]:
    return [event.model_dump_json() for event in events]
