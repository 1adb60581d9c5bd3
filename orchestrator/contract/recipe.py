"""The Recipe: the only thing that crosses from client to container.

Its top-level fields are the job's hyperparameters, each a JSON value. A recipe is two files of one name: its
declaration in `contract/recipes/` (a subclass of `Recipe` and of the mix-ins it needs) and `train(recipe, run)` in
`entrypoints/recipes/`.
"""

import json
import pkgutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from orchestrator.contract import recipes
from orchestrator.contract.datasets import DatasetKind
from orchestrator.contract.evaluation_result import EVALUATE
from orchestrator.contract.families import Family
from orchestrator.contract.footprint import Footprint, ModelSize
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem, did_you_mean
from orchestrator.contract.prompts import SUBJECT_MARK, EvaluationPrompt
from orchestrator.contract.tokens import Tokenizer
from orchestrator.contract.trackers import TrackerName
from orchestrator.contract.words import NewWord, Word, holds_word

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


EIGHT_BIT = "adamw8bit"
"""The optimizer that only GPUs compute."""
EIGHT_BIT_PACKAGE = "bitsandbytes"
STATE_BYTES = {"adamw": 8, "adamw8bit": 2, "prodigy": 16, "adafactor": 1}
"""Of each trained parameter, by optimizer: Prodigy also keeps where it began, and the gradients summed up."""


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
    """Whether its jobs make an adapter; those of an evaluation measure one."""

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


class Optimised(Recipe):
    """Mix-in: gradient descent."""

    batch_size: int = Field(1, ge=1, le=100_000)
    """Training samples in a forward pass, on each device."""
    gradient_accumulation: int = Field(1, ge=1, le=1024)
    """Forward passes in one optimizer step."""
    optimizer: Literal["adamw", "adamw8bit", "prodigy", "adafactor"] = "adamw"
    """AdamW; AdamW with moments of 8 bits (bitsandbytes, on GPUs); Prodigy, which finds its own rate, so that
    learning_rate is a factor of it; Adafactor, which keeps next to nothing of the second moments."""
    learning_rate: float = Field(1e-4, gt=0, le=1)
    """Peak learning rate; never scaled by the number of devices."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the learning rate goes on after the warm-up: stays, or falls to zero along a cosine or a line."""
    warmup_steps: int = Field(0, ge=0, le=MAX_STEPS)
    """Optimizer steps over which the learning rate rises from zero."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients longer than this are scaled down to it."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Publish a running average of the trained weights, such as 0.999; the last ones when left out."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Arithmetic of the forward pass, and on a GPU what frozen weights are held in; trained ones stay float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    compile: bool = False
    """Compile the denoiser for training (torch.compile): minutes at the start, then faster steps on a GPU."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return also what suits the size of the family's models."""
        values = super().defaults(chosen, family)
        if family is not None and family.gradient_checkpointing:
            values["gradient_checkpointing"] = True
        return values

    @classmethod
    def all_defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return the defaults with the rate of the optimizer, which for Prodigy is a factor of what it finds."""
        values = super().all_defaults(chosen, family)
        if chosen.get("optimizer") == "prodigy":
            values["learning_rate"] = 1.0
        return values

    @property
    def state_bytes(self) -> int:
        """Bytes that the optimizer keeps of each trained parameter, and those of its average."""
        average = 4 if self.ema_decay is not None else 0
        return STATE_BYTES[self.optimizer] + average

    @property
    def needs_bf16(self) -> bool:
        """Whether it computes in bfloat16, which older GPUs cannot."""
        return self.mixed_precision == "bf16"

    @property
    def memory_advice(self) -> str:
        """What its settings still leave to do where memory is too small."""
        ways = [super().memory_advice]
        if self.batch_size > 1:
            ways.append("lower batch_size (raise gradient_accumulation by the same factor)")
        if self.mixed_precision == "no":
            ways.append("set mixed_precision=bf16")
        if not self.gradient_checkpointing:
            ways.append("set gradient_checkpointing=true")
        return " or ".join(ways)

    @field_validator("warmup_steps")
    @classmethod
    def _warmup_ends(cls, value: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps")
        if steps is not None and 0 < steps <= value:
            raise ValueError(
                f"a warm-up of {counted(value, 'step')} leaves nothing of a run of {counted(steps, 'step')}"
            )
        return value


class Denoising(Optimised):
    """Mix-in: the denoising loss on pictures."""

    random_crop: bool = False
    """Cut each picture at another place every time; the centre otherwise, which is encoded only once."""
    buckets: bool = False
    """Train each picture in a shape near its own and at the area of a square; squares cut from them otherwise."""
    noise_offset: float = Field(0.0, ge=0, le=1)
    """So much noise that is equal all over a channel, which lets very dark and bright pictures be learned; 0.05 to 0.1
    is usual."""
    snr_gamma: float | None = Field(None, gt=0)
    """Min-SNR loss weighting (arXiv 2303.09556), 5 in the paper; off when left out."""
    masked_loss: bool = False
    """Learn the white of each picture's mask: NAME-masklabel.png beside the picture, else its own opaque part."""
    unmasked_weight: float = Field(0.1, gt=0, lt=1)
    """With masked_loss, weight of the black in the loss. Small, but not 0: what no loss holds in place drifts."""

    def idle_settings(self) -> dict[str, str]:
        """Return also the weight that no mask gives."""
        idle = super().idle_settings()
        if not self.masked_loss:
            idle["unmasked_weight"] = "masked_loss is off"
        return idle


class Captioned(Recipe):
    """Mix-in: pictures that their captions describe."""

    trigger_word: Word | None = Field(None, examples=["inkstyle"])
    """A word that is put before every caption, and then calls up what the pictures share; none when left out."""
    caption_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the visits of a picture without its caption, which keeps guidance working (arXiv 2207.12598, sec. 4)."""
    shuffle_tags: bool = False
    """Put the parts of a caption between commas in another order at each visit."""
    kept_tags: int = Field(1, ge=0)
    """So many of its first parts keep their place."""
    evaluation_texts: tuple[str, ...] = ()
    """Prompts of the contact sheet and of the closing figures; the first captions of the data set when left out."""

    @property
    def judged_by(self) -> list[EvaluationPrompt]:
        """The chosen texts; those of the data set are not known before it is read."""
        return self.judged_by_texts(self.evaluation_texts)

    def judged_by_texts(self, texts: Sequence[str]) -> list[EvaluationPrompt]:
        """Return the evaluation prompts that ask for these texts; CLIP and the base model do not know the trigger."""
        found = []
        for text in texts[: self.evaluation_prompts]:
            found.append(self.judged_by_text(text))
        return found

    def judged_by_text(self, text: str) -> EvaluationPrompt:
        """Return the evaluation prompt for a text: the adapter is asked with the trigger word."""
        plain = super().judged_by_text(text)
        return plain._replace(after=self.with_trigger(text))

    def with_trigger(self, caption: str) -> str:
        """Return a caption with the trigger word before it, unless it holds it already."""
        word = self.trigger_word
        if word is None or holds_word(caption, word):
            return caption
        return f"{word}, {caption}"

    @property
    def trigger(self) -> str | None:
        """The trigger word."""
        return self.trigger_word

    def idle_settings(self) -> dict[str, str]:
        """Return also those of the texts that are not used."""
        idle = super().idle_settings()
        if not self.shuffle_tags:
            idle["kept_tags"] = "shuffle_tags is off"
        if not self.evaluation_prompts:
            idle["evaluation_texts"] = "evaluation_prompts is 0"
        return idle


class LowRank(Recipe):
    """Mix-in: a low-rank adapter (LoRA, arXiv 2106.09685), or one of its relatives."""

    tuner: Literal["lora", "dora", "lokr", "loha", "oft"] = "lora"
    """How PEFT writes the change of a layer: LoRA; DoRA (arXiv 2402.09353), LoRA with a length of its own for each
    output; LoKr and LoHa (arXiv 2309.14859), Kronecker and Hadamard products; OFT (arXiv 2306.07280), a rotation."""
    targets: Literal["attention", "transformer", "all"] = "attention"
    """Layers that get an adapter: attention alone; feed-forward layers too; convolutions too."""
    rank: int = Field(8, ge=1, le=256)
    """Rank of the adapter; with oft, side of the blocks of its rotations."""
    alpha: float | None = Field(None, gt=0)
    """Scale of the adapter is alpha / rank; equal to the rank when left out."""
    train_text_encoder: bool = False
    """Train the text encoders as well."""

    @field_validator("targets")
    @classmethod
    def _can_rotate(cls, value: str, info: ValidationInfo) -> str:
        if value == "all" and info.data.get("tuner") == "oft":
            # PEFT 0.21 computes a rotated 3x3 convolution otherwise when it is merged into the weights.
            raise ValueError("OFT rotates no convolutions; write -s targets=transformer, or choose another tuner")
        return value

    @property
    def lora_alpha(self) -> float:
        """`alpha` with its default."""
        return self.rank if self.alpha is None else self.alpha

    def adapter_parameters(self, size: ModelSize) -> int:
        """Return how many parameters an adapter of this rank has at most; LoHa has two matrices where LoRA has one."""
        of_rank_one = size.denoiser_lora[self.targets]
        if self.train_text_encoder:
            of_rank_one += size.text_lora[self.targets]
        matrices = 2 if self.tuner == "loha" else 1
        return matrices * self.rank * of_rank_one

    def idle_settings(self) -> dict[str, str]:
        """Return also the scale of a rotation, which has none."""
        idle = super().idle_settings()
        if self.tuner == "oft":
            idle["alpha"] = "a rotation (tuner=oft) has no scale"
        return idle


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
    if work != EVALUATE:
        return recipe_class(work)
    from orchestrator.contract.evaluation import Evaluation  # which is made of a Recipe

    return Evaluation


def to_hyperparameters(recipe: Recipe) -> dict[str, str]:
    """Encode a recipe as the service's map of strings: one JSON value per field, and the recipe's name."""
    values = {RECIPE_KEY: recipe.recipe_name(), **recipe.model_dump(mode="json")}
    hyperparameters = {}
    for name, value in values.items():
        hyperparameters[name] = json.dumps(value, ensure_ascii=False)
    return hyperparameters


def from_hyperparameters(values: Mapping[str, str]) -> Recipe:
    """Decode what `to_hyperparameters` wrote; entries the service adds (`sagemaker_*`) are left out."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if not name.startswith("sagemaker_"):
            fields[name] = json.loads(value)
    declaration = settings_class(fields.pop(RECIPE_KEY))
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
