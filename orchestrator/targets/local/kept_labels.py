"""What people have said of a job's images outlives the job: it took them hours, and nothing brings it back."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.contract.labels import EXCHANGE_FOLDER, LABELS_ENDING, LABELS_FOLDER

OF_ENDED_JOBS = "of-ended-jobs"
"""Folder, among the labels that are kept on this machine, for those of jobs that were deleted or started over."""


def keep_labels(checkpoints: Path, labels: Path, job: str) -> None:
    """Move the exchange of a job out of its checkpoints, which are about to be deleted, if it holds labels.

    It can be labelled, shown and exported where it is then: `label FOLDER`.
    """
    exchange = checkpoints / EXCHANGE_FOLDER
    given = exchange.rglob(f"{LABELS_FOLDER}/*{LABELS_ENDING}")
    if not any(given):
        return
    now = datetime.now(UTC)
    folder = labels / OF_ENDED_JOBS
    folder.mkdir(parents=True, exist_ok=True)
    shutil.move(exchange, folder / f"{job}-{now:%Y%m%dT%H%M%S%f}")
