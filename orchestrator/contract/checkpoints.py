"""How checkpoints lie below the folder of checkpoints: `step-00000100/` with two files, the manifest written last.

Beside them lies the history of the run, which is no part of any.
"""

import re

PREFIX = "step-"
WIDTH = 8
"""Digits of the step, so that names sort like steps."""
TENSORS_FILE = "tensors.safetensors"
MANIFEST_FILE = "checkpoint.json"
FILES = frozenset({TENSORS_FILE, MANIFEST_FILE})
"""All files of a checkpoint; one that lacks any of them is not complete."""
HISTORY_FILE = "history.jsonl"
"""Loss and learning rate of the steps so far, a JSON object a line."""

_NAME = re.compile(rf"{PREFIX}(\d+)")


def folder_name(step: int) -> str:
    """Return the name of the folder that holds the checkpoint of a step."""
    return f"{PREFIX}{step:0{WIDTH}d}"


def step_of(name: str) -> int | None:
    """Return the step of a checkpoint's folder by its name, or None when no checkpoint has such a name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None
