"""The Recipe: the only thing that crosses from client to container.

Its top-level fields are the job's hyperparameters, each a JSON value. A recipe is two files of one name: its
declaration in `contract/recipes/` (a subclass of `Recipe`) and `train(recipe, run)` in `entrypoints/recipes/`.
"""

import json
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from orchestrator.contract import recipes
from orchestrator.contract.datasets import DatasetKind
from orchestrator.contract.problem import did_you_mean

BUILTIN = "builtin"
RECIPE_KEY = "recipe"

# Limits of CreateTrainingJob's HyperParameters map.
MAX_HYPERPARAMETERS = 100
MAX_VALUE_CHARACTERS = 2500


class Recipe(BaseModel):
    """What every recipe has: a base model, an optimisation, checkpoints, and pictures to judge it by."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    summary: ClassVar[str] = ""
    """One line for `recipes list`."""
    prompt_field: ClassVar[str | None] = None
    """The field that `--prompt` sets, if the recipe has one."""
    sample_defaults: ClassVar[Mapping[str, Any]] = {}
    """Fields that go with the built-in sample subject."""
    dataset: ClassVar[DatasetKind]
    """What it learns from; every recipe says it."""

    base_model: str = BUILTIN
    """Model to personalise: "builtin", a folder in the diffusers layout, or a Hugging Face id."""
    base_revision: str | None = None
    """Commit of a Hugging Face model; the newest, or on SageMaker that of the mirrored copy, when left out."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of everything random."""
    resolution: int = Field(512, ge=32, le=2048, multiple_of=8)
    """Side of the training pictures in pixels; a model folder's own where it names one (built-in model: 64)."""
    random_crop: bool = False
    """Cut each picture at another place every time; the centre otherwise, which is encoded only once."""
    steps: int = Field(500, ge=1)
    """Optimizer steps of the whole run."""
    batch_size: int = Field(1, ge=1)
    """Training pictures in a forward pass, on each device."""
    gradient_accumulation: int = Field(1, ge=1)
    """Forward passes in one optimizer step."""
    learning_rate: float = Field(1e-4, gt=0, lt=1)
    """Peak learning rate."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the learning rate goes on after the warm-up: stays, or falls to zero along a cosine or a line."""
    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps over which the learning rate rises from zero."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled weight decay of AdamW."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients longer than this are scaled down to it."""
    snr_gamma: float | None = Field(None, gt=0)
    """Min-SNR loss weighting (arXiv 2303.09556), 5 in the paper; off when left out."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Arithmetic of the forward pass; trained weights stay float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    checkpoint_minutes: float = Field(10, gt=0)
    """Lose at most this many minutes of training when a run is cut off."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """Save after every so many steps, in addition to the minutes."""
    keep_checkpoints: int = Field(2, ge=2)
    """Newest checkpoints to keep; an older one goes only after a newer one was verified."""
    validation_prompts: tuple[str, ...] = ()
    """Prompts to draw during training."""
    validation_steps: int = Field(100, ge=1, validate_default=True)
    """Draw the validation prompts after every so many steps."""
    evaluation_prompts: int = Field(8, ge=0, le=16)
    """Prompts of the contact sheet and of the closing figures; 0 leaves both out."""
    evaluation_seeds: int = Field(4, ge=1, le=16)
    """Pictures of each evaluation prompt."""
    inference_steps: int = Field(25, ge=1, le=1000)
    """Denoising steps of every picture the run draws."""
    guidance_scale: float = Field(7.5, ge=1)
    """Classifier-free guidance of every picture the run draws."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults that depend on what the person has `chosen`; a field's own default is the rest."""
        # The built-in model is small and sure of itself: more guidance than this only bleaches its colours.
        return {"resolution": 64, "guidance_scale": 4.0} if chosen.get("base_model", BUILTIN) == BUILTIN else {}

    @classmethod
    def recipe_name(cls) -> str:
        """Return the name people type: that of the declaring module, with hyphens."""
        return cls.__module__.rpartition(".")[2].replace("_", "-")

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, data: Any) -> Any:  # raw input of any shape: pydantic checks it after this
        return {**cls.defaults(data), **data} if isinstance(data, Mapping) else data

    @field_validator("warmup_steps")
    @classmethod
    def _warmup_ends(cls, value: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps")
        if steps is not None and 0 < steps <= value:
            raise ValueError(f"a warm-up of {value} steps leaves nothing of a run of {steps}")
        return value

    @field_validator("checkpoint_steps")
    @classmethod
    def _checkpoint_occurs(cls, value: int | None, info: ValidationInfo) -> int | None:
        steps = info.data.get("steps")
        if value is not None and steps is not None and value > steps:
            raise ValueError(
                f"every {value} steps never occurs in a run of {steps}; leave it out to save by the minute"
            )
        return value

    @field_validator("validation_steps")
    @classmethod
    def _validation_occurs(cls, value: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps")
        if info.data.get("validation_prompts") and steps is not None and value > steps:
            raise ValueError(
                f"every {value} steps never occurs in a run of {steps}, which leaves the validation prompts undrawn; "
                f"write -s validation_steps={max(1, steps // 4)}"
            )
        return value

    @model_validator(mode="after")
    def _fits_hyperparameters(self) -> Self:
        values = to_hyperparameters(self)
        if len(values) > MAX_HYPERPARAMETERS:
            raise ValueError(f"{len(values)} hyperparameters; a job takes at most {MAX_HYPERPARAMETERS}")
        long = [name for name, value in values.items() if len(value) > MAX_VALUE_CHARACTERS]
        if long:
            raise ValueError(f"{', '.join(long)}: longer than the {MAX_VALUE_CHARACTERS} characters a job takes")
        return self

    @property
    def caption_word(self) -> str | None:
        """The word that every caption has to hold, if the recipe teaches one."""
        return None

    @property
    def trigger(self) -> str:
        """The words that call the subject up in a prompt."""
        raise NotImplementedError


def recipe_names() -> list[str]:
    """Return the names of all recipes, in alphabetical order: one for each module of `contract/recipes`."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(recipes.__path__))


def recipe_class(name: str) -> type[Recipe]:
    """Return the declaration of a recipe; raises ValueError with a suggestion when there is none."""
    if name not in recipe_names():
        raise ValueError(f'there is no recipe "{name}"; {did_you_mean(name, recipe_names())}')
    module = import_module(f"{recipes.__name__}.{name.replace('-', '_')}")
    declared = [item for item in vars(module).values() if _is_declared_in(item, module.__name__)]
    found: type[Recipe] = declared[0]
    return found


def _is_declared_in(item: object, module_name: str) -> bool:
    return isinstance(item, type) and issubclass(item, Recipe) and item.__module__ == module_name


def to_hyperparameters(recipe: Recipe) -> dict[str, str]:
    """Encode a recipe as the service's map of strings: one JSON value per field, and the recipe's name."""
    fields = recipe.model_dump(mode="json")
    values = {RECIPE_KEY: recipe.recipe_name(), **fields}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def from_hyperparameters(values: Mapping[str, str]) -> Recipe:
    """Decode what `to_hyperparameters` wrote; entries the service adds (`sagemaker_*`) are left out."""
    fields = {name: json.loads(value) for name, value in values.items() if not name.startswith("sagemaker_")}
    return recipe_class(fields.pop(RECIPE_KEY)).model_validate(fields)
