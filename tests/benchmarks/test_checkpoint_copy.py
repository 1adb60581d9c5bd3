"""Checkpoints that SageMaker copies while they are written: the newest whole one is found wherever a job was cut."""

from collections import Counter
from pathlib import Path

from benchmarks.checkpoint_copy import LOSSES, run_schedule

SCHEDULES = 200


def test_the_newest_whole_checkpoint_is_found_whatever_was_copied_and_when(tmp_path: Path) -> None:
    met: Counter[str] = Counter()
    for seed in range(SCHEDULES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        met += run_schedule(folder, seed)
    assert met["began"] + met["resumed"] == SCHEDULES * LOSSES
    # Each kind of fault was met, or nothing was tried.
    assert met["resumed"] > SCHEDULES / 2
    assert met["cut"] > SCHEDULES
    assert met["deleted"] > SCHEDULES
