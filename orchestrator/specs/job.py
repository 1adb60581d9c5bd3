"""What a person asks for: a job file, the command line, or both become one `JobSpec`.

Everything that can be known without a network is checked here, and all problems are reported at once.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
)

from orchestrator.contract.recipe import Recipe
from orchestrator.settings import expanded
from orchestrator.specs.base_model import ModelSource, parse_base_model
from orchestrator.specs.compute import Budget, Compute, require_checkpoint

MAX_NAME = 40
_NAME = re.compile(r"[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*")


def _check_named(value: object) -> object:
    if value == "":
        raise ValueError("is empty; name the folder that holds the pictures")
    return value


def _check_folder(value: Path) -> Path:
    folder = expanded(value)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"{folder} {what}; name the folder that holds the pictures")
    return folder


InputFolder = Annotated[Path, BeforeValidator(_check_named), AfterValidator(_check_folder)]
"""A folder that is there."""


class JobSpec(BaseModel):
    """One job: a recipe, the files it learns from, and the name of the adapter it makes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: SerializeAsAny[Recipe]
    """What to train, with all its settings."""
    inputs: Mapping[str, InputFolder]
    """Folder of each input of the recipe's kind of data set: that of the pictures is called "images"."""
    name: str | None = None
    """Name of the adapter: letters, digits and single hyphens, 40 at most; the job's name when left out."""
    compute: Compute = Compute()
    """Machines of the job. SageMaker only; ignored for local jobs."""
    budget: Budget = Budget()
    """What the job may cost. SageMaker only; ignored for local jobs."""

    @field_validator("inputs")
    @classmethod
    def _fit_the_recipe(cls, value: Mapping[str, Path], info: ValidationInfo) -> Mapping[str, Path]:
        recipe = info.data.get("recipe")
        if recipe is not None and value.keys() != recipe.dataset.inputs.keys():
            wanted = ", ".join(recipe.dataset.inputs) or "none"
            raise ValueError(f"are not those of the recipe ({recipe.dataset.name}): {wanted}")
        return value

    @field_validator("name")
    @classmethod
    def _names_a_job(cls, value: str | None) -> str | None:
        # A training job's name has 63 characters; a hyphen and ten digits of it are ours.
        if value is not None and not is_name(value):
            raise ValueError(f'"{value}" is no name; use letters, digits and single hyphens, {MAX_NAME} at most')
        return value

    @field_validator("compute")
    @classmethod
    def _survives_interruptions(cls, value: Compute, info: ValidationInfo) -> Compute:
        if "recipe" in info.data:
            require_checkpoint(info.data["recipe"], value, value.max_runtime_minutes * 60)
        return value

    @cached_property
    def base_model(self) -> ModelSource:
        """What the recipe's `base_model` names, looked up once."""
        return parse_base_model(self.recipe.base_model, self.recipe.base_revision)

    def identity(self, dataset_sha256: str, model_sha256: str | None) -> str:
        """Return the hash that tells this job from every other: the same work on the same files, the same hash.

        A base model that lies here is known by its content, `model_sha256`, one of the Hub by its name. The code is no
        part of it, so that a run goes on after an upgrade; nor are the machines and the budget, so that it goes on
        elsewhere.
        """
        settings = self.recipe.model_dump(mode="json", exclude={"base_model"})
        base = model_sha256 or self.recipe.base_model
        parts = [self.recipe.recipe_name(), settings, self.name, dataset_sha256, base]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_name(text: str) -> bool:
    """Return whether an adapter can be called so."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None
