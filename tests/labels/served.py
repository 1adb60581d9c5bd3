"""`label` as a process, as a person starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orchestrator
from orchestrator.contract.labels import LABELS_FOLDER, Label, round_folder

ROOT = Path(orchestrator.__file__).parents[1]


class Served:
    """The command, until the block ends."""

    def __init__(self, exchange: Path | str, *words: str) -> None:
        command = [sys.executable, "-m", "orchestrator", "label", str(exchange), "--json", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
        self.links: dict[str, str] = self._first_value()["links"]

    def _first_value(self) -> dict[str, Any]:
        """Read the one JSON value that the command prints when it listens."""
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                return dict(json.loads(text))
        raise AssertionError(f"the command has ended: {text}")

    def kill(self) -> None:
        """End it as the system does when memory is short: it can do nothing about it."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.communicate()


def stored(exchange: Path, number: int = 0) -> list[Label]:
    """Return every line of a round's label files."""
    labels = []
    for path in sorted((exchange / round_folder(number) / LABELS_FOLDER).glob("*.jsonl")):
        labels += [Label.model_validate_json(line) for line in path.read_text().splitlines()]
    return sorted(labels, key=lambda one: one.at)
