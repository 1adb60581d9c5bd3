"""An exchange, wherever it lies: what a job asks people, and what they have said (`contract/labels.py`).

A job on this machine reads labels where they are written. One on SageMaker has to end and to start again: the service
copies its checkpoints, and the exchange with them, into a container when that starts, and only then. So a job leaves a
round, ends, and is started again (`jobs retry`) when its labels are there; nothing is billed while people think.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-checkpoints.html
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.contract.labels import (
    CLOSED_FILE,
    LABELS_ENDING,
    LABELS_FOLDER,
    PICTURES_FOLDER,
    ROUND_MANIFEST_FILE,
    ROUNDS_FOLDER,
    RoundClosed,
    RoundManifest,
    RoundSample,
    round_folder,
    round_of,
)
from orchestrator.contract.settlement import Settlement, read_labels, settle_read
from orchestrator.errors import ConflictError, JobError, MachineError
from orchestrator.storage import FolderStore, Store, folder_of

_Model = TypeVar("_Model", bound=BaseModel)


class Exchange:
    """The rounds of one job, in any store.

    Reading trusts nothing in it: manifests are parsed, pictures are compared with their hashes, and names lead nowhere
    but into the exchange, because they are made here from ids and numbers and never read from a file.
    """

    def __init__(self, store: Store, prefix: str = "") -> None:
        """`prefix` is the name of its folder in the store, with a slash at its end; empty for the whole store."""
        self.store = store
        self.prefix = prefix

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.store.uri(self.prefix)

    @property
    def folder(self) -> Path | None:
        """Its folder on this machine; None where it lies in a bucket."""
        return folder_of(self.uri) if self.uri.startswith("file:") else None

    def rounds(self) -> list[int]:
        """Return the numbers of its complete rounds, in order.

        A round without its manifest is still being written: it does not count.
        """
        numbers = []
        for name in self._names(f"{ROUNDS_FOLDER}/"):
            number = round_of(name)
            if number is not None and name == _manifest_of(number):
                numbers.append(number)
        return sorted(numbers)

    def newest(self) -> int:
        """Return the number of the newest round; raises JobError while there is none."""
        rounds = self.rounds()
        if not rounds:
            message = f"No round waits for labels in {self.place}."
            raise JobError(message, next_step="wait until the job has drawn its first round")
        return rounds[-1]

    def manifest(self, number: int) -> RoundManifest:
        """Return the manifest of a round; raises JobError when there is none, MachineError for a damaged one."""
        name = _manifest_of(number)
        data = self._bytes(name)
        if data is None:
            rounds = map(str, self.rounds())
            complete = ", ".join(rounds) or "none"
            message = f"There is no round {number} in {self.place}; those that are complete: {complete}."
            raise JobError(message, next_step="leave --round out for the newest round")
        manifest = self._parsed(RoundManifest, data, name)
        if manifest.round != number:
            raise self._damaged(name, f"it is the manifest of round {manifest.round}")
        return manifest

    def picture(self, manifest: RoundManifest, sample: RoundSample) -> bytes:
        """Return the PNG file of a sample; raises MachineError when it is not the picture that the id is bound to."""
        folder = round_folder(manifest.round)
        name = f"{folder}/{PICTURES_FOLDER}/{sample.file}"
        data = self.store.get_bytes(self.prefix + name)
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != sample.sha256:
            raise self._damaged(name, "it is another picture than the one that was drawn")
        return data

    def closed(self, number: int) -> RoundClosed | None:
        """Return what a round was closed with, or None while it takes labels; raises MachineError when damaged."""
        folder = round_folder(number)
        name = f"{folder}/{CLOSED_FILE}"
        data = self._bytes(name)
        if data is None:
            return None
        return self._parsed(RoundClosed, data, name)

    def label_files(self, number: int) -> dict[str, bytes]:
        """Return the content of a round's label files, by their names.

        They are read as a whole: a label has about 300 bytes, and ten people who rate 500 images leave 1.5 MB.
        """
        folder = _labels_of(number)
        files = {}
        for name in self._names(folder):
            file = name.removeprefix(folder)
            if file.endswith(LABELS_ENDING):
                files[file] = self.store.get_bytes(self.prefix + name)
        return files

    def settled(self, number: int) -> Settlement:
        """Return the labels of a round, settled."""
        manifest = self.manifest(number)
        closed = self.closed(number)
        labels = read_labels(self.label_files(number))
        return settle_read(manifest, labels, closed)

    def close(self, number: int) -> None:
        """Have the job go on with the labels that a round has now; raises JobError when it has none.

        Idempotent: a round that is closed stays as it is.
        """
        if self.closed(number) is not None:
            return
        settlement = self.settled(number)
        if not settlement.ratings and not settlement.choices:
            message = f"Nobody has labelled round {number} in {self.place}, and the job learns from labels alone."
            raise JobError(message, next_step="label some images first")
        name = f"{self.prefix}{round_folder(number)}/{CLOSED_FILE}"
        value = {"round": number, "labels": sorted(settlement.used)}
        with suppress(ConflictError):  # the job has closed it meanwhile
            self.store.put_json(name, value, new=True)

    def put_labels(self, number: int, file: str, content: bytes) -> None:
        """Store a label file of a round, in place of one of that name.

        Whoever writes gives it a name that nobody else gives, and only ever adds lines to it.
        """
        folder = _labels_of(number)
        self.store.put_bytes(f"{self.prefix}{folder}{file}", content)

    @property
    def place(self) -> str:
        """Where it lies, as a person writes it."""
        return str(self.folder or self.uri)

    def _bytes(self, name: str) -> bytes | None:
        """Return the content of a file, or None when there is none.

        Looked up in a listing first: S3 says that an object is missing only to those who may list the whole bucket.
        """
        if name not in self._names(name):
            return None
        return self.store.get_bytes(self.prefix + name)

    def _names(self, start: str) -> list[str]:
        """Return the names of its files that begin so, without the prefix."""
        found = self.store.list_prefix(self.prefix + start)
        return [name.removeprefix(self.prefix) for name in found]

    def _parsed(self, kind: type[_Model], data: bytes, name: str) -> _Model:
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise self._damaged(name, first["msg"]) from error

    def _damaged(self, name: str, why: str) -> MachineError:
        message = f"{name} in {self.place} cannot be used: {why}."
        return MachineError(message, next_step="have the job draw the round again, or copy the file anew")


def _manifest_of(number: int) -> str:
    """Return the name of a round's manifest."""
    folder = round_folder(number)
    return f"{folder}/{ROUND_MANIFEST_FILE}"


def _labels_of(number: int) -> str:
    """Return the name of the folder of a round's label files, with a slash at its end."""
    folder = round_folder(number)
    return f"{folder}/{LABELS_FOLDER}/"


def exchange_in(folder: Path) -> Exchange:
    """Return the exchange in a folder of this machine; raises JobError for a folder without rounds."""
    if not (folder / ROUNDS_FOLDER).is_dir():
        message = f"{folder} holds no rounds of pictures to label: it has no folder {ROUNDS_FOLDER}/."
        raise JobError(message, next_step="name a job, or the folder in which its rounds/ lies")
    return Exchange(FolderStore(folder))
