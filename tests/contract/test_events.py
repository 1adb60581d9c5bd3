import json

import pytest

from orchestrator.contract.environment import FAILURE_LIMIT, Environment
from orchestrator.contract.events import (
    Checkpoint,
    Event,
    Failed,
    Item,
    Metrics,
    Phase,
    Resumed,
    Sample,
    Step,
    Warned,
    emit,
    parse,
)

EVENTS: list[Event] = [
    Phase(name="training", of=3),
    Item(done=1, of=3),
    Step(step=1, of=3, loss=0.5, learning_rate=1e-4, seconds_per_step=0.1),
    Checkpoint(step=1),
    Resumed(step=1),
    Sample(path="output/data/a.png"),
    Metrics(values={"subject_fidelity_after": 0.9}),
    Warned(message="a line\nbreak"),
    Failed(kind="nan-loss", message="Loss is NaN.", next_step="lower it"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event)
def test_an_event_is_one_line_and_comes_back(event: Event, capsys: pytest.CaptureFixture[str]) -> None:
    emit(event)
    (line,) = capsys.readouterr().out.splitlines()
    read = parse(line)
    assert read is not None
    assert read.at is not None
    assert read.model_copy(update={"at": None}) == event


@pytest.mark.parametrize(
    "line", ["", "Loading weights", "{", "{}", '{"event": "unheard of"}', '{"event": "step"}', "[1]"]
)
def test_other_lines_are_plain_text(line: str) -> None:
    assert parse(line) is None


@pytest.mark.parametrize("number", ["-1", "NaN", "1e400", "1e300", "-Infinity", "1" + "0" * 400])
def test_a_line_with_a_number_that_cannot_be_is_plain_text(number: str) -> None:
    step = {"event": "step", "step": 1, "of": 3, "loss": 0.5, "learning_rate": 0.1, "seconds_per_step": 0.1}
    item = {"event": "item", "done": 1, "of": 3}
    fields = [
        (event, name) for event in (step, item) for name in event if name not in {"event", "loss", "learning_rate"}
    ]
    for event, name in fields:
        assert parse(json.dumps(event)) is not None
        line = json.dumps({**event, name: "NUMBER"}).replace('"NUMBER"', number)
        assert parse(line) is None, line


def test_an_event_of_a_newer_bundle_is_understood_as_far_as_it_is_known() -> None:
    assert parse('{"event": "checkpoint", "step": 4, "bytes": 12}') == Checkpoint(step=4)


def test_a_failure_is_cut_to_what_the_service_returns(tmp_path: "pytest.TempPathFactory") -> None:
    environment = Environment(root=tmp_path)  # type: ignore[arg-type]
    environment.write_failure("x" * 5000)
    assert len(environment.failure_file.read_text()) == FAILURE_LIMIT
