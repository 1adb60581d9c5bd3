"""The base model that a person named: built-in, a folder, or one of the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.contract.families import (
    INDEX_FILE,
    STABLE_DIFFUSION,
    Family,
    family_in,
    family_of,
    is_hub_id,
    native_resolution,
)
from orchestrator.contract.hub_models import known_model
from orchestrator.contract.problem import Problem
from orchestrator.contract.recipe import BUILTIN
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import expanded


@dataclass(frozen=True)
class Builtin:
    """The model that this package carries."""

    folder: Path = BUILTIN_MODEL
    """Where it lies."""


@dataclass(frozen=True)
class Folder:
    """A model in the diffusers layout on this machine."""

    folder: Path
    """Where it lies."""


@dataclass(frozen=True)
class Hub:
    """A model of the Hugging Face Hub."""

    id: str
    """Its name there: "org/model"."""
    revision: str | None
    """Branch, tag or commit; its default branch when left out."""


ModelSource = Builtin | Folder | Hub


def parse_base_model(name: str, revision: str | None = None) -> ModelSource:
    """Return what a recipe's `base_model` and `base_revision` name; raises ValueError for a text that names nothing.

    A folder of this machine comes before a model of the Hub with the same name.
    """
    if name == BUILTIN:
        return Builtin()
    if not name:
        raise ValueError("is empty")
    path = expanded(name)
    if is_hub_id(name) and not path.exists():
        return Hub(name, revision)
    return Folder(path)


def known_family(base_model: object) -> Family | None:
    """Return the family of a base model as far as it is known offline; None for an unknown model of the Hub."""
    if not isinstance(base_model, str):
        return None
    try:
        source = parse_base_model(base_model)
        if isinstance(source, Builtin):
            return STABLE_DIFFUSION
        if isinstance(source, Folder):
            return family_in(source.folder / INDEX_FILE, base_model)
    except (ValueError, OSError):  # base_model_problems says so
        return None
    known = known_model(source.id)
    return None if known is None else known.family


def native_settings(base_model: object) -> dict[str, Any]:
    """Return the resolution of a model folder that names its own; of a model on the Hub, what is known offline."""
    try:
        source = parse_base_model(base_model) if isinstance(base_model, str) else None
    except ValueError:  # base_model_problems says so
        return {}
    native = None
    if isinstance(source, Folder):
        native = native_resolution(source.folder)
    if isinstance(source, Hub):
        known = known_model(source.id)
        native = None if known is None else known.resolution
    return {} if native is None else {"resolution": native}


def base_model_problems(base_model: object, revision: object) -> list[Problem]:
    """Return what is wrong with a base model as it was named, and with the folder it names."""
    if not isinstance(base_model, str):  # the recipe's own check says so
        return []
    problems = []
    source: ModelSource | None = None
    try:
        source = parse_base_model(base_model)
        if isinstance(source, Folder):
            family_of(source.folder)
    except ValueError as error:
        fix = "name a folder in the diffusers layout, a Hugging Face id such as org/model, or builtin"
        problems.append(Problem(where="base_model", what=str(error), fix=fix))
    if revision is not None and not isinstance(source, Hub):
        what = "is a commit of a Hugging Face model, and the base model is none"
        problems.append(Problem(where="base_revision", what=what, fix="leave it out"))
    return problems
