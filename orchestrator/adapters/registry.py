"""Finished adapters, wherever they were published: on this machine, in the bucket, or both.

An adapter is a folder below `adapters/NAME/` with its manifest; in a bucket the service puts the job's name and
`output/model/` between, so that a name can have several, of which the newest counts.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.contract.digest import FileDigest
from orchestrator.contract.problem import did_you_mean
from orchestrator.errors import JobError, MissingError
from orchestrator.settings import ADAPTERS_PREFIX
from orchestrator.storage import Store
from orchestrator.storage.uris import folder_name

_MANIFEST = re.compile(rf"{ADAPTERS_PREFIX}(?P<name>[^/]+)/(?:(?P<job>[^/]+)/output/model/)?{re.escape(MANIFEST_FILE)}")
_LIST = command("adapters", "list")
_AGAIN = "submit the job again with --restart"


class Adapter(BaseModel):
    """A published adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What it is called."""
    job: str | None
    """The training job that left it in the bucket; None for one of this machine."""
    uri: str
    """Where it is."""
    prefix: str
    """The same within its store."""
    published: AwareDatetime
    """When it was written."""
    manifest: AdapterManifest
    """What it is made from, and the sha256 of each file."""

    @property
    def bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(digest.size for digest in self.manifest.files.values())


class Registry:
    """The adapters of one or more stores."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = stores

    def newest(self) -> list[Adapter]:
        """Return the newest adapter of each name in each store, sorted by name."""
        found = [self._read(store, *entry) for store in self.stores for entry in _newest(store)]
        return sorted(found, key=lambda adapter: (adapter.name, adapter.uri))

    def find(self, name: str) -> Adapter:
        """Return the adapter of that name, the newest when there are several; raises JobError."""
        found = [self._read(store, *entry) for store in self.stores for entry in _newest(store, name)]
        if not found:
            known = {entry[0] for store in self.stores for entry in _newest(store)}
            hint = did_you_mean(name, known) if known else "nothing was published yet."
            raise JobError(f'There is no adapter "{name}"{hint and f"; {hint}"}', next_step=_LIST)
        return max(found, key=lambda adapter: adapter.published)

    def pull(self, adapter: Adapter, folder: Path) -> None:
        """Bring an adapter to a new folder, as `fetch` does."""
        for store in self.stores:
            if store.uri(adapter.prefix) == adapter.uri:
                fetch(store, adapter.prefix, folder)
                return
        raise JobError(f"{adapter.uri} is in no store that is known here.", next_step=_LIST)

    def _read(self, store: Store, name: str, key: str, published: AwareDatetime) -> Adapter:
        prefix = key.removesuffix(MANIFEST_FILE)
        match = _MANIFEST.fullmatch(key)
        return Adapter(
            name=name,
            job=match["job"] if match else None,
            uri=store.uri(prefix),
            prefix=prefix,
            published=published,
            manifest=read_manifest(store, prefix),
        )


def name_of(prefix: str) -> str | None:
    """Return the name of the adapter below a prefix of a store, or None when none can be there."""
    match = _MANIFEST.fullmatch(f"{folder_name(prefix)}{MANIFEST_FILE}")
    return match["name"] if match else None


def read_manifest(store: Store, prefix: str) -> AdapterManifest:
    """Return the manifest of the adapter below a prefix; raises MissingError, or JobError when it is not one."""
    name = f"{folder_name(prefix)}{MANIFEST_FILE}"
    return _parse(store.get_bytes(name), store.uri(name))


def fetch(store: Store, prefix: str, folder: Path) -> None:
    """Bring the adapter below a prefix to a new folder: every file verified by the manifest, all of them or nothing.

    Raises MissingError, and JobError or the store's own error when files are missing, changed or too many.
    """
    prefix = folder_name(prefix)
    sizes = {}
    for key, listed in store.list_prefix(prefix).items():
        if key != prefix:  # an empty object that some tools make in the place of a folder
            sizes[key.removeprefix(prefix)] = listed.size
    if MANIFEST_FILE not in sizes:
        raise MissingError(f"There is no adapter in {store.uri(prefix)}.", next_step=_LIST)
    name = f"{prefix}{MANIFEST_FILE}"
    text = store.get_bytes(name)
    manifest = _parse(text, store.uri(name))
    own = FileDigest(sha256=hashlib.sha256(text).hexdigest(), size=len(text))
    digests = {**manifest.files, MANIFEST_FILE: own}
    expected = {name: digest.size for name, digest in digests.items()}
    if sizes != expected:
        message = f"The adapter in {store.uri(prefix)} is damaged: its files are not those of its manifest."
        raise JobError(message, next_step=_AGAIN)
    store.get_files(prefix, digests, folder)


def _parse(text: bytes, uri: str) -> AdapterManifest:
    try:
        return AdapterManifest.model_validate_json(text)
    except ValidationError as error:
        message = f"{uri} cannot be read; it was changed, or a newer version wrote it."
        raise JobError(message, next_step=_AGAIN) from error


def _newest(store: Store, name: str = "") -> Iterable[tuple[str, str, AwareDatetime]]:
    """Return name, manifest's key and time of the newest adapter of each name, or of one."""
    newest: dict[str, tuple[str, str, AwareDatetime]] = {}
    for key, listed in store.list_prefix(f"{ADAPTERS_PREFIX}{name}/" if name else ADAPTERS_PREFIX).items():
        match = _MANIFEST.fullmatch(key)
        if match and (match["name"] not in newest or newest[match["name"]][2] < listed.modified):
            newest[match["name"]] = match["name"], key, listed.modified
    return newest.values()
