"""What a person asks for: a job file, the command line, or both become one `JobSpec`.

Everything that can be known without a network is checked here, and all problems are reported at once.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SerializeAsAny, ValidationInfo, field_validator

from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.contract.families import files_sha256, model_files
from orchestrator.contract.recipe import Recipe
from orchestrator.settings import expanded
from orchestrator.specs.base_model import _base_model_folder
from orchestrator.specs.compute import Budget, Compute, insist_on_checkpoint

MAX_NAME = 40
_NAME = re.compile(r"[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*")


class JobSpec(BaseModel):
    """One job: a recipe, the pictures it learns from, and the name of the adapter it makes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: SerializeAsAny[Recipe]
    """What to train, with all its settings."""
    images: Path
    """Folder with the training pictures."""
    name: str | None = None
    """Name of the adapter: letters, digits and single hyphens, 40 at most; the job's name when left out."""
    compute: Compute = Compute()
    """Machines of a job on SageMaker; a job on this machine heeds it not."""
    budget: Budget = Budget()
    """What a job on SageMaker may cost."""

    @field_validator("images", mode="before")
    @classmethod
    def _is_named(cls, value: object) -> object:
        if value == "":
            raise ValueError("is empty; name the folder that holds the pictures")
        return value

    @field_validator("images")
    @classmethod
    def _is_folder(cls, value: Path) -> Path:
        folder = expanded(value)
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "does not exist"
            raise ValueError(f"{folder} {what}; name the folder that holds the pictures")
        return folder

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
            insist_on_checkpoint(info.data["recipe"], value, value.max_runtime_minutes * 60)
        return value

    def identity(self, dataset_sha256: str, hash_of: Callable[[Path], FileDigest] = hash_file) -> str:
        """Return the hash that tells this job from every other: the same work on the same pictures, the same hash.

        A base model that lies here is known by its content, one of the Hub by its name. The code is no part of it, so
        that a run goes on after an upgrade; nor are the machines and the budget, so that it goes on elsewhere.
        """
        settings = self.recipe.model_dump(mode="json", exclude={"base_model"})
        folder = self.base_model_folder
        base = files_sha256(folder, model_files(folder), hash_of) if folder else self.recipe.base_model
        parts = [self.recipe.recipe_name(), settings, self.name, dataset_sha256, base]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def base_model_folder(self) -> Path | None:
        """The folder the base model lies in, or None when it is fetched from the Hugging Face Hub."""
        return _base_model_folder(self.recipe.base_model)


def is_name(text: str) -> bool:
    """Return whether an adapter can be called so."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None
