"""Base models in a store: folders as they are, and models of the Hugging Face Hub under their names.

A mirrored model is a tree like any other, named by its content. What says which model and commit it is, is a small
record at `manifests/hub/MODEL/REVISION.json`: one for the revision that was asked for, one for the commit. A branch's
record names the commit it had when it was mirrored; mirroring it again is what moves it on.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from orchestrator.contract.families import HUB_ID, INDEX_FILE, family_in, missing_parts, model_files
from orchestrator.errors import AccountError, MissingError, SpecError
from orchestrator.models import hub
from orchestrator.models.hub import DEFAULT_REVISION, HubModel
from orchestrator.secret_scan import require_no_secret
from orchestrator.storage import Store, TreeStore

_KIND = "models"
_RECORDS = "manifests/hub/"
Told = Callable[[str], None]
"""Hears what is happening, a line at a time."""


class MirroredModel(BaseModel):
    """A model of the Hub that has a copy in a store."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = 1
    """Version of this layout."""
    id: str
    """Its name on the Hub, as a job's `base_model` says it: "org/model"."""
    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str
    """What that was when it was mirrored."""
    uri: str
    """Where the copy is."""
    sha256: str
    """Hash over its files, as a job's identity has it for a model in a folder."""
    bytes: int
    """Size of all of them."""
    mirrored: AwareDatetime
    """When."""

    def describe(self) -> str:
        """Return it as a person says it."""
        return f"{self.id} at {self.commit[:12]}, mirrored {self.mirrored.astimezone():%Y-%m-%d %H:%M}"


class Mirroring(NamedTuple):
    """What mirroring came to."""

    model: MirroredModel
    is_new: bool
    """False when the commit had a whole copy before and nothing was fetched."""


def store_model(store: TreeStore, model: Path) -> str:
    """Store what a base model consists of and nothing else that lies in its folder; return the URI it has there."""
    with store.staging() as folder:
        for path in model_files(model):
            link = folder / path.relative_to(model)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        return store.put_tree(_KIND, folder)


def mirror(store: Store, model_id: str, revision: str | None, told: Told) -> Mirroring:
    """Put a model of the Hub into the store, unless the commit is there already.

    Raises SpecError for one that is not there or cannot be trained, before its weights are fetched; the errors of
    `hub.look_up`; and those of the store.
    """
    require_no_secret({"model": model_id, "revision": revision})
    if HUB_ID.fullmatch(model_id) is None:
        raise SpecError(
            f'"{model_id}" is no name of a model on the Hub.', next_step="write it as the Hub does: org/model"
        )
    asked = revision or DEFAULT_REVISION
    found = hub.look_up(model_id, asked)
    there = _read(store, model_id, asked)
    if there is not None and there.commit == found.commit:
        return Mirroring(there, is_new=False)
    copy = _read(store, model_id, found.commit)
    if copy is not None:  # of another branch or tag
        copy = copy.model_copy(update={"revision": asked})
        _note(store, copy, asked)
        return Mirroring(copy, is_new=False)
    _require_family(found)
    model = _copy(store, found, asked, told)
    if not _is_whole(store, model):  # the store takes a tree for whole that it has noted as such
        note = store.uri(f"manifests/{_KIND}/{model.sha256}.json")
        message = f"Files of {model.uri} were deleted or changed since it was stored."
        raise AccountError(message, next_step=f"aws s3 rm {note}  # then mirror it again")
    _note(store, model, model.commit)
    _note(store, model, asked)
    return Mirroring(model, is_new=True)


def _copy(store: Store, found: HubModel, asked: str, told: Told) -> MirroredModel:
    told(f"Fetching {found.id} at {found.commit[:12]}: {found.bytes / 1e9:.2f} GB, less what is in the cache ...")
    folder = hub.fetch(found)
    told("Uploading it ...")
    uri = store_model(store, folder)
    return MirroredModel(
        id=found.id,
        revision=asked,
        commit=found.commit,
        uri=uri,
        sha256=uri.rstrip("/").rpartition("/")[2],  # a tree is named by what `files_sha256` says of its files
        bytes=sum(path.stat().st_size for path in model_files(folder)),
        mirrored=datetime.now(UTC),
    )


def find_mirrored(store: Store, model_id: str, revision: str | None) -> MirroredModel | None:
    """Return the copy of a Hub model at a revision, of its default branch without one; None when there is no whole one.

    The Hub is not asked: a branch is what it was when it was mirrored.
    """
    return _read(store, model_id, revision or DEFAULT_REVISION)


def list_mirrored(store: Store) -> list[MirroredModel]:
    """Return the models that have a copy, by name, the newest first; a commit once for each revision of it."""
    names = store.list_prefix(_RECORDS)
    records = [record for name in names if (record := _record(store, name)) is not None]
    once = {(one.id, one.revision, one.commit): one for one in records}
    newest_first = sorted(once.values(), key=lambda one: one.mirrored, reverse=True)
    return sorted(newest_first, key=lambda one: one.id)


def _require_family(model: HubModel) -> None:
    """Raise SpecError for a model that cannot be trained: by the names of its files and its index alone."""
    another = "mirror another model, or convert it with diffusers and submit with its folder as --base-model"
    if INDEX_FILE not in model.sizes:
        message = f"{model.id} has no {INDEX_FILE}, which a model in the diffusers layout has."
        raise SpecError(message, next_step=another)
    try:
        family = family_in(hub.fetch_file(model, INDEX_FILE), model.id)
    except ValueError as error:
        raise SpecError(f"{error}.", next_step=another) from error
    if missing := missing_parts(family, model.sizes):
        raise SpecError(f"{model.id} is not a whole model: {'; '.join(missing)}.", next_step=another)


def _note(store: Store, model: MirroredModel, revision: str) -> None:
    store.put_json(_name(model.id, revision), model.model_dump(mode="json"))


def _read(store: Store, model_id: str, revision: str) -> MirroredModel | None:
    """Return a record whose tree is whole; a copy that somebody deleted, in part or in all, is none."""
    model = _record(store, _name(model_id, revision))
    return model if model is not None and _is_whole(store, model) else None


def _is_whole(store: Store, model: MirroredModel) -> bool:
    files = store.list_prefix(store.name(model.uri))
    return sum(file.size for file in files.values()) == model.bytes


def _record(store: Store, name: str) -> MirroredModel | None:
    """Return a record; one that a newer version wrote counts as none, and is written anew."""
    try:
        return MirroredModel.model_validate(store.get_json(name))
    except (MissingError, ValidationError):
        return None


def _name(model_id: str, revision: str) -> str:
    """Return where a record is: each of the two as one part of the name, whatever it holds; the Hub ignores case."""
    return f"{_RECORDS}{quote(model_id.lower(), safe='')}/{quote(revision, safe='')}.json"
