"""The base model that a person named: built-in, a folder, or one of the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from orchestrator.contract.families import (
    HUB_ID,
    INDEX_FILE,
    STABLE_DIFFUSION,
    Family,
    family_in,
    family_of,
    native_resolution,
)
from orchestrator.contract.hub_models import known_model
from orchestrator.contract.problem import Problem
from orchestrator.contract.recipe import BUILTIN
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import expanded


def family_of_base_model(base_model: object) -> Family | None:
    """Return the family of a base model as far as it is known offline; None for an unknown model of the Hub."""
    if base_model == BUILTIN:
        return STABLE_DIFFUSION
    if not isinstance(base_model, str):
        return None
    try:
        folder = _base_model_folder(base_model)
        if folder is not None:
            return family_in(folder / INDEX_FILE, base_model)
    except (ValueError, OSError):  # what is wrong with it is reported by _base_model_problems
        return None
    known = known_model(base_model)
    return None if known is None else known.family


def _native_settings(base_model: object) -> dict[str, Any]:
    """Return the resolution of a model folder that names its own; of a model on the Hub, what is known offline."""
    if base_model == BUILTIN or not isinstance(base_model, str):  # the recipes know the built-in model's
        return {}
    try:
        folder = _base_model_folder(base_model)
    except ValueError:  # a home of nobody: _base_model_problems says so
        return {}
    known = known_model(base_model)
    native = native_resolution(folder) if folder else known and known.resolution
    return {} if native is None else {"resolution": native}


def _base_model_folder(base_model: str) -> Path | None:
    if base_model == BUILTIN:
        return BUILTIN_MODEL
    folder = expanded(base_model)
    return folder if folder.is_dir() else None


def _base_model_problems(base_model: object, revision: object) -> list[Problem]:
    if not isinstance(base_model, str):  # has been said
        return []
    problems = []
    of_hub = HUB_ID.fullmatch(base_model) is not None and not expanded(base_model).exists()
    if not of_hub and base_model != BUILTIN and (fault := _fault_of(base_model)):
        fix = "name a folder in the diffusers layout, a Hugging Face id such as org/model, or builtin"
        problems.append(Problem(where="base_model", what=fault, fix=fix))
    if not of_hub and revision is not None:
        what = "is a commit of a Hugging Face model, and the base model is none"
        problems.append(Problem(where="base_revision", what=what, fix="leave it out"))
    return problems


def _fault_of(base_model: str) -> str:
    if not base_model:
        return "is empty"
    try:
        family_of(expanded(base_model))
    except ValueError as error:
        return str(error)
    return ""
