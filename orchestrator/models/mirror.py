"""Copies of Hugging Face Hub models in a store.

A mirrored model is a tree like any other, named by its content. A small record at `manifests/hub/MODEL/REVISION.json`
says which model and commit it is: there is one for the requested revision and one for the commit. The record of a
commit says what was copied, and is written once: the bucket's policy refuses to replace what is named by a commit's 40
digits. The record of a branch is read for the commit it had when it was mirrored; mirroring it again updates it.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from pydantic import ValidationError

from orchestrator.contract.command_line import command
from orchestrator.contract.families import INDEX_FILE, is_hub_id
from orchestrator.contract.model_check import model_problems
from orchestrator.contract.problem import Problem
from orchestrator.errors import AccountError, ConflictError, MissingError, SpecError
from orchestrator.models import hub
from orchestrator.models.hub import DEFAULT_REVISION, HubModel
from orchestrator.models.mirrored import MirrorAnswer, MirroredModel
from orchestrator.models.tree import model_name, model_tree
from orchestrator.secret_scan import require_no_secret
from orchestrator.specs.base_model import Hub, ModelSource
from orchestrator.specs.no_model import hub_page
from orchestrator.storage import Store
from orchestrator.terminal import size_text

_RECORDS = "manifests/hub/"
_ANOTHER = "mirror another model, or convert it with diffusers and submit with its folder as --base-model"
Report = Callable[[str], None]
"""Called with each line of progress."""
Mirrors = dict[ModelSource, MirrorAnswer]
"""Base model to what was found of its copy."""


class Mirroring(NamedTuple):
    """The result of mirroring."""

    model: MirroredModel
    """The copy in the store."""
    is_new: bool
    """False when the commit had a complete copy before, so that nothing was downloaded."""


def mirror(
    store: Store,
    model_id: str,
    revision: str | None,
    report: Report,
) -> Mirroring:
    """Copy a model of the Hub into the store, unless its commit is there already.

    Raises SpecError for one that does not exist or cannot be trained, before anything is uploaded, and where its small
    files tell, before its weights are downloaded; the errors of `hub.look_up`; and those of the store.
    """
    require_no_secret({"model": model_id, "revision": revision})
    if not is_hub_id(model_id):
        message = f'"{model_id}" is not the name of a model on the Hub.'
        raise SpecError(message, next_step=_as_on_the_hub(model_id))
    revision = revision or DEFAULT_REVISION
    found = hub.look_up(model_id, revision)
    known = find_mirrored(store, model_id, revision)
    if known is not None and known.commit == found.commit:
        return Mirroring(known, is_new=False)
    same_commit = find_mirrored(store, model_id, found.commit)
    if same_commit is not None:  # copied for another branch or tag
        changes = {"revision": revision}
        renamed = same_commit.model_copy(update=changes)
        _record_revision(store, renamed)
        return Mirroring(renamed, is_new=False)
    _require_model(found)
    model = _copy(store, found, revision, report)
    _require_complete(store, model)
    _record_commit(store, model)
    if revision != model.commit:
        _record_revision(store, model)
    return Mirroring(model, is_new=True)


def _as_on_the_hub(name: str) -> str:
    """Return the command to type instead of one with a name that is none."""
    page = hub_page(name)
    if page is None:
        return "write it as on the Hub: org/model"
    words = ["models", "mirror", page.id]
    if page.revision is not None:
        words += ["--revision", page.revision]
    return command(*words)


def _copy(
    store: Store,
    found: HubModel,
    revision: str,
    report: Report,
) -> MirroredModel:
    """Download a model and store it; return its record, which is not written yet."""
    commit = found.commit[:12]
    size = size_text(found.bytes)
    report(f"Downloading {found.id} at {commit}: {size}, except cached files ...")
    folder = hub.fetch(found, found.sizes)
    _require_no_problems(found, model_problems(folder))
    tree = model_tree(folder)
    report("Uploading it ...")
    return MirroredModel(
        id=found.id,
        revision=revision,
        commit=found.commit,
        uri=store.put_tree(tree),
        sha256=tree.sha256,
        bytes=tree.bytes,
        mirrored=datetime.now(UTC),
    )


def ask(store: Store, source: ModelSource) -> MirrorAnswer:
    """Look up the copy of a job's base model; makes no call for one that is not on the Hub."""
    if not isinstance(source, Hub):
        return MirrorAnswer(asked=True)
    model = find_mirrored(store, source.id, source.revision)
    return MirrorAnswer(asked=True, model=model)


def ask_all(store: Store, sources: Iterable[ModelSource]) -> Mirrors:
    """Look up the copies of several base models, once for each."""
    answers: Mirrors = {}
    for source in set(sources):
        answers[source] = ask(store, source)
    return answers


def find_mirrored(
    store: Store,
    model_id: str,
    revision: str | None,
) -> MirroredModel | None:
    """Return the complete copy of a Hub model at a revision, by default the main branch; None when there is none.

    The Hub is not called: a branch is what it was when it was mirrored.
    """
    revision = revision or DEFAULT_REVISION
    record = _read_record(store, _record_name(model_id, revision))
    if record is None:
        return None
    model: MirroredModel | None = record
    if revision != record.commit:
        model = _of_its_commit(store, model_id, record)
    if model is None or not _is_complete(store, model):
        return None
    return model


def list_mirrored(store: Store) -> list[MirroredModel]:
    """Return the models that have a copy, by name, the newest first; a commit once for each of its revisions."""
    found = {}
    for name in store.list_prefix(_RECORDS):
        record = _read_record(store, name)
        if record is None:
            continue
        model = _of_its_commit(store, record.id, record)
        if model is None:
            continue
        key = (model.id, model.revision, model.commit)  # equal in the record of a revision and that of its commit
        found[key] = model
    models = list(found.values())
    models.sort(key=lambda model: model.mirrored, reverse=True)
    models.sort(key=lambda model: model.id)  # a stable sort: the newest of each stays first
    return models


def _require_model(model: HubModel) -> None:
    """Raise SpecError for a model that cannot be trained, as far as its small files and the names of all files tell."""
    if INDEX_FILE not in model.sizes:
        message = f"{model.id} has no {INDEX_FILE}, so it is not in the diffusers layout."
        raise SpecError(message, next_step=_ANOTHER)
    small = [name for name in model.sizes if not name.endswith(".safetensors")]
    folder = hub.fetch(model, small)
    _require_no_problems(model, model_problems(folder, names=model.sizes))


def _require_no_problems(model: HubModel, problems: Sequence[Problem]) -> None:
    if problems:
        message = f"{model.id} cannot be trained; nothing was uploaded."
        raise SpecError(message, next_step=_ANOTHER, problems=problems)


def _require_complete(store: Store, model: MirroredModel) -> None:
    """Raise AccountError for a copy without some of its files, which the store's own manifest calls complete."""
    if _is_complete(store, model):
        return
    tree = store.name(model.uri).rstrip("/")
    manifest = store.uri(f"manifests/{tree}.json")
    message = f"Files of {model.uri} were deleted or changed since it was stored."
    raise AccountError(message, next_step=f"aws s3 rm {manifest}  # then mirror it again")


def _is_complete(store: Store, model: MirroredModel) -> bool:
    """Return whether the files of a copy have the size they had when it was stored."""
    prefix = store.name(model.uri)
    size = 0
    for file in store.list_prefix(prefix).values():
        size += file.size
    return size == model.bytes


def _record_commit(store: Store, model: MirroredModel) -> None:
    """Record a copy under its commit, once; raises AccountError where another content has been recorded."""
    name = _record_name(model.id, model.commit)
    record = model.model_dump(mode="json")
    try:
        store.put_json(name, record, new=True)
    except ConflictError as error:
        known = _read_record(store, name)
        if known is not None and known.sha256 == model.sha256:  # copied at another time
            return
        uri = store.uri(name)
        message = f"{uri} says that {model.id} has another content at {model.commit}."
        raise AccountError(message, next_step=f"aws s3 rm {uri}  # then mirror it again") from error


def _record_revision(store: Store, model: MirroredModel) -> None:
    """Record a copy under its branch or tag, in place of an earlier one."""
    name = _record_name(model.id, model.revision)
    record = model.model_dump(mode="json")
    store.put_json(name, record)


def _of_its_commit(store: Store, model_id: str, record: MirroredModel) -> MirroredModel | None:
    """Return what the record of a branch names, as its commit's record says it; None when that has none."""
    model = _read_record(store, _record_name(model_id, record.commit))
    if model is None:
        return None
    return model.model_copy(update={"revision": record.revision})


def _read_record(store: Store, name: str) -> MirroredModel | None:
    """Return a record; None when there is none, or when a newer version wrote it: then it is written again.

    Its URI is made from the hash: a record can be replaced, and what a job reads has to be checked against the hash.
    """
    try:
        record = store.get_json(name)
        model = MirroredModel.model_validate(record)
    except (MissingError, ValidationError):
        return None
    uri = store.uri(model_name(model.sha256))
    return model.model_copy(update={"uri": uri})


def _record_name(model_id: str, revision: str) -> str:
    """Return the name of a record, model and revision each as one part of the path; the Hub ignores case in models."""
    model_part = quote(model_id.lower(), safe="")
    revision_part = quote(revision, safe="")
    return f"{_RECORDS}{model_part}/{revision_part}.json"
