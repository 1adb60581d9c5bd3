"""A job that trains and takes no steps any more is told from one that is slow, or does something else."""

from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.contract.events import Checkpoint, Event, Phase, Sample, Step
from orchestrator.jobs.heartbeat import Heartbeat

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()


def at(seconds: float) -> Any:
    return datetime.fromtimestamp(NOON + seconds, UTC)


def step(number: int, seconds: float) -> Step:
    return Step(step=number, of=100, loss=1, learning_rate=1, seconds_per_step=1, at=at(seconds))


def heard(*events: Event) -> Heartbeat:
    heartbeat = Heartbeat()
    for event in events:
        heartbeat.hear(event)
    return heartbeat


STEPS = [Phase(name="training", of=100, at=at(0)), *(step(number, 10.0 * number) for number in range(1, 7))]


def test_a_step_that_is_overdue_by_far_is_told_with_how_long_steps_took() -> None:
    heartbeat = heard(*STEPS)
    assert heartbeat.silence(NOON + 60 + 599) is None
    silence = heartbeat.silence(NOON + 60 + 700)
    assert silence is not None
    assert (silence.seconds, silence.usual) == (700, 10)


def test_one_slow_step_and_what_comes_between_steps_do_not_change_the_usual_time() -> None:
    between = [
        Checkpoint(step=6, at=at(400)),
        step(7, 410),
        Phase(name="validation", of=1, at=at(411)),
        Sample(path="x", at=at(900)),
        Phase(name="training", of=100, at=at(901)),
        step(8, 911),
    ]
    silence = heard(*STEPS, *between).silence(NOON + 911 + 650)
    assert silence is not None
    assert silence.usual == 10


def test_quick_steps_are_not_overdue_within_ten_minutes() -> None:
    quick = [STEPS[0], *(step(number, number / 100) for number in range(1, 50))]
    assert heard(*quick).silence(NOON + 500) is None
    assert heard(*quick).silence(NOON + 700) is not None


@pytest.mark.parametrize(
    "event",
    [
        Phase(name="validation", of=4, at=at(61)),
        Phase(name="contact sheet", of=4, at=at(61)),
        step(100, 61),
    ],
)
def test_a_job_that_does_something_else_is_left_alone(event: Event) -> None:
    assert heard(*STEPS, event).silence(NOON + 10**6) is None


def test_too_few_steps_and_events_without_a_time_say_nothing() -> None:
    assert heard(*STEPS[:3]).silence(NOON + 10**6) is None
    timeless = [event.model_copy(update={"at": None}) for event in STEPS]
    assert heard(*timeless).silence(NOON + 10**6) is None
