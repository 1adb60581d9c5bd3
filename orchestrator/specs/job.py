"""`JobSpec`: what a person requests by a job file, the command line, or both.

Everything that can be known without a network is checked here, and all problems are reported at once.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
)

from orchestrator.contract.datasets import PROMPTS
from orchestrator.contract.environment import Wait
from orchestrator.contract.mixins import Rewarded
from orchestrator.contract.problem import Problem
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.rewards import HUMAN
from orchestrator.contract.scorer import require_scorer
from orchestrator.settings import expanded
from orchestrator.specs.base_model import ModelSource, parse_base_model
from orchestrator.specs.compute import Budget, Compute, require_checkpoint
from orchestrator.terminal import printable

MAX_NAME = 40  # of the 63 characters of a training job's name; a hyphen and ten digits are added
_PLACES: Mapping[str, Any] = {
    "base_model": True,
    "rewards": {"__all__": {"path"}},
    "evaluation_rewards": {"__all__": {"path"}},
}
"""Settings that say where files lie on this machine."""
_NAME = re.compile(r"[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*")


def _check_not_empty(value: object) -> object:
    if value == "":
        raise ValueError("is empty; name the folder that holds the images")
    return value


def _check_folder(value: Path) -> Path:
    folder = expanded(value)
    shown = printable(str(folder))  # its name may be of any bytes, which pydantic cannot put into a message
    try:
        is_folder = folder.is_dir()
        what = "is a file, not a folder" if folder.exists() else "does not exist"
    except OSError as error:
        raise ValueError(f"{shown}: {error.strerror}; name the folder that holds the images") from error
    if not is_folder:
        raise ValueError(f"{shown} {what}; name the folder that holds the images")
    return folder


def _check_scorer(value: Path) -> Path:
    folder = expanded(value)
    require_scorer(folder)
    return folder


def _check_prompts(value: Path) -> Path:
    path = expanded(value)
    if not path.is_file():
        shown = printable(str(path))
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{shown} {what}; name a file with one prompt a line")
    return path


InputFolder = Annotated[Path, BeforeValidator(_check_not_empty), AfterValidator(_check_folder)]
"""The absolute path of an existing folder."""
PromptFile = Annotated[Path, AfterValidator(_check_prompts)]
"""The absolute path of a file of prompts."""
ScorerFolder = Annotated[Path, AfterValidator(_check_scorer)]
"""The absolute path of a folder that holds a CLIP."""


class JobSpec(BaseModel):
    """One job: a recipe, the files it trains on, and the name of the adapter it makes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: SerializeAsAny[Recipe]
    """What to train, with all its settings."""
    inputs: Mapping[str, InputFolder]
    """Folder of each input of the recipe's kind of data set; that of the training images is "images"."""
    prompts: PromptFile | None = Field(None, validate_default=True)
    """File of prompts, one a line, of a recipe that learns from prompts."""
    name: str | None = None
    """Name of the adapter: letters, digits and single hyphens, 40 at most; by default the job's name."""
    scorer: ScorerFolder | None = None
    """Folder of a CLIP, as transformers saves it, that measures the figures; the base model's own when left out."""
    wait: Wait = Wait.RELEASE
    """While people label, release ends the job until they have; hold, on this machine, keeps it running."""
    compute: Compute = Compute()
    """Machines of the job. SageMaker only; ignored for local jobs."""
    budget: Budget = Budget()
    """What the job may cost. SageMaker only; ignored for local jobs."""
    warnings: tuple[Problem, ...] = ()
    """Settings that a person has chosen and that have no effect; no part of a job file."""

    @field_validator("inputs")
    @classmethod
    def _check_inputs(cls, value: Mapping[str, Path], info: ValidationInfo) -> Mapping[str, Path]:
        recipe = info.data.get("recipe")
        if recipe is None:
            return value
        dataset = recipe.learns_from
        folders = [name for name in dataset.inputs if name != PROMPTS]
        if sorted(value) != sorted(folders):
            wanted = ", ".join(folders) or "none"
            raise ValueError(f"are not those of the recipe ({dataset.name}): {wanted}")
        return value

    @field_validator("prompts")
    @classmethod
    def _check_prompts_wanted(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        recipe = info.data.get("recipe")
        if recipe is None:
            return value
        learns_from_prompts = PROMPTS in recipe.learns_from.inputs
        if learns_from_prompts == (value is None):
            what = "are missing" if learns_from_prompts else "are not what the recipe learns from"
            raise ValueError(what)
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str | None) -> str | None:
        if value is not None and not is_name(value):
            raise ValueError(
                f'"{value}" is not a valid name; use letters, digits and single hyphens, {MAX_NAME} at most'
            )
        return value

    @field_validator("scorer")
    @classmethod
    def _check_measured(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        recipe = info.data.get("recipe")
        if value is None or recipe is None:
            return value
        scores = isinstance(recipe, Rewarded) and any(use.reads_clip for use in recipe.all_rewards)
        if recipe.evaluation_prompts == 0 and not scores:
            raise ValueError("has nothing to measure, because evaluation_prompts is 0; leave one of the two out")
        return value

    @field_validator("wait")
    @classmethod
    def _check_asks_people(cls, value: Wait, info: ValidationInfo) -> Wait:
        recipe = info.data.get("recipe")
        if recipe is None:
            return value
        if not isinstance(recipe, Rewarded) or recipe.by_people is None:
            raise ValueError(f'is for jobs that people give a reward to ("{HUMAN.name}"); leave it out')
        return value

    @field_validator("compute")
    @classmethod
    def _check_checkpoints(cls, value: Compute, info: ValidationInfo) -> Compute:
        recipe = info.data.get("recipe")
        if recipe is not None and value.max_runtime_minutes is not None:
            runtime_seconds = value.max_runtime_minutes * 60
            require_checkpoint(recipe, value, runtime_seconds)
        return value

    @cached_property
    def base_model(self) -> ModelSource:
        """The parsed `base_model` of the recipe."""
        return parse_base_model(self.recipe.base_model, self.recipe.base_revision)

    def identity(
        self,
        dataset_sha256: str,
        model_sha256: str | None,
        scorer_sha256: str | None = None,
        rewards_sha256: str | None = None,
    ) -> str:
        """Return a hash that is equal for the same work on the same files, and different for any other job.

        A base model on this machine is identified by its content, `model_sha256`, one of the Hub by its name. A scorer
        counts because its figures are in the adapter; without one the hash is that of versions before it. So do the
        weights of rewards, wherever they lie. The code
        is not part of the hash, so that a run can resume after an upgrade; nor are the machines and the budget, so that
        it can resume on others.
        """
        settings = self.recipe.model_dump(mode="json", exclude=dict(_PLACES))
        base = model_sha256 or self.recipe.base_model
        parts = [self.recipe.recipe_name(), settings, self.name, dataset_sha256, base]
        if scorer_sha256 is not None:
            parts.append(scorer_sha256)
        if rewards_sha256 is not None:
            parts.append(f"rewards {rewards_sha256}")
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def is_name(text: str) -> bool:
    """Return whether a text is a valid name of an adapter."""
    if len(text) > MAX_NAME:
        return False
    return _NAME.fullmatch(text) is not None


def job_name_of(text: str, suffix: str, otherwise: str) -> str:
    """Return the name of a job that is called after something, before its digits: "my dog" is "my-dog-evaluation".

    `otherwise` takes the place of a text without a letter or digit that a name may have.
    """
    characters = [character if character.isascii() and character.isalnum() else " " for character in text]
    words = "".join(characters).split()
    name = "-".join(words)[: MAX_NAME - len(suffix)].rstrip("-")
    return f"{name or otherwise}{suffix}"
