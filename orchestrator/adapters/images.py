"""What batches of images left: on this machine, or in the bucket; and collected from there into a folder."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.adapters.evaluations import Outcome
from orchestrator.adapters.registry import made_again
from orchestrator.contract.batch_result import DrawnImage, DrawnImages, is_index
from orchestrator.contract.digest import hash_file
from orchestrator.errors import JobError, MachineError, OrchestratorError
from orchestrator.storage import Store, scratch_folder, write_atomically
from orchestrator.storage.files import to_json
from orchestrator.storage.folder import location_of
from orchestrator.storage.uris import folder_name

INDEX_FILE = "index.json"
_AT_ONCE = 200
"""Images that are fetched before any of them gets its place: what an interruption loses."""


def inspect_images(store: Store, prefix: str, job: str) -> Outcome:
    """Read the indexes of a batch below a prefix, and look whether its images are there with their sizes."""
    prefix = folder_name(prefix)
    try:
        listed = store.list_prefix(prefix)
        names = [name.removeprefix(prefix) for name in listed]
        texts = {name: store.get_bytes(f"{prefix}{name}") for name in names if is_index(name)}
        drawn = DrawnImages.joined(texts)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        message = f"The images in {location_of(store.uri(prefix))} are not whole: {reason}."
        return Outcome(problem=JobError(message, next_step=made_again(job)))
    except OrchestratorError as error:
        return Outcome(problem=error)
    for name, digest in drawn.files.items():
        found = listed.get(f"{prefix}{name}")
        if found is None or found.size != digest.size:
            message = f"The image {location_of(store.uri(f'{prefix}{name}'))} is missing or was changed."
            return Outcome(problem=JobError(message, next_step=made_again(job)), images=drawn)
    return Outcome(images=drawn)


def require_own_folder(folder: Path, job: str) -> None:
    """Raise MachineError unless the images of a job can be collected in a folder: it is new, empty, or was theirs."""
    next_step = "name a folder that is new or empty: -o DIR"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise MachineError(f"{folder} is a file; nothing was started.", next_step=next_step)
    if not any(folder.iterdir()):
        return
    if _job_of(folder) != job:
        message = f"{folder} holds something else than the images of this batch; nothing was started."
        raise MachineError(message, next_step=next_step)


def collect(store: Store, prefix: str, drawn: DrawnImages, folder: Path, job: str) -> Path:
    """Fetch the images of a batch into a folder, each verified and under its name, and return their index there.

    Idempotent: what is there already is not fetched again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / INDEX_FILE
    if _job_of(folder) != job:
        write_atomically(index, to_json({"job": job, "images": []}))
    missing = [image for image in drawn.images if not _is_there(folder, image)]
    for some in _parts(missing):
        digests = {image.file: image.digest for image in some}
        with scratch_folder(folder) as scratch:
            store.get_files(folder_name(prefix), digests, scratch / "new")
            for image in some:
                (scratch / "new" / image.file).replace(folder / _name(image))
    images = [_described(image) for image in drawn.images]
    write_atomically(index, to_json({"job": job, **_about(drawn), "images": images}))
    return index


def _parts(images: Sequence[DrawnImage]) -> Iterator[Sequence[DrawnImage]]:
    for start in range(0, len(images), _AT_ONCE):
        yield images[start : start + _AT_ONCE]


def _name(image: DrawnImage) -> str:
    return f"{image.name}.png"


def _is_there(folder: Path, image: DrawnImage) -> bool:
    path = folder / _name(image)
    return path.is_file() and hash_file(path) == image.digest


def _about(drawn: DrawnImages) -> dict[str, Any]:
    """Return what an index says of all its images."""
    return {"samples_sha256": drawn.samples_sha256, "base_model": drawn.base_model.model_dump(mode="json")}


def _described(image: DrawnImage) -> dict[str, Any]:
    """Return what an index says of an image."""
    values = image.model_dump(mode="json", exclude={"name", "digest"})
    return {"file": _name(image), **values, "sha256": image.digest.sha256, "bytes": image.digest.size}


def _job_of(folder: Path) -> str | None:
    """Return the job whose images a folder holds, by its index; None without one."""
    try:
        values = json.loads((folder / INDEX_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("job"), str):
        return None
    return str(values["job"])
