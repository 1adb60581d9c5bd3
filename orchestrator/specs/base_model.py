"""The base model of a job: the built-in one, a folder, or one of the Hugging Face Hub."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.contract.families import (
    INDEX_FILE,
    STABLE_DIFFUSION,
    Family,
    family_in,
    is_hub_id,
    native_resolution,
)
from orchestrator.contract.hub_models import known_model
from orchestrator.contract.model_check import model_problems
from orchestrator.contract.model_file import model_problem
from orchestrator.contract.problem import Problem
from orchestrator.contract.recipe import BUILTIN
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import expanded
from orchestrator.specs.no_model import NAME_A_MODEL, address_problem, folder_problem


@dataclass(frozen=True)
class Builtin:
    """The model that this package contains."""

    folder: Path = BUILTIN_MODEL
    """Path of the model in the package."""


@dataclass(frozen=True)
class Folder:
    """A model in the diffusers layout on this machine."""

    folder: Path
    """Absolute path of the model."""


@dataclass(frozen=True)
class Hub:
    """A model of the Hugging Face Hub."""

    id: str
    """Name on the Hub: "org/model"."""
    revision: str | None
    """Branch, tag or commit; its default branch when left out."""


ModelSource = Builtin | Folder | Hub


def parse_base_model(name: str, revision: str | None = None) -> ModelSource:
    """Return what a recipe's `base_model` and `base_revision` name; raises ValueError for a name that cannot be one.

    A folder of this machine takes precedence over a model of the Hub with the same name.
    """
    if name == BUILTIN:
        return Builtin()
    if not name:
        raise ValueError("is empty")
    path = expanded(name)
    if is_hub_id(name) and not os.path.lexists(path):
        return Hub(name, revision)
    return Folder(path)


def known_family(base_model: object) -> Family | None:
    """Return the family of a base model; None when it cannot be known offline."""
    if not isinstance(base_model, str):
        return None
    try:
        source = parse_base_model(base_model)
        if isinstance(source, Builtin):
            return STABLE_DIFFUSION
        if isinstance(source, Folder):
            return family_in(source.folder / INDEX_FILE, base_model)
    except ValueError:  # reported by base_model_problems
        return None
    known = known_model(source.id)
    return None if known is None else known.family


def native_settings(base_model: object) -> dict[str, Any]:
    """Return the `resolution` a model was trained on, in pixels, as far as it is known offline; empty otherwise."""
    if not isinstance(base_model, str):
        return {}
    try:
        source = parse_base_model(base_model)
    except ValueError:  # reported by base_model_problems
        return {}
    native = None
    if isinstance(source, Folder):
        native = native_resolution(source.folder)
    if isinstance(source, Hub):
        known = known_model(source.id)
        native = None if known is None else known.resolution
    if native is None:
        return {}
    return {"resolution": native}


def base_model_problems(base_model: object, revision: object) -> list[Problem]:
    """Return what is wrong with the name of a base model, and with the folder it names."""
    if not isinstance(base_model, str):  # reported by the recipe's own check
        return []
    address = address_problem(base_model)
    if address is not None:
        return [address]
    problems = []
    source: ModelSource | None = None
    try:
        source = parse_base_model(base_model)
    except ValueError as error:
        problems.append(model_problem(str(error), NAME_A_MODEL))
    if isinstance(source, Folder):
        problem = folder_problem(source.folder)
        problems += [problem] if problem is not None else model_problems(source.folder)
    if revision is not None and not isinstance(source, Hub):
        what = "is for models of the Hugging Face Hub, and the base model is not one"
        problems.append(Problem(where="base_revision", what=what, fix="leave it out"))
    return problems
