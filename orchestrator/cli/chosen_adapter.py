"""The adapter that a command is about: which one, where its files are, and where its base model is."""

from pathlib import Path
from typing import NamedTuple

from orchestrator.adapters.registry import Registry, changed_files, damaged, inspect
from orchestrator.adapters.usage import base_model_name, base_model_source
from orchestrator.cli.output import print_warning
from orchestrator.cli.results import base_folder_of
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.errors import JobError, SpecError
from orchestrator.settings import typed_path
from orchestrator.specs.base_model import Folder, Hub, base_model_problems, parse_base_model
from orchestrator.storage import FolderStore, folder_of

_SAY_WHERE = "say where it is: --base-model FOLDER"


class ChosenAdapter(NamedTuple):
    """An adapter to draw with."""

    name: str
    """Its name, or that of its folder."""
    typed: str
    """As it was named: no other adapter is named so."""
    folder: Path
    """Where its files are on this machine."""
    manifest: AdapterManifest
    base_folder: Path | None = None
    """Folder of the base model that its job read; None where that is not known."""


class ChosenBase(NamedTuple):
    """The base model of an adapter."""

    name: str
    """As a recipe names it: "builtin", the path of a folder, or a Hugging Face id."""
    folder: Path | None
    """Where it is on this machine; None for one of the Hub."""
    revision: str | None = None
    """Commit of a model of the Hub."""


def choose_adapter(adapter: str, registry: Registry, scratch: Path) -> ChosenAdapter:
    """Find an adapter by name, or by the path of its folder; one in the bucket is fetched into `scratch`.

    Raises JobError, or another error of ours, when there is none that can be used.
    """
    if "/" in adapter:
        return _in_folder(adapter)
    found = registry.verified(registry.find(adapter, print_warning))
    found.require_complete()
    if found.uri.startswith("file:"):
        return ChosenAdapter(found.name, adapter, folder_of(found.uri), found.manifest, base_folder_of(found.uri))
    folder = scratch / f"adapter-{found.name}"
    registry.pull(found, folder)
    return ChosenAdapter(found.name, adapter, folder, found.manifest)


def _in_folder(typed: str) -> ChosenAdapter:
    """Return the adapter in a folder of this machine; raises the error of one that cannot be used."""
    folder = typed_path(typed)
    store = FolderStore(folder.parent)
    manifest, problem = inspect(store, folder.name)
    if problem is not None and folder.is_dir():
        raise problem
    if manifest is None:
        raise JobError(f"There is no folder {folder}.", next_step=command("adapters", "list"))
    return ChosenAdapter(folder.name, typed, folder, manifest)


def require_unchanged(chosen: ChosenAdapter) -> None:
    """Raise JobError unless every file of the adapter is as its manifest has it; reads all of them."""
    changed = changed_files(chosen.folder, chosen.manifest)
    if changed:
        raise damaged(chosen.folder.as_uri(), changed)


def base_of(chosen: ChosenAdapter, named: str | None, undone: str) -> ChosenBase:
    """Return where the base model of an adapter is: as `named`, or as the adapter has it.

    `undone` says what did not happen, such as "Nothing was drawn". Raises SpecError when it is not known where the
    model is, or it is not usable there.
    """
    name = named or _own_base_model(chosen, undone)
    problems = base_model_problems(name, None)
    if problems:
        raise SpecError(
            f"The base model of the adapter cannot be used. {undone}.",
            problems=problems,
            next_step=_SAY_WHERE,
        )
    revision = None
    if named is None:
        revision = chosen.manifest.base_model.revision
    source = parse_base_model(name, revision)
    if isinstance(source, Hub):
        return ChosenBase(name, None, revision)
    return ChosenBase(name, source.folder)


def _own_base_model(chosen: ChosenAdapter, undone: str) -> str:
    """Return the base model that an adapter was trained on, a folder by its path; raises SpecError for a lost one."""
    name = chosen.manifest.base_model.id
    source = base_model_source(chosen.manifest, chosen.base_folder)
    if source is None:
        known_as = base_model_name(chosen.manifest, chosen.base_folder)
        message = f'The adapter was trained on the folder "{known_as}", and where that is now is not known.'
        raise SpecError(f"{message} {undone}.", next_step=_SAY_WHERE)
    if isinstance(source, Folder):
        return str(source.folder)
    return name
