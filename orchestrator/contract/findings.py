"""What the inspection of the training images found, as it travels to the job that reports it.

The images are named by the numbers that training has for them: the names of a person's files do not leave the machine.
It is a channel of its own, so that another wording makes no other job.
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.contract.problem import Problem

FINDINGS_FILE = "findings.json"
MOST_FINDINGS = 500
MOST_BYTES = 2**20
"""A larger file is not read."""


class Findings(BaseModel):
    """What does not prevent training."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    problems: tuple[Problem, ...] = Field((), max_length=MOST_FINDINGS)
    """One for each remark; `where` is the file of an image in the training channel, or names no file."""

    def write(self, folder: Path) -> None:
        """Write them into a new folder, which becomes the channel."""
        folder.mkdir(parents=True)
        text = self.model_dump_json(indent=1)
        (folder / FINDINGS_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")

    @classmethod
    def read(cls, folder: Path | None) -> Self:
        """Return what a channel holds; nothing without one, and where it cannot be read: a report can do without."""
        if folder is None:
            return cls()
        path = folder / FINDINGS_FILE
        try:
            if path.stat().st_size > MOST_BYTES:
                return cls()
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            return cls()
