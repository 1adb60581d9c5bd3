"""Reinforcement learning of a diffusion model from rewards: DDPO, DiffusionNFT, and Diffusion-DPO.

A round draws images, scores them, and then takes a few optimizer steps that make better ones more likely.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from orchestrator.contract.datasets import PREFERENCE_PAIRS, PROMPTS_ALONE, DatasetKind
from orchestrator.contract.families import Family
from orchestrator.contract.footprint import KEPT_LORA, PASSES_FROZEN, Footprint, ModelSize
from orchestrator.contract.labels import MOST_SAMPLES
from orchestrator.contract.mixins import LowRank, Optimised, Rewarded
from orchestrator.contract.plurals import counted
from orchestrator.contract.recipe import BUILTIN, MAX_STEPS

DDPO = "ddpo"
NFT = "nft"
DPO = "dpo"
_OF_PLAN = (
    "rounds",
    "updates",
    "inner_epochs",
    "prompts_per_round",
    "group_size",
    "batch_size",
    "sampler_steps",
)
"""Settings that a `RoundPlan` is made of."""
_MOST_CHANNELS = 16
"""Of latents; older models have 4."""
_LOOKS = 5
"""How often held-out prompts are drawn, beside before the first step."""
_MOST = 4096
"""Of prompts and images of a round, far more than anybody draws."""
_OF_DDPO = ("eta", "clip_range", "reward_memory")
_OF_NFT = ("nft_strength", "sampler_decay")
_OF_DPO = ("dpo_beta",)
_OF_ROUNDS = (
    "rounds",
    "prompts_per_round",
    "group_size",
    "updates",
    "inner_epochs",
    "sampler_steps",
    "trained_steps",
    "advantage_clip",
    "held_out_prompts",
)


class RoundPlan(NamedTuple):
    """What the steps of a run, and the forward passes of a step, follow from."""

    rounds: int
    updates: int
    inner_epochs: int
    prompts: int
    """Prompts of a round."""
    group_size: int
    """Images of each of them."""
    batch_size: int
    moments: int
    """How many forward passes learn from a batch in a step."""

    @property
    def steps_per_round(self) -> int:
        """Optimizer steps of a round."""
        return self.updates * self.inner_epochs

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.rounds * self.steps_per_round

    @property
    def passes(self) -> int:
        """Forward passes of an optimizer step: its share of the images, each at some moments."""
        images = self.prompts * self.group_size
        images_of_a_step = images // self.updates
        batches = images_of_a_step // self.batch_size
        return max(1, batches * self.moments)

    @property
    def validation_steps(self) -> int:
        """How often held-out prompts are drawn: five times, each at the end of a round."""
        rounds_between = max(1, self.rounds // _LOOKS)
        return rounds_between * self.steps_per_round


def plan_of(values: Mapping[str, Any]) -> RoundPlan | None:
    """Return the plan that settings, checked or as they were typed, make; None unless all are whole numbers."""
    numbers = {}
    for name in _OF_PLAN:
        number = _whole(values.get(name))
        if number is None:
            return None
        numbers[name] = number
    moments = 1
    if values.get("trained_steps") is not None:
        chosen = _whole(values["trained_steps"])
        if chosen is None:
            return None
        moments = chosen
    elif values.get("algorithm") == DDPO:
        moments = numbers["sampler_steps"] - 1
    return RoundPlan(
        rounds=numbers["rounds"],
        updates=numbers["updates"],
        inner_epochs=numbers["inner_epochs"],
        prompts=numbers["prompts_per_round"],
        group_size=numbers["group_size"],
        batch_size=numbers["batch_size"],
        moments=moments,
    )


def _whole(value: object) -> int | None:
    """Return a whole number above 0; None for anything else, which has an error of its own."""
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        number = int(value)
    except ValueError:
        return None
    return number if number > 0 else None


class Rlhf(LowRank, Rewarded, Optimised):
    """Train an adapter with which the model draws what rewards, or people, prefer."""

    summary: ClassVar[str] = "images that score higher: reinforcement learning from rewards or people (DDPO, NFT, DPO)"
    dataset: ClassVar[DatasetKind] = PROMPTS_ALONE

    algorithm: Literal["ddpo", "nft", "dpo"] = "nft"
    """How it learns. nft: from clean images, drawn by any sampler (DiffusionNFT, arXiv 2509.16117); ddpo: from every
    step of the sampler (arXiv 2305.13301), slower; dpo: from stored pairs of pictures, without rewards
    (arXiv 2311.12908)."""
    rounds: int = Field(100, ge=1, le=MAX_STEPS)
    """How often images are drawn, scored and learned from."""
    prompts_per_round: int = Field(8, ge=1, le=_MOST)
    """Prompts that a round draws, on each device."""
    group_size: int = Field(8, ge=1, le=_MOST)
    """Images of each of them, whose rewards are compared with one another."""
    updates: int = Field(1, ge=1, le=_MOST)
    """Optimizer steps of a round, each on its share of the images."""
    inner_epochs: int = Field(1, ge=1, le=100)
    """How often a round learns from the same images."""
    sampler_steps: int = Field(25, ge=2, le=1000)
    """Denoising steps of the images that it learns from."""
    trained_steps: int | None = Field(None, ge=1, le=1000)
    """Moments at which it learns from each image: with ddpo steps of the sampler, by default all that add noise; with
    nft times at which noise is added, by default 1."""
    eta: float = Field(1.0, gt=0, le=1)
    """Noise that ddpo adds at each step, as a share of what DDPM adds (arXiv 2010.02502, eq. 16)."""
    clip_range: float = Field(1e-4, gt=0, lt=1)
    """ddpo: how far the probability of a step may move away from 1 in an update, as a ratio."""
    advantage_clip: float = Field(5.0, gt=0, le=1000)
    """Rewards that lie more standard deviations than this from the mean count as if they lay there."""
    reward_memory: int = Field(16, ge=1, le=_MOST)
    """ddpo: how many of the newest rewards of a prompt its mean and deviation are taken from; the round's as long as
    there are fewer."""
    nft_strength: float = Field(1.0, gt=0, le=10)
    """nft: how far the two models that it learns with lie from the one that draws (beta)."""
    sampler_decay: float = Field(0.5, ge=0, lt=1)
    """nft: share of itself that the model that draws keeps at the end of a round, at most; rises by 0.001 a round."""
    dpo_beta: float = Field(5000.0, gt=0)
    """dpo: weight of staying near the base model in the preference (beta)."""
    kl_weight: float = Field(0.0, ge=0, le=1e6)
    """Weight of staying near the base model in the loss; 0 leaves it out, and rewards are then sooner overdone."""
    held_out_prompts: int = Field(8, ge=0, le=16)
    """The last so many prompts are never trained on: their images show, every validation_steps, what was learned."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return rates that suit the algorithm and the size of the base model."""
        values = super().defaults(chosen, family)
        algorithm = chosen.get("algorithm", NFT)
        if chosen.get("base_model", BUILTIN) == BUILTIN:
            values |= _BUILTIN_VALUES.get(str(algorithm), {})
        else:
            values |= _PHOTO_VALUES.get(str(algorithm), {})
        return values

    @classmethod
    def all_defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return the defaults with the number of steps and of forward passes in one, which follow from the others."""
        values = super().all_defaults(chosen, family)
        found = {**values, **chosen}
        if found.get("algorithm") == DPO:
            return values
        for name, field in cls.model_fields.items():
            if name not in found and not field.is_required():
                found[name] = field.default
        plan = plan_of(found)
        if plan is not None:
            values["steps"] = plan.steps
            values["gradient_accumulation"] = plan.passes
            values["validation_steps"] = plan.validation_steps
        return values

    @field_validator("train_text_encoder")
    @classmethod
    def _trains_the_denoiser(cls, value: bool) -> bool:
        if value:
            raise ValueError("prompts are encoded once for drawing and for learning; leave it out")
        return value

    @field_validator("compile")
    @classmethod
    def _computes_the_same(cls, value: bool) -> bool:
        if value:
            raise ValueError("images would be drawn by other code than they are learned from; leave it out")
        return value

    @field_validator("group_size")
    @classmethod
    def _can_be_compared(cls, value: int) -> int:
        if value == 1:
            raise ValueError("a single image of a prompt has no other to be better than; write at least 2")
        return value

    @field_validator("updates")
    @classmethod
    def _divides_the_round(cls, value: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch_size")
        prompts = info.data.get("prompts_per_round")
        images = info.data.get("group_size")
        if info.data.get("algorithm") == DPO:
            return value
        if batch is None or prompts is None or images is None:  # each has an error of its own
            return value
        samples = prompts * images
        if samples % (value * batch):
            raise ValueError(
                f"a round of {prompts} x {images} = {counted(samples, 'image')} cannot be divided among "
                f"{counted(value, 'update')} in batches of {batch}; choose numbers that divide it"
            )
        return value

    @field_validator("trained_steps")
    @classmethod
    def _are_there(cls, value: int | None, info: ValidationInfo) -> int | None:
        steps = info.data.get("sampler_steps")
        if value is None or steps is None or info.data.get("algorithm") != DDPO:
            return value
        if value > steps - 1:
            raise ValueError(
                f"of {counted(steps, 'sampler step')} all but the last add noise; write at most {steps - 1}"
            )
        return value

    @model_validator(mode="after")
    def _can_be_labelled(self) -> Self:
        images = self.prompts_per_round * self.group_size
        if self.by_people is not None and images > MOST_SAMPLES:
            raise ValueError(f"nobody labels {images} images of a round; ask for {MOST_SAMPLES} at most")
        return self

    @model_validator(mode="after")
    def _steps_follow(self) -> Self:
        if self.algorithm == DPO:
            return self
        plan = self.plan
        if self.steps != plan.steps:
            raise ValueError(
                f"steps is rounds x updates x inner_epochs = {plan.steps}, not {self.steps}; "
                "leave steps out, and set rounds"
            )
        if self.gradient_accumulation != plan.passes:
            raise ValueError(
                f"gradient_accumulation follows from the round and is {plan.passes}, not "
                f"{self.gradient_accumulation}; leave it out"
            )
        return self

    def footprint(self, size: ModelSize) -> Footprint:
        """Return what it trains."""
        trained = self.adapter_parameters(size)
        rows = 2 if self.algorithm == DPO or self._guides_training else 1
        return Footprint(
            trained=trained,
            added=trained,
            samples=rows * self.batch_size,
            kept=KEPT_LORA,
            passes=self._passes,
            text=False,
        )

    def bytes_beside_checkpoints(self, size: ModelSize) -> int:
        """Return the bytes of the images of a round, as latents: with ddpo at every step of the sampler."""
        if self.algorithm == DPO:
            return 0
        side = self.resolution // size.scale
        latents = _MOST_CHANNELS * side * side
        moments = self.sampler_steps + 1 if self.algorithm == DDPO else 1
        images = self.prompts_per_round * self.group_size
        return 4 * images * moments * latents

    @property
    def _guides_training(self) -> bool:
        """Whether what is learned from is computed with and without the prompt."""
        return self.algorithm == DDPO and self.guidance_scale > 1

    @property
    def _passes(self) -> int:
        """Operations of a forward pass with gradients, in plain ones: with those that draw, and those to compare with.

        A round draws each image in so many passes, which are shared by all passes that learn from it.
        """
        passes = PASSES_FROZEN
        if self.algorithm != DDPO:
            passes += 1  # of the model that drew, or of the base model
        if self.kl_weight and self.algorithm != DPO:
            passes += 1
        if self.algorithm == DPO:
            return passes
        to_draw = self.sampler_steps
        if self.guidance_scale > 1 and not self._guides_training:
            to_draw *= 2
        return passes + math.ceil(to_draw / (self.moments * self.inner_epochs))

    @property
    def images_drawn(self) -> int:
        """The held-out ones too, before the first step and at every validation."""
        moments = 1 + self.steps // self.validation_steps
        return super().images_drawn + moments * self.prompts_held_out * self.evaluation_seeds

    @property
    def draws_meanwhile(self) -> bool:
        """Whether there are prompts to draw while it trains."""
        return bool(self.prompts_held_out) or super().draws_meanwhile

    @property
    def learns_from(self) -> DatasetKind:
        """Prompts, or with dpo pairs of pictures."""
        return PREFERENCE_PAIRS if self.algorithm == DPO else self.dataset

    @property
    def prompts_held_out(self) -> int:
        """The last ones of the file; pairs are all trained on."""
        return 0 if self.algorithm == DPO else self.held_out_prompts

    @property
    def plan(self) -> RoundPlan:
        """What its steps and forward passes follow from."""
        found = plan_of(self.model_dump(include={*_OF_PLAN, "algorithm", "trained_steps"}))
        if found is None:
            raise ValueError("the recipe was not checked")
        return found

    @property
    def steps_per_round(self) -> int:
        """Optimizer steps of a round."""
        return self.updates * self.inner_epochs

    @property
    def moments(self) -> int:
        """At how many moments it learns from each image."""
        return self.plan.moments

    @property
    def notes(self) -> list[str]:
        """How many images are scored in all: each is asked of a reward once, and what is asked may cost money."""
        notes = list(super().notes)
        if self.algorithm == DPO:
            return notes
        images = self.prompts_per_round * self.group_size
        scored = self.rounds * images
        notes.append(
            f"{counted(self.rounds, 'round')} of {self.prompts_per_round} x {self.group_size} images: "
            f"{scored} images are drawn and scored on each device, and {counted(self.steps, 'step')} learn from them."
        )
        return notes

    def idle_settings(self) -> dict[str, str]:
        """Return also the settings of the other algorithms."""
        idle = super().idle_settings()
        algorithm = self.algorithm
        for owner, names in ((DDPO, _OF_DDPO), (NFT, _OF_NFT), (DPO, _OF_DPO)):
            if algorithm != owner:
                idle |= dict.fromkeys(names, f"it is for {owner}, and algorithm is {algorithm}")
        if algorithm == DPO:
            for name in (*_OF_ROUNDS, "rewards", "evaluation_rewards", "kl_weight"):
                idle[name] = "dpo draws no rounds: it learns from stored pairs"
        return idle


_BUILTIN_VALUES: Mapping[str, Mapping[str, Any]] = {
    NFT: {
        "rounds": 16,
        "prompts_per_round": 4,
        "group_size": 8,
        "batch_size": 16,
        "updates": 2,
        "inner_epochs": 2,
        "sampler_steps": 8,
        "trained_steps": 2,
        "advantage_clip": 1.0,
        "learning_rate": 4e-3,
        "guidance_scale": 2.0,
        "evaluation_seeds": 2,
    },
    DDPO: {
        "rounds": 24,
        "prompts_per_round": 8,
        "group_size": 8,
        "batch_size": 16,
        "updates": 2,
        "sampler_steps": 10,
        "clip_range": 1e-3,
        "learning_rate": 2e-3,
        "guidance_scale": 2.0,
        "evaluation_seeds": 2,
    },
    DPO: {
        "steps": 200,
        "batch_size": 4,
        "learning_rate": 1e-3,
    },
}
"""For the built-in model: few images of a round, because a CPU draws them."""
_PHOTO_VALUES: Mapping[str, Mapping[str, Any]] = {
    # arXiv 2509.16117, sec. 4.1, with fewer images in a round than its 48 x 24: it is for one GPU.
    NFT: {
        "rounds": 200,
        "prompts_per_round": 16,
        "group_size": 8,
        "batch_size": 4,
        "sampler_steps": 20,
        "trained_steps": 4,
        "learning_rate": 3e-4,
        "weight_decay": 1e-4,
        "rank": 32,
        "alpha": 64.0,
    },
    # arXiv 2305.13301, app. D: 256 images and 4 updates a round, 50 steps, guidance 5; 3e-4 is its rate for LoRA.
    DDPO: {
        "rounds": 100,
        "prompts_per_round": 32,
        "group_size": 8,
        "batch_size": 4,
        "updates": 4,
        "sampler_steps": 50,
        "guidance_scale": 5.0,
        "reward_memory": 32,
        "learning_rate": 3e-4,
        "weight_decay": 1e-4,
    },
    # arXiv 2311.12908, sec. 5.1, whose batches of 2048 pairs are for many GPUs.
    DPO: {
        "steps": 2000,
        "batch_size": 1,
        "gradient_accumulation": 16,
        "learning_rate": 1e-5,
    },
}
"""For models of photos, from the papers; not measured here."""
