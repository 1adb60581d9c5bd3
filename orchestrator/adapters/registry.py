"""Finished adapters of one or more stores: on this machine, in the bucket, or both.

An adapter is a folder with a manifest: `adapters/NAME/` on this machine and `adapters/NAME/JOB/output/model/` in a
bucket, where SageMaker adds the job's name. So a name can have several adapters there; the newest is used.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from orchestrator.contract.adapter import FORMAT, MANIFEST_FILE, AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.contract.digest import FileDigest
from orchestrator.contract.problem import did_you_mean
from orchestrator.errors import JobError, MissingError, OrchestratorError
from orchestrator.settings import ADAPTERS_PREFIX
from orchestrator.storage import Store
from orchestrator.storage.uris import folder_name

_JOB_OUTPUT = r"(?P<job>[^/]+)/output/model/"  # in a bucket only
_MANIFEST = re.compile(rf"{ADAPTERS_PREFIX}(?P<name>[^/]+)/(?:{_JOB_OUTPUT})?{re.escape(MANIFEST_FILE)}")
_LIST = command("adapters", "list")
_AGAIN = "submit the job again with --restart"


class Adapter(BaseModel):
    """A published adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

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

    @property
    def bytes(self) -> int:
        """Size of all files except the manifest."""
        digests = self.manifest.files.values()
        return sum(digest.size for digest in digests)


class Registry:
    """The adapters of one or more stores."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = stores

    def newest(self, report: Callable[[OrchestratorError], None]) -> list[Adapter]:
        """Return the newest adapter of each name in each store, sorted by name.

        One whose manifest cannot be read (damaged, too long, deleted meanwhile) does not hide the others: it is left
        out, and its error reported.
        """
        found = []
        for store in self.stores:
            for published in _newest(store, ADAPTERS_PREFIX):
                try:
                    adapter = _read(store, published)
                except OrchestratorError as error:
                    report(error)
                else:
                    found.append(adapter)
        return sorted(found, key=lambda adapter: (adapter.name, adapter.uri))

    def find(self, name: str) -> Adapter:
        """Return the newest adapter of that name; raises JobError, with a suggestion, when there is none."""
        found = []
        prefix = f"{ADAPTERS_PREFIX}{name}/"
        for store in self.stores:
            for published in _newest(store, prefix):
                found.append(_read(store, published))
        if not found:
            raise self._no_adapter(name)
        return max(found, key=lambda adapter: adapter.published)

    def _no_adapter(self, name: str) -> JobError:
        """Return the error for a name without an adapter, with the closest name."""
        known = set()
        for store in self.stores:
            for published in _newest(store, ADAPTERS_PREFIX):
                known.add(published.name)
        hint = "nothing was published yet."
        if known:
            hint = did_you_mean(name, known)
        message = f'There is no adapter "{name}"'
        if hint:
            message += f"; {hint}"
        return JobError(message, next_step=_LIST)

    def pull(self, adapter: Adapter, folder: Path) -> None:
        """Copy an adapter to a new folder, as `fetch` does; raises JobError when no store has it."""
        for store in self.stores:
            if store.uri(adapter.prefix) == adapter.uri:
                fetch(store, adapter.prefix, folder)
                return
        message = f"{adapter.uri} is in none of the stores of this machine and account."
        raise JobError(message, next_step=_LIST)


class _Published(NamedTuple):
    """A manifest in a listing of a store."""

    name: str
    """Name of the adapter."""
    job: str | None
    """Training job, in a bucket."""
    prefix: str
    """Folder of the manifest."""
    time: AwareDatetime
    """When it was written."""


def _newest(store: Store, prefix: str) -> list[_Published]:
    """Return the newest adapter of each name below a prefix."""
    newest: dict[str, _Published] = {}
    listing = store.list_prefix(prefix)
    for key, listed in listing.items():
        match = _MANIFEST.fullmatch(key)
        if match is None:
            continue
        published = _Published(
            name=match["name"],
            job=match["job"],
            prefix=key.removesuffix(MANIFEST_FILE),
            time=listed.modified,
        )
        known = newest.get(published.name)
        if known is None or known.time < published.time:
            newest[published.name] = published
    return list(newest.values())


def _read(store: Store, published: _Published) -> Adapter:
    """Return an adapter with its manifest; raises as `read_manifest` does."""
    return Adapter(
        name=published.name,
        job=published.job,
        uri=store.uri(published.prefix),
        prefix=published.prefix,
        published=published.time,
        manifest=read_manifest(store, published.prefix),
    )


def name_of(prefix: str) -> str | None:
    """Return the name of the adapter below a prefix of a store; None when the prefix is not that of an adapter."""
    manifest = f"{folder_name(prefix)}{MANIFEST_FILE}"
    match = _MANIFEST.fullmatch(manifest)
    return match["name"] if match else None


def read_manifest(store: Store, prefix: str) -> AdapterManifest:
    """Return the manifest of the adapter below a prefix; raises MissingError, or JobError when it cannot be read."""
    name = f"{folder_name(prefix)}{MANIFEST_FILE}"
    text = store.get_bytes(name)
    return _parse(text, store.uri(name))


def fetch(store: Store, prefix: str, folder: Path) -> None:
    """Copy the adapter below a prefix to a new folder: every file verified by the manifest, all of them or nothing.

    Raises MissingError, and JobError or the store's own error when files are missing, changed or too many.
    """
    prefix = folder_name(prefix)
    sizes = {}
    listing = store.list_prefix(prefix)
    for key, listed in listing.items():
        if key != prefix:  # an empty object that some tools create as a folder
            name = key.removeprefix(prefix)
            sizes[name] = listed.size
    if MANIFEST_FILE not in sizes:
        message = f"There is no adapter in {store.uri(prefix)}."
        raise MissingError(message, next_step=_LIST)
    name = f"{prefix}{MANIFEST_FILE}"
    text = store.get_bytes(name)
    manifest = _parse(text, store.uri(name))
    own = FileDigest(
        sha256=hashlib.sha256(text).hexdigest(),
        size=len(text),
    )
    digests = {**manifest.files, MANIFEST_FILE: own}
    expected = {name: digest.size for name, digest in digests.items()}
    if sizes != expected:
        message = f"The adapter in {store.uri(prefix)} is damaged: its files are not those of its manifest."
        raise JobError(message, next_step=_AGAIN)
    store.get_files(prefix, digests, folder)


def _parse(text: bytes, uri: str) -> AdapterManifest:
    """Return a manifest; raises JobError when it is not one."""
    try:
        return AdapterManifest.model_validate_json(text)
    except ValidationError as error:
        if _format_of(text) > FORMAT:
            message = f"{uri} was written by a newer version of orchestrator, and cannot be read by this one."
            raise JobError(message, next_step="upgrade orchestrator") from error
        message = f"{uri} cannot be read; it was changed or damaged."
        raise JobError(message, next_step=_AGAIN) from error


def _format_of(text: bytes) -> int:
    """Return the version of a manifest's layout; 0 when it does not say."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return 0
    version = values.get("format") if isinstance(values, dict) else None
    return version if isinstance(version, int) else 0
