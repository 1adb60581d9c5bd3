"""Mix-ins of recipes: the settings of optimisation, of the denoising loss, of captions and of low-rank adapters."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from orchestrator.contract.families import Family
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.plurals import counted
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipe import BUILTIN, MAX_STEPS, Recipe
from orchestrator.contract.rewards import RewardUse, require_distinct
from orchestrator.contract.words import Word, holds_word

EIGHT_BIT = "adamw8bit"
"""The optimizer that only GPUs compute."""
EIGHT_BIT_PACKAGE = "bitsandbytes"
STATE_BYTES = {"adamw": 8, "adamw8bit": 2, "prodigy": 16, "adafactor": 1}
"""Of each trained parameter, by optimizer: Prodigy also keeps where it began, and the gradients summed up."""


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

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return also the layers that suit the built-in model (measured: docs/defaults.md and docs/results.md)."""
        values = super().defaults(chosen, family)
        if chosen.get("base_model", BUILTIN) == BUILTIN:
            values["targets"] = "transformer" if chosen.get("tuner") == "oft" else "all"
        return values

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


class Rewarded(Recipe):
    """Mix-in: rewards of the images that the model draws."""

    rewards: tuple[RewardUse, ...] = Field((RewardUse(name="jpeg-compressibility"),), min_length=1, max_length=16)
    """What is raised, by name, each with a weight if it is not 1: ["aesthetic", "jpeg-compressibility:0.5"]."""
    evaluation_rewards: tuple[RewardUse, ...] = Field((), max_length=16)
    """Rewards that are never trained on: when they fall while the others rise, the reward is being hacked."""

    @model_validator(mode="after")
    def _check_rewards(self) -> Self:
        require_distinct(self.rewards, self.evaluation_rewards)
        return self

    @property
    def all_rewards(self) -> tuple[RewardUse, ...]:
        """Those that are trained on, and those that only evaluate."""
        return (*self.rewards, *self.evaluation_rewards)

    @property
    def by_people(self) -> RewardUse | None:
        """The reward that people give; None where all are computed."""
        for use in self.rewards:
            if use.needs_people:
                return use
        return None
