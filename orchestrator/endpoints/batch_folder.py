"""The folder of a batch that an endpoint draws: a file for each image, and an index that says which image each is.

The index is written before the first image, so that a file means the same after an interruption: an image that is
there is the one that the index names, because it appears by a rename and only under the name that the index gave it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.contract.plurals import counted
from orchestrator.endpoints.requests import Request, checked_png
from orchestrator.errors import EndpointError, MachineError
from orchestrator.storage import write_atomically
from orchestrator.storage.files import to_json

INDEX_FILE = "index.json"
_NAMED = 3
"""Files that a message names."""


class BatchImage(NamedTuple):
    """An image that a line asks for."""

    line: int
    """Number of the line."""
    name: str
    """Of its file, without the ending."""
    id: str
    """Hash of all that it depends on."""
    seed: int
    """Its seed."""
    request: Request
    """What draws it."""

    @property
    def file(self) -> str:
        """Its file in the folder."""
        return f"{self.name}.png"

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"line {self.line}, {self.file}"


class BatchFolder:
    """The folder that images are drawn into."""

    def __init__(self, path: Path, endpoint: str) -> None:
        self.path = path
        self.endpoint = endpoint

    def begin(self, images: Sequence[BatchImage], *, force: bool) -> list[BatchImage]:
        """Make the folder, say in its index what is drawn into it, and return the images that are missing.

        Raises MachineError where that is not possible, and for files that are other images, unless `force` replaces
        them.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"No image can be written into {self.path}: {error.strerror}. Nothing was drawn."
            raise MachineError(message, next_step="name another folder with -o") from error
        drawn = self._drawn()
        missing = []
        others = []
        damaged = []
        for image in images:
            path = self.path / image.file
            if not path.exists():
                missing.append(image)
            elif drawn.get(image.file) != image.id:
                others.append(image)
            elif not _is_whole(path):
                damaged.append(image)
        if others and not force:
            raise self._occupied(others)
        for image in others + damaged:  # what stays would count as drawn
            (self.path / image.file).unlink()
        self.write_index(images, {})
        return missing + damaged + others

    def write(self, image: BatchImage, png: bytes) -> None:
        """Write an image that is whole or absent; raises MachineError where the disk does not take it."""
        self._write(image.file, png)

    def write_index(self, images: Sequence[BatchImage], missing: Mapping[str, str]) -> None:
        """Write which image is in which file; `missing` says of files that are not there why.

        Raises MachineError where the disk does not take it.
        """
        entries = []
        for image in images:
            entry = _described(image)
            if image.file in missing:
                entry["missing"] = missing[image.file]
            entries.append(entry)
        text = to_json({"endpoint": self.endpoint, "images": entries})
        self._write(INDEX_FILE, text)

    def _write(self, name: str, content: str | bytes) -> None:
        try:
            write_atomically(self.path / name, content)
        except OSError as error:
            message = f"{name} cannot be written into {self.path}: {error.strerror}."
            next_step = "make room there, then type the command again: it goes on"
            raise MachineError(message, next_step=next_step) from error

    def _drawn(self) -> dict[str, str]:
        """Return the id of the image that each file is, as far as an index says so; raises MachineError for another's.

        A folder without an index has none of our images.
        """
        path = self.path / INDEX_FILE
        if not path.exists():
            return {}
        try:
            index = json.loads(path.read_bytes())
            endpoint = index["endpoint"]
            found = {str(entry["file"]): str(entry["id"]) for entry in index["images"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            message = f"{path} is not the index of a batch that an endpoint has drawn. Nothing was drawn."
            raise MachineError(message, next_step="name a folder that is new or empty: -o DIR") from error
        if endpoint != self.endpoint:
            message = f'{self.path} holds a batch of the endpoint "{endpoint}". Nothing was drawn.'
            raise MachineError(message, next_step="name a folder that is new or empty: -o DIR")
        return found

    def _occupied(self, others: Sequence[BatchImage]) -> MachineError:
        shown = ", ".join(image.file for image in others[:_NAMED])
        more = len(others) - _NAMED
        if more > 0:
            shown = f"{shown} and {more} more"
        count = counted(len(others), "file")
        message = f"{count} in {self.path} would be replaced by other images: {shown}. Nothing was drawn."
        return MachineError(message, next_step="name another folder with -o, or add --force")


def _is_whole(path: Path) -> bool:
    """Whether a file is an image: a disk may have lost a part of it."""
    try:
        checked_png(path.read_bytes())
    except (EndpointError, OSError):
        return False
    return True


def _described(image: BatchImage) -> dict[str, Any]:
    """Return what the index says of an image."""
    generation = image.request.generation
    chosen = image.request.chosen - {"prompts", "seeds"}
    return {
        "file": image.file,
        "id": image.id,
        "line": image.line,
        "prompt": generation.prompts[0],
        "seed": image.seed,
        **generation.model_dump(mode="json", include=set(chosen)),
    }
