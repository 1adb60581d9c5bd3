"""The Recipe: the only thing that crosses from client to container.

Its top-level fields are the job's hyperparameters, each a JSON value. A recipe is two files of one name: its
declaration in `contract/recipes/` (a subclass of `Recipe` and of mix-ins of `mixins.py`) and `train(recipe, run)` in
`entrypoints/recipes/`.
"""

import json
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from orchestrator.contract import recipes
from orchestrator.contract.batch_result import DRAW_BATCH
from orchestrator.contract.datasets import DatasetKind
from orchestrator.contract.evaluation_result import EVALUATE
from orchestrator.contract.families import Family
from orchestrator.contract.footprint import Footprint, ModelSize
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem, did_you_mean
from orchestrator.contract.prompts import SUBJECT_MARK, EvaluationPrompt
from orchestrator.contract.tokens import Tokenizer
from orchestrator.contract.trackers import TrackerName
from orchestrator.contract.words import NewWord

BUILTIN = "builtin"
BUILTIN_RESOLUTION = 64
RECIPE_KEY = "recipe"
FAMILY_CONTEXT = "family"
"""Key of pydantic's validation context under which the base model's family is given, where it is known."""

# Limits of CreateTrainingJob's HyperParameters map.
MAX_HYPERPARAMETERS = 100
MAX_VALUE_CHARACTERS = 2500

MAX_STEPS = 1_000_000
"""Far more than any adapter takes; a slip of the finger is refused."""
MAX_MINUTES = 100_000
"""More than the 28 days of the longest job."""


class Recipe(BaseModel):
    """What every recipe has: a base model, a length, checkpoints, and pictures to judge it by."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    summary: ClassVar[str] = ""
    """One line for `recipes list`."""
    prompt_field: ClassVar[str | None] = None
    """The field that `--prompt` sets, if the recipe has one."""
    sample_defaults: ClassVar[Mapping[str, Any]] = {}
    """Fields that go with the built-in sample subject."""
    dataset: ClassVar[DatasetKind]
    """What it learns from; every recipe says it."""
    entry: ClassVar[str] = "entrypoints.launch"
    """The module that its jobs start."""
    trains: ClassVar[bool] = True
    """Whether its jobs make an adapter; those of an evaluation measure one, and those of a batch draw with some."""
    shares_images: ClassVar[bool] = False
    """Whether all devices of a job draw its images together, each its share of them."""

    base_model: str = BUILTIN
    """Model to personalise: "builtin", a folder in the diffusers layout, or a Hugging Face id."""
    base_revision: str | None = None
    """Commit of a Hugging Face model; the newest, or on SageMaker that of the mirrored copy, when left out."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of everything random."""
    resolution: int = Field(512, ge=32, le=2048, multiple_of=8)
    """Side of the training pictures in pixels; by default what the model was trained on (built-in model: 64)."""
    steps: int = Field(500, ge=1, le=MAX_STEPS)
    """Optimizer steps of the whole run."""
    checkpoint_minutes: float = Field(10, gt=0, le=MAX_MINUTES)
    """Lose at most this many minutes of training when a run is cut off."""
    checkpoint_steps: int | None = Field(None, ge=1, le=MAX_STEPS)
    """Save after every so many steps, in addition to the minutes."""
    keep_checkpoints: int = Field(2, ge=2, le=MAX_STEPS)
    """Newest checkpoints to keep; an older one goes only after a newer one was verified."""
    validation_prompts: tuple[str, ...] = ()
    """Prompts to draw during training."""
    validation_steps: int = Field(100, ge=1, le=MAX_STEPS, validate_default=True)
    """Draw the validation prompts after every so many steps, and once before the first."""
    evaluation_prompts: int = Field(8, ge=0, le=16)
    """Prompts of the contact sheet and of the closing figures; 0 leaves both out."""
    evaluation_seeds: int = Field(4, ge=1, le=16)
    """Pictures of each evaluation prompt."""
    inference_steps: int = Field(25, ge=1, le=1000)
    """Denoising steps of every picture the run draws."""
    guidance_scale: float = Field(7.5, ge=1, le=100)
    """Classifier-free guidance of every picture the run draws."""
    trackers: tuple[TrackerName, ...] = ()
    """Services that follow the run beside TensorBoard: wandb, mlflow. Local jobs only."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return the defaults that depend on what the person has `chosen`; a field's own default is the rest.

        `family` is that of the base model, None where it is not known before the job runs.
        """
        if chosen.get("base_model", BUILTIN) == BUILTIN:
            # The built-in model is small and sure of itself: more guidance than this only bleaches its colours. Its
            # scheduler, DPM-Solver++ (arXiv 2211.01095), draws in 12 steps what DDIM draws in 25.
            return {"resolution": BUILTIN_RESOLUTION, "guidance_scale": 4.0, "inference_steps": 12}
        return {} if family is None else {"resolution": family.resolution}

    @classmethod
    def all_defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return `defaults` with what depends on settings that all recipes of a kind share."""
        return cls.defaults(chosen, family)

    @classmethod
    def recipe_name(cls) -> str:
        """Return the name people type: that of the declaring module, with hyphens."""
        return cls.__module__.rpartition(".")[2].replace("_", "-")

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, data: Any, info: ValidationInfo) -> Any:  # raw input of any shape
        if not isinstance(data, Mapping):
            return data
        family = (info.context or {}).get(FAMILY_CONTEXT)
        return {**cls.all_defaults(data, family), **data}

    @field_validator("checkpoint_steps")
    @classmethod
    def _checkpoint_occurs(cls, value: int | None, info: ValidationInfo) -> int | None:
        steps = info.data.get("steps")
        if value is not None and steps is not None and value > steps:
            raise ValueError(
                f"every {value} steps never occurs in a run of {counted(steps, 'step')}; "
                "leave it out to save by the minute"
            )
        return value

    @field_validator("validation_steps")
    @classmethod
    def _validation_occurs(cls, value: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps")
        if info.data.get("validation_prompts") and steps is not None and value > steps:
            raise ValueError(
                f"every {value} steps never occurs in a run of {counted(steps, 'step')}, "
                "which leaves the validation prompts undrawn; "
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

    def footprint(self, size: ModelSize) -> Footprint | None:  # noqa: ARG002 - a recipe that can say overrides it
        """Return what training takes of a model of that size, or None when the recipe cannot say."""
        return None

    def bytes_beside_checkpoints(self, size: ModelSize) -> int:  # noqa: ARG002 - for recipes that draw what they learn
        """Return the bytes of what a run of a model of that size keeps to go on with, beside its checkpoints."""
        return 0

    @property
    def state_bytes(self) -> int:
        """Bytes that the optimizer keeps of each trained parameter: AdamW's two moments."""
        return 8

    @property
    def needs_bf16(self) -> bool:
        """Whether it computes in bfloat16, which older GPUs cannot."""
        return False

    @property
    def trains_all_weights(self) -> bool:
        """Whether it trains every weight of the denoiser."""
        return False

    @property
    def reads_conditions(self) -> bool:
        """Whether it reads condition pictures that lie beside the training pictures."""
        return False

    @property
    def learns_from(self) -> DatasetKind:
        """What it learns from with these settings."""
        return self.dataset

    @property
    def prompts_held_out(self) -> int:
        """How many of the prompts that it learns from it does not train on."""
        return 0

    @property
    def trains_text_weights(self) -> bool:
        """Whether it trains every weight of the text encoders."""
        return False

    @property
    def memory_advice(self) -> str:
        """What its settings still leave to do where memory is too small."""
        return "lower resolution"

    @property
    def images_judged(self) -> int:
        """How many pictures the contact sheet compares: those of the evaluation, before and after training."""
        return 2 * self.evaluation_prompts * self.evaluation_seeds

    @property
    def images_drawn(self) -> int:
        """How many pictures the run draws."""
        moments = 1 + self.steps // self.validation_steps
        return self.images_judged + moments * len(self.validation_prompts)

    @property
    def draws_meanwhile(self) -> bool:
        """Whether it draws pictures while it trains."""
        return bool(self.validation_prompts)

    @property
    def draws_images(self) -> bool:
        """Whether the run draws pictures, which takes memory of its own."""
        return self.images_drawn > 0

    @property
    def new_word(self) -> NewWord | None:
        """The word that it teaches, if it does: every caption has to hold it."""
        return None

    @property
    def judged_by(self) -> list[EvaluationPrompt]:
        """The prompts of the contact sheet and of the closing figures."""
        return []

    def judged_by_text(self, text: str) -> EvaluationPrompt:
        """Return the evaluation prompt that asks for what was learned in somebody's own words.

        Raises ValueError, with the reason, for a text that does not ask for it.
        """
        if SUBJECT_MARK in text:
            raise ValueError(f"holds {SUBJECT_MARK}, which stands for a subject, and this adapter has none")
        return EvaluationPrompt(text, text, text)

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Everything beside the captions that the text encoders read, each with the setting that it comes from."""
        found = []
        for number, prompt in enumerate(self.validation_prompts):
            found.append((f"validation_prompts[{number}]", prompt))
        for judged in self.judged_by:
            found.append(("evaluation_prompts", judged.after))
        return found

    @property
    def notes(self) -> list[str]:
        """What it derives from its settings, in whole sentences, for a person to look at before it trains."""
        return []

    def vocabulary_faults(self, tokenizer: Tokenizer) -> list[Problem]:  # noqa: ARG002 - for recipes with a new word
        """Return why its words cannot be learned or used with the vocabulary of a base model."""
        return []

    def vocabulary_doubts(self, tokenizer: Tokenizer) -> list[Problem]:  # noqa: ARG002 - for recipes with a new word
        """Return why its words may be learned badly."""
        return []

    def idle_settings(self) -> dict[str, str]:
        """Return the settings that have no effect beside the others, each with the reason."""
        idle = {}
        if not self.draws_meanwhile:
            idle["validation_steps"] = "there are no validation_prompts"
        if not self.evaluation_prompts:
            idle["evaluation_seeds"] = "evaluation_prompts is 0"
        if not self.draws_images:
            idle["inference_steps"] = "the run draws no images"
            idle["guidance_scale"] = "the run draws no images"
        return idle

    @property
    def trigger(self) -> str | None:
        """The words that call the result up in a prompt; None when any prompt does."""
        return None


def recipe_names() -> list[str]:
    """Return the names of all recipes, in alphabetical order: one for each module of `contract/recipes`."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(recipes.__path__))


def recipe_class(name: str) -> type[Recipe]:
    """Return the declaration of a recipe; raises ValueError with a suggestion when there is none."""
    if name not in recipe_names():
        raise ValueError(f'there is no recipe "{name}"; {did_you_mean(name, recipe_names())}')
    module_name = f"{recipes.__name__}.{name.replace('-', '_')}"
    module = import_module(module_name)
    for item in vars(module).values():
        # What a module only imports, such as the mix-ins, belongs to another.
        if isinstance(item, type) and issubclass(item, Recipe) and item.__module__ == module_name:
            return item
    raise ValueError(f"{module_name} declares no recipe")


def settings_class(work: str) -> type[Recipe]:
    """Return the settings of a job, by the name of its recipe or of other work; raises ValueError as `recipe_class`."""
    if work == EVALUATE:
        from orchestrator.contract.evaluation import Evaluation  # which is made of a Recipe

        return Evaluation
    if work == DRAW_BATCH:
        from orchestrator.contract.batch import BatchDrawing

        return BatchDrawing
    return recipe_class(work)


def to_hyperparameters(recipe: Recipe) -> dict[str, str]:
    """Encode a recipe as the service's map of strings: one JSON value per field, and the recipe's name."""
    values = {RECIPE_KEY: recipe.recipe_name(), **recipe.model_dump(mode="json")}
    hyperparameters = {}
    for name, value in values.items():
        hyperparameters[name] = json.dumps(value, ensure_ascii=False)
    return hyperparameters


def from_hyperparameters(values: Mapping[str, str]) -> Recipe:
    """Decode what `to_hyperparameters` wrote; entries the service adds (`sagemaker_*`) are left out.

    All fields were written. One that is missing did not exist yet: it has its own default, and not what is best today.
    """
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if not name.startswith("sagemaker_"):
            fields[name] = json.loads(value)
    declaration = settings_class(fields.pop(RECIPE_KEY))
    for name, field in declaration.model_fields.items():
        if name not in fields and not field.is_required():
            fields[name] = field.get_default(call_default_factory=True, validated_data={})
    return declaration.model_validate(fields)


def chosen(recipe: Recipe) -> dict[str, Any]:
    """Return the settings without which the recipe would be another one: those that differ from their defaults."""
    settings = recipe.model_dump(mode="json")
    for name in type(recipe).model_fields:
        others = {**settings}
        del others[name]
        try:
            is_default = type(recipe).model_validate(others) == recipe
        except ValueError:  # a required setting, or another does not go with the default
            continue
        if is_default:
            settings = others
    return settings
