"""What batches of images left: on this machine, or in the bucket; and collected from there into a folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.adapters.evaluations import Outcome
from orchestrator.adapters.registry import made_again
from orchestrator.contract.batch_result import DrawnImage, DrawnImages, is_index
from orchestrator.contract.digest import hash_file
from orchestrator.errors import JobError, MachineError, OrchestratorError
from orchestrator.storage import Listed, Store, scratch_folder, write_atomically
from orchestrator.storage.files import to_json
from orchestrator.storage.folder import location_of
from orchestrator.storage.uris import folder_name

INDEX_FILE = "index.json"
"""Of the images that were collected in a folder."""
_AT_ONCE = 200
"""Images that are fetched before any of them gets its place: what an interruption loses."""


def inspect_images(store: Store, prefix: str, job: str) -> Outcome:
    """Read the indexes of a batch below a prefix, and look whether its images are there with their sizes."""
    prefix = folder_name(prefix)
    place = location_of(store.uri(prefix))
    try:
        listed = store.list_prefix(prefix)
        texts = _indexes(store, prefix, listed)
        drawn = DrawnImages.joined(texts)
    except ValueError as error:
        reason, *_ = str(error).splitlines()
        message = f"The images in {place} are not whole: {reason}."
        return Outcome(problem=JobError(message, next_step=made_again(job)))
    except OrchestratorError as error:
        return Outcome(problem=error)
    for name, digest in drawn.files.items():
        found = listed.get(f"{prefix}{name}")
        if found is None or found.size != digest.size:
            message = f"The images in {place} are not whole: {name} is missing or was changed."
            problem = JobError(message, next_step=made_again(job))
            return Outcome(problem=problem, images=drawn)
    return Outcome(images=drawn)


def _indexes(
    store: Store,
    prefix: str,
    listed: Mapping[str, Listed],
) -> dict[str, bytes]:
    """Return what lies below a prefix of indexes, by their names."""
    texts = {}
    for name in listed:
        file = name.removeprefix(prefix)
        if is_index(file):
            texts[file] = store.get_bytes(name)
    return texts


def require_own_folder(folder: Path, job: str) -> None:
    """Raise MachineError unless the images of a job can be collected in a folder: it is new, empty, or was theirs."""
    if not folder.exists():
        return
    next_step = "name a folder that is new or empty: -o DIR"
    if not folder.is_dir():
        message = f"{folder} is a file; nothing was started."
        raise MachineError(message, next_step=next_step)
    is_empty = not any(folder.iterdir())
    if is_empty or _job_of(folder) == job:
        return
    message = f"{folder} holds something else than the images of this batch; nothing was started."
    raise MachineError(message, next_step=next_step)


def collect(
    store: Store,
    prefix: str,
    drawn: DrawnImages,
    folder: Path,
    job: str,
) -> Path:
    """Fetch the images of a batch into a folder, each verified and under its name, and return their index there.

    Idempotent: what is there already is not fetched again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / INDEX_FILE
    if _job_of(folder) != job:
        claim = to_json({"job": job, "images": []})
        write_atomically(index, claim)
    missing = []
    for image in drawn.images:
        if not _is_there(folder, image):
            missing.append(image)
    for start in range(0, len(missing), _AT_ONCE):
        some = missing[start : start + _AT_ONCE]
        _fetch(store, prefix, some, folder)
    whole = to_json(_described(drawn, job))
    write_atomically(index, whole)
    return index


def _fetch(
    store: Store,
    prefix: str,
    images: Sequence[DrawnImage],
    folder: Path,
) -> None:
    """Fetch some images, and give them their places once all of them are verified."""
    digests = {}
    for image in images:
        digests[image.file] = image.digest
    with scratch_folder(folder) as scratch:
        fetched = scratch / "new"
        store.get_files(folder_name(prefix), digests, fetched)
        for image in images:
            source = fetched / image.file
            source.replace(folder / _name(image))


def _name(image: DrawnImage) -> str:
    return f"{image.name}.png"


def _is_there(folder: Path, image: DrawnImage) -> bool:
    """Whether an image was collected, and is as it was."""
    path = folder / _name(image)
    if not path.is_file():
        return False
    return hash_file(path) == image.digest


def _described(drawn: DrawnImages, job: str) -> dict[str, Any]:
    """Return the index of collected images."""
    images = []
    for image in drawn.images:
        values = image.model_dump(mode="json", exclude={"name", "digest"})
        values["file"] = _name(image)
        values["sha256"] = image.digest.sha256
        values["bytes"] = image.digest.size
        images.append(values)
    return {
        "job": job,
        "samples_sha256": drawn.samples_sha256,
        "base_model": drawn.base_model.model_dump(mode="json"),
        "images": images,
    }


def _job_of(folder: Path) -> str | None:
    """Return the job whose images a folder holds, by its index; None without one."""
    path = folder / INDEX_FILE
    try:
        values = json.loads(path.read_bytes())
        job = values["job"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(job, str):
        return None
    return job
