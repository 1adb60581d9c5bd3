"""The curve of a run, loss and learning rate of each step, and its warnings, in a file beside the checkpoints.

The service brings it back with them, so that the report of a resumed run shows all steps. It is written when a
checkpoint is, and before it: it then has at least the checkpoint's steps, and what was trained after the checkpoint is
trained, and recorded, again. Nothing that is computed depends on it.
"""

import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.checkpoints import HISTORY_FILE
from orchestrator.contract.events import Step

MOST_RECORDS = 20_000
"""About 3 MB. The service copies the whole file to the bucket whenever it was written."""
MOST_BYTES = 16 * 2**20
"""A larger file is none of ours."""


class StepRecord(BaseModel):
    """One optimizer step."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    step: int
    """Optimizer steps done, from 1."""
    loss: float
    """Training loss of this step."""
    learning_rate: float
    """Learning rate of this step."""
    seconds: float
    """Time that the run has trained so far, in all attempts; steps that had to be repeated count once."""
    measures: dict[str, float] = {}
    """Figures of the objective beside its loss."""


class WarningRecord(BaseModel):
    """Something that the run warned of."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    warning: str
    """What, and what to do about it."""


class History:
    """The steps of a run so far; of more than MOST_RECORDS steps every second, third, ... is kept."""

    def __init__(self, folder: Path, steps: int, done: int = 0) -> None:
        """Take up what an earlier attempt left in a folder, up to the step that the run resumes from.

        Args:
            folder: Where the file lies.
            steps: Optimizer steps of the whole run.
            done: Steps of the checkpoint that the run resumes from; what was recorded after it is dropped.
        """
        self.path = folder / HISTORY_FILE
        self.stride = math.ceil(steps / MOST_RECORDS)
        self.records = [record for record in read_history(folder) if record.step <= done]
        self.warnings = read_warnings(folder) if done else []
        self.seconds_before = 0.0
        if self.records:
            self.seconds_before = self.records[-1].seconds

    def add(self, event: Step, seconds: float) -> None:
        """Record a step; `seconds` is the time that this process has trained."""
        is_end = event.step in (1, event.of)
        if event.step % self.stride != 0 and not is_end:
            return
        record = StepRecord(
            step=event.step,
            loss=event.loss,
            learning_rate=event.learning_rate,
            seconds=self.seconds_before + seconds,
            measures=event.measures,
        )
        self.records.append(record)

    def save(self, warnings: Iterable[str] = ()) -> None:
        """Write the file, with what this process warned of, whole or not at all; raises OSError."""
        lines = [record.model_dump_json() + "\n" for record in self.records]
        for warning in dict.fromkeys([*self.warnings, *warnings]):
            lines.append(WarningRecord(warning=warning).model_dump_json() + "\n")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{HISTORY_FILE}.draft")
        try:
            draft.write_text("".join(lines), encoding="utf-8")
            draft.replace(self.path)
        finally:
            draft.unlink(missing_ok=True)


def read_history(folder: Path) -> list[StepRecord]:
    """Return the steps that a folder's history holds, each once and in order; none where there is no history.

    A line that is cut off or damaged is left out: the service may have been cut off while it copied the file.
    """
    return _in_order(_lines(folder))


def read_warnings(folder: Path) -> list[str]:
    """Return what a run warned of up to the last time its history was written."""
    warnings = []
    for line in _lines(folder):
        with suppress(ValueError):
            warnings.append(WarningRecord.model_validate_json(line).warning)
    return warnings


def _lines(folder: Path) -> list[bytes]:
    path = folder / HISTORY_FILE
    try:
        if path.stat().st_size > MOST_BYTES:
            return []
        return path.read_bytes().splitlines()
    except OSError:
        return []


def _in_order(lines: Iterable[bytes]) -> list[StepRecord]:
    records: dict[int, StepRecord] = {}
    for line in lines:
        try:
            record = StepRecord.model_validate_json(line)
        except ValueError:
            continue
        records[record.step] = record
    return [records[step] for step in sorted(records)]
