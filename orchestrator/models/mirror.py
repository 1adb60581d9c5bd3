"""Base models in a store: folders as they are, and models of the Hugging Face Hub under their names.

A mirrored model is a tree like any other, named by its content. What says which model and commit it is, is a small
record at `manifests/hub/MODEL/REVISION.json`: one for the revision that was asked for, one for the commit. A branch's
record names the commit it had when it was mirrored; mirroring it again is what moves it on.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from pydantic import ValidationError

from orchestrator.contract.families import INDEX_FILE, family_in, is_hub_id, missing_parts
from orchestrator.errors import AccountError, MissingError, SpecError
from orchestrator.models import hub
from orchestrator.models.hub import DEFAULT_REVISION, HubModel
from orchestrator.models.mirrored import MirrorAnswer, MirroredModel
from orchestrator.models.tree import model_tree
from orchestrator.secret_scan import require_no_secret
from orchestrator.specs.base_model import Hub, ModelSource
from orchestrator.storage import Store

_RECORDS = "manifests/hub/"
Told = Callable[[str], None]
"""Hears what is happening, a line at a time."""


class Mirroring(NamedTuple):
    """What mirroring came to."""

    model: MirroredModel
    is_new: bool
    """False when the commit had a whole copy before and nothing was fetched."""


def mirror(store: Store, model_id: str, revision: str | None, told: Told) -> Mirroring:
    """Put a model of the Hub into the store, unless the commit is there already.

    Raises SpecError for one that is not there or cannot be trained, before its weights are fetched; the errors of
    `hub.look_up`; and those of the store.
    """
    require_no_secret({"model": model_id, "revision": revision})
    if not is_hub_id(model_id):
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
        note = store.uri(f"manifests/{store.name(model.uri).rstrip('/')}.json")
        message = f"Files of {model.uri} were deleted or changed since it was stored."
        raise AccountError(message, next_step=f"aws s3 rm {note}  # then mirror it again")
    _note(store, model, model.commit)
    _note(store, model, asked)
    return Mirroring(model, is_new=True)


def _copy(store: Store, found: HubModel, asked: str, told: Told) -> MirroredModel:
    told(f"Fetching {found.id} at {found.commit[:12]}: {found.bytes / 1e9:.2f} GB, less what is in the cache ...")
    tree = model_tree(hub.fetch(found))
    told("Uploading it ...")
    return MirroredModel(
        id=found.id,
        revision=asked,
        commit=found.commit,
        uri=store.put_tree(tree),
        sha256=tree.sha256,
        bytes=tree.bytes,
        mirrored=datetime.now(UTC),
    )


def ask(store: Store, source: ModelSource) -> MirrorAnswer:
    """Look for the copy of a job's base model; makes no call for one that is not of the Hub."""
    if not isinstance(source, Hub):
        return MirrorAnswer(asked=True)
    return MirrorAnswer(asked=True, model=find_mirrored(store, source.id, source.revision))


def ask_all(store: Store, sources: Iterable[ModelSource]) -> dict[ModelSource, MirrorAnswer]:
    """Look for the copies of several base models, once for each."""
    return {source: ask(store, source) for source in set(sources)}


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
