"""Finished adapters of one or more stores: on this machine, in the bucket, or both.

An adapter is a folder with a manifest: `adapters/NAME/` on this machine and `adapters/NAME/JOB/output/model/` in a
bucket, where SageMaker adds the job's name. So a name can have several adapters there; the newest is used.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from orchestrator.contract.adapter import FORMAT, MANIFEST_FILE, NOT_LISTED, AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.contract.digest import FileDigest
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import did_you_mean
from orchestrator.errors import JobError, MachineError, MissingError, OrchestratorError
from orchestrator.settings import ADAPTERS_PREFIX
from orchestrator.storage import Listed, Store
from orchestrator.storage.folder import folder_of, location_of
from orchestrator.storage.names import is_folder_name
from orchestrator.storage.uris import folder_name

_JOB_OUTPUT = r"(?P<job>[^/]+)/output/model/"  # in a bucket only
_FILE = re.compile(rf"{ADAPTERS_PREFIX}(?P<name>[^/]+)/(?:{_JOB_OUTPUT})?(?P<file>.*[^/])")
_WEIGHTS = ".safetensors"
_MOVE_AWAY = "move what does not belong to it to another folder"
_MOST_NAMED = 5
"""Files that a message names."""
_LIST = command("adapters", "list")
_NO_MANIFEST = f"{MANIFEST_FILE} is missing"


def made_again(job: str) -> str:
    """Return what helps where the files of an adapter are gone or damaged; it works for the jobs of a sweep too."""
    remove = command("jobs", "remove", job)
    return f"{remove}  # then submit it again"


AGAIN = made_again("JOB")
"""The same for an adapter of which the job is not known."""


class Adapter(BaseModel):
    """A published adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name that its job gave it."""
    job: str | None
    """Training job that wrote it to the bucket; None for one of this machine."""
    uri: str
    """URI of its folder."""
    prefix: str
    """Name of that folder within its store."""
    published: AwareDatetime
    """Time when its manifest was written."""
    manifest: AdapterManifest
    """Its lineage, and the digest of each file."""
    damage: tuple[str, ...] = ()
    """What is wrong with its files, by their names and sizes; empty when nothing is."""

    @property
    def bytes(self) -> int:
        """Size of all files except the manifest."""
        return self.manifest.bytes

    def require_complete(self) -> None:
        """Raise JobError unless every file is there with its size."""
        if self.damage:
            raise damaged(self.uri, self.damage)


Report = Callable[[OrchestratorError], None]
"""Called with the error for what cannot be read and hides nothing else."""


class Registry:
    """The adapters of one or more stores."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = stores

    def newest(self, report: Report) -> list[Adapter]:
        """Return the newest readable adapter of each name in each store, sorted by name.

        What cannot be read (a damaged manifest, one that is gone, a store that does not answer) is reported.
        """
        found = self._readable(ADAPTERS_PREFIX, report)
        return sorted(found, key=lambda adapter: (adapter.name, adapter.uri))

    def find(self, name: str, report: Report) -> Adapter:
        """Return the newest readable adapter of that name.

        What cannot be read is reported, or raised when nothing else has that name. Raises JobError, with a suggestion,
        when there is no such adapter.
        """
        unreadable: list[OrchestratorError] = []
        found: list[Adapter] = []
        if is_folder_name(name):
            prefix = f"{ADAPTERS_PREFIX}{name}/"
            found = self._readable(prefix, unreadable.append)
        if found:
            for error in unreadable:
                report(error)
            return max(found, key=lambda adapter: adapter.published)
        if unreadable:
            raise unreadable[0]
        raise self._no_adapter(name)

    def _readable(self, prefix: str, report: Report) -> list[Adapter]:
        """Return the newest readable adapter of each name below a prefix, store by store."""
        found = []
        for store in self.stores:
            named = self._by_name(store, prefix, report)
            for folders in named.values():
                adapter = _first_readable(store, folders, report)
                if adapter is not None:
                    found.append(adapter)
        return found

    def _by_name(self, store: Store, prefix: str, report: Report) -> dict[str, list["_Published"]]:
        """Return what a store lists below a prefix; a store that cannot be asked is reported, and has nothing."""
        try:
            return _by_name(store.list_prefix(prefix))
        except OrchestratorError as error:
            report(error)
            return {}

    def _no_adapter(self, name: str) -> JobError:
        """Return the error for a name without an adapter, with the closest name."""
        known: set[str] = set()
        for store in self.stores:
            known.update(self._by_name(store, ADAPTERS_PREFIX, _ignore))
        hint = "nothing was published yet."
        if known:
            hint = did_you_mean(name, known)
        message = f'There is no adapter "{name}"'
        if hint:
            message = f"{message}; {hint}"
        return JobError(message, next_step=_LIST)

    def pull(self, adapter: Adapter, folder: Path) -> None:
        """Copy an adapter to a new folder, as `fetch` does; raises JobError when no store has it."""
        store = self.store_of(adapter)
        fetch(store, adapter.prefix, folder)

    def verified(self, adapter: Adapter) -> Adapter:
        """Return an adapter of this machine with what is wrong with its files by their content, which is read whole.

        One in a bucket is returned as it is: its content is verified when it is pulled.
        """
        if not adapter.uri.startswith("file:"):
            return adapter
        folder = folder_of(adapter.uri)
        damage = changed_files(folder, adapter.manifest)
        return adapter.model_copy(update={"damage": tuple(damage)})

    def store_of(self, adapter: Adapter) -> Store:
        """Return the store that an adapter is in; raises JobError when none of these is."""
        for store in self.stores:
            if store.uri(adapter.prefix) == adapter.uri:
                return store
        message = f"{adapter.uri} is in none of the stores of this machine and account."
        raise JobError(message, next_step=_LIST)


class _Published(NamedTuple):
    """The folder of an adapter in a listing of a store."""

    name: str
    """Name of the adapter."""
    job: str | None
    """Training job, in a bucket."""
    prefix: str
    """Folder of its files."""
    time: AwareDatetime
    """When its manifest was written, or the newest file of a folder without one."""
    sizes: Mapping[str, int]
    """Bytes of each file, by its name within the folder."""


def _ignore(error: OrchestratorError) -> None:
    """Report nothing: what cannot be read was reported before."""


class _Folder(NamedTuple):
    """Which folder of a listing a file is in."""

    name: str
    """Name of the adapter."""
    job: str | None
    """Training job, in a bucket."""
    prefix: str
    """What the names of its files begin with in the store."""


def _by_name(listing: Mapping[str, Listed]) -> dict[str, list[_Published]]:
    """Return the folders of each name in a listing, the newest first."""
    found: dict[str, list[_Published]] = {}
    for folder, files in _files_by_folder(listing).items():
        dated = _dated(files)
        if dated is None:
            continue
        sizes = {file: listed.size for file, listed in files.items()}
        published = _Published(*folder, dated.modified, sizes)
        found.setdefault(folder.name, []).append(published)
    for folders in found.values():
        folders.sort(key=lambda published: published.time, reverse=True)
    return found


def _files_by_folder(listing: Mapping[str, Listed]) -> dict[_Folder, dict[str, Listed]]:
    """Return the files of each adapter's folder, by their names within it."""
    found: dict[_Folder, dict[str, Listed]] = {}
    for key, listed in listing.items():
        match = _FILE.fullmatch(key)
        if match is None:
            continue
        file = match["file"]
        prefix = key.removesuffix(file)
        folder = _Folder(match["name"], match["job"], prefix)
        found.setdefault(folder, {})[file] = listed
    return found


def _dated(files: Mapping[str, Listed]) -> Listed | None:
    """Return the file that says when an adapter was published: its manifest, or its newest file when that is lost.

    None for a folder with neither manifest nor weights, which is no adapter: a job that ended early leaves other files.
    """
    manifest = files.get(MANIFEST_FILE)
    if manifest is not None:
        return manifest
    for file in files:
        if file.endswith(_WEIGHTS):
            return max(files.values(), key=lambda listed: listed.modified)
    return None


def _first_readable(store: Store, folders: Sequence[_Published], report: Report) -> Adapter | None:
    """Return the first adapter whose manifest can be read; report those before it."""
    for published in folders:
        try:
            return _read(store, published)
        except OrchestratorError as error:
            report(error)
    return None


def _read(store: Store, published: _Published) -> Adapter:
    """Return an adapter with its manifest; raises as `read_manifest` does."""
    manifest = read_manifest(store, published.prefix)
    return Adapter(
        name=published.name,
        job=published.job,
        uri=store.uri(published.prefix),
        prefix=published.prefix,
        published=published.time,
        manifest=manifest,
        damage=tuple(manifest.misfits(published.sizes)),
    )


class Finished(NamedTuple):
    """What lies in the folder of a finished adapter."""

    manifest: AdapterManifest | None
    """Its manifest; None when there is none that can be read."""
    problem: OrchestratorError | None
    """Why it cannot be used; None when all files are there with their sizes."""


def inspect(store: Store, prefix: str) -> Finished:
    """Look at the adapter below a prefix without reading its weights; raises what the store raises at a listing."""
    prefix = folder_name(prefix)
    sizes = _sizes(store, prefix)
    if not sizes:
        message = f"There is no adapter in {location_of(store.uri(prefix))}."
        return Finished(None, MissingError(message, next_step=AGAIN))
    try:
        manifest = read_manifest(store, prefix)
    except OrchestratorError as error:
        return Finished(None, error)
    damage = manifest.misfits(sizes)
    problem = None
    if damage:
        problem = damaged(store.uri(prefix), damage)
    return Finished(manifest, problem)


def changed_files(folder: Path, manifest: AdapterManifest) -> list[str]:
    """Return what is wrong with the files of an adapter on this machine, by their content; raises MachineError."""
    problems = []
    try:
        names = manifest.damaged_files(folder)
    except OSError as error:
        message = f"{error.filename} cannot be read: {error.strerror}."
        raise MachineError(message, next_step="check what lies there, and its permissions") from error
    for name in names:
        path = folder / name
        if not path.exists():
            problems.append(f"{name} is missing")
        elif name in manifest.files:
            problems.append(f"{name} was changed")
        else:
            problems.append(f"{name} {NOT_LISTED}")
    return problems


def damaged(uri: str, damage: Sequence[str]) -> JobError:
    """Return the error for an adapter whose files are not those of its manifest."""
    named = list(damage[:_MOST_NAMED])
    left_out = len(damage) - len(named)
    if left_out:
        named.append(f"and {counted(left_out, 'more file')}")
    words = "; ".join(named)
    message = f"The adapter in {location_of(uri)} is damaged: {words}."
    next_step = _MOVE_AWAY
    for text in damage:
        if not text.endswith(NOT_LISTED):  # a file of its own is missing or changed
            next_step = AGAIN
    return JobError(message, next_step=next_step)


def name_of(prefix: str) -> str | None:
    """Return the name of the adapter below a prefix of a store; None when the prefix is not that of an adapter."""
    manifest = f"{folder_name(prefix)}{MANIFEST_FILE}"
    match = _FILE.fullmatch(manifest)
    if match is None or match["file"] != MANIFEST_FILE:
        return None
    return match["name"]


def read_manifest(store: Store, prefix: str) -> AdapterManifest:
    """Return the manifest of the adapter below a prefix; raises JobError when there is none that can be read."""
    prefix = folder_name(prefix)
    name = f"{prefix}{MANIFEST_FILE}"
    try:
        text = store.get_bytes(name)
    except MissingError as error:
        raise damaged(store.uri(prefix), [_NO_MANIFEST]) from error
    return _parse(text, store.uri(name))


def fetch(store: Store, prefix: str, folder: Path) -> None:
    """Copy the adapter below a prefix to a new folder: every file verified by the manifest, all of them or nothing.

    Raises MissingError, and JobError or the store's own error when files are missing, changed or too many.
    """
    prefix = folder_name(prefix)
    sizes = _sizes(store, prefix)
    uri = store.uri(prefix)
    if not sizes:
        raise MissingError(f"There is no adapter in {location_of(uri)}.", next_step=_LIST)
    name = f"{prefix}{MANIFEST_FILE}"
    if MANIFEST_FILE not in sizes:
        raise damaged(uri, [_NO_MANIFEST])
    text = store.get_bytes(name)
    manifest = _parse(text, store.uri(name))
    damage = manifest.misfits(sizes)
    if damage:
        raise damaged(uri, damage)
    sha256 = hashlib.sha256(text).hexdigest()
    own = FileDigest(sha256=sha256, size=len(text))
    digests = {**manifest.files, MANIFEST_FILE: own}
    store.get_files(prefix, digests, folder)


def _sizes(store: Store, prefix: str) -> dict[str, int]:
    """Return the size of each file below a folder's prefix, by its name in the folder."""
    sizes = {}
    listing = store.list_prefix(prefix)
    for key, listed in listing.items():
        if key.endswith("/"):  # an empty object that some tools create as a folder
            continue
        name = key.removeprefix(prefix)
        sizes[name] = listed.size
    return sizes


def _parse(text: bytes, uri: str) -> AdapterManifest:
    """Return a manifest; raises JobError when it is not one."""
    try:
        return AdapterManifest.model_validate_json(text)
    except ValidationError as error:
        file = location_of(uri)
        if _format_of(text) > FORMAT:
            message = f"{file} was written by a newer version of orchestrator, and cannot be read by this one."
            raise JobError(message, next_step="upgrade orchestrator") from error
        message = f"{file} cannot be read; it was changed or damaged."
        raise JobError(message, next_step=AGAIN) from error


def _format_of(text: bytes) -> int:
    """Return the version of a manifest's layout; 0 when it does not say."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return 0
    if not isinstance(values, dict):
        return 0
    version = values.get("format")
    if not isinstance(version, int):
        return 0
    return version
