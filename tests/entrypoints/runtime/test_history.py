"""The curve of a run has each step once, whatever cut the run off."""

from pathlib import Path

import pytest

from entrypoints.runtime import history
from entrypoints.runtime.history import History, read_history
from orchestrator.contract.checkpoints import HISTORY_FILE
from orchestrator.contract.events import Step


def train(folder: Path, steps: range, of: int = 20, done: int = 0) -> History:
    """Record some steps as a run does that resumed after `done`."""
    kept = History(folder, of, done)
    for seconds, step in enumerate(steps, start=1):
        kept.add(Step(step=step, of=of, loss=1 / step, learning_rate=1e-4, seconds_per_step=1), seconds)
    kept.save()
    return kept


def steps_in(folder: Path) -> list[int]:
    return [record.step for record in read_history(folder)]


def test_steps_after_the_checkpoint_are_dropped_and_time_goes_on(tmp_path: Path) -> None:
    train(tmp_path, range(1, 9))
    train(tmp_path, range(6, 21), done=5)
    assert steps_in(tmp_path) == list(range(1, 21))
    assert [record.seconds for record in read_history(tmp_path)] == list(range(1, 21))


def test_a_run_that_starts_over_takes_up_nothing(tmp_path: Path) -> None:
    train(tmp_path, range(1, 9))
    train(tmp_path, range(1, 4))
    assert steps_in(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_file_that_was_copied_in_part_loses_its_end_alone(tmp_path: Path, kept: float) -> None:
    train(tmp_path, range(1, 9))
    path = tmp_path / HISTORY_FILE
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    whole = data[: int(kept * len(data))].count(b"\n")
    assert steps_in(tmp_path) == list(range(1, whole + 1))


@pytest.mark.parametrize(
    "damage", [b"\xff\x00", b"[]\n", b'{"step": "x"}\n', b"{" * 5000, b'{"step": 3, "loss": null}\n']
)
def test_a_damaged_line_is_left_out(tmp_path: Path, damage: bytes) -> None:
    train(tmp_path, range(1, 9))
    path = tmp_path / HISTORY_FILE
    path.write_bytes(damage.rstrip(b"\n") + b"\n" + path.read_bytes())
    assert steps_in(tmp_path) == list(range(1, 9))


def test_what_is_no_history_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_history(tmp_path / "nowhere") == []
    (tmp_path / "folder" / HISTORY_FILE).mkdir(parents=True)
    assert read_history(tmp_path / "folder") == []
    train(tmp_path, range(1, 9))
    monkeypatch.setattr(history, "MOST_BYTES", 10)
    assert read_history(tmp_path) == []


def test_the_curve_of_a_very_long_run_is_thinned_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_RECORDS", 5)
    train(tmp_path, range(1, 13), of=19)
    train(tmp_path, range(11, 20), of=19, done=10)
    assert steps_in(tmp_path) == [1, 4, 8, 12, 16, 19]
