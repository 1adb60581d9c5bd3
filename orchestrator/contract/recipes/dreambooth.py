"""DreamBooth (arXiv 2208.12242): bind a rare token to one subject from a handful of pictures."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from orchestrator.contract.datasets import SUBJECT_PHOTOS, DatasetKind
from orchestrator.contract.families import Family
from orchestrator.contract.footprint import KEPT_FULL, KEPT_LORA, Footprint, ModelSize
from orchestrator.contract.recipe import BUILTIN, Denoising, LowRank
from orchestrator.contract.words import Word, holds_word, without_word


class DreamBooth(LowRank, Denoising):
    """Fine-tune on pictures of one subject while the class it belongs to is held in place."""

    dataset: ClassVar[DatasetKind] = SUBJECT_PHOTOS
    summary: ClassVar[str] = "one subject from a few photos, called by a rare token (LoRA or full fine-tuning)"
    prompt_field: ClassVar[str | None] = "instance_prompt"
    sample_defaults: ClassVar[Mapping[str, Any]] = {"instance_prompt": "a photo of sks monster"}

    rare_token: Word = Field("sks")
    """The word that comes to mean the subject."""
    instance_prompt: str = Field(examples=["a photo of sks dog"])
    """Prompt of the training pictures; holds the rare token, as in "a photo of sks dog"."""
    class_prompt: str = ""
    """Prompt of the class pictures; when left out, the instance prompt without the rare token."""
    tuner: Literal["lora", "full"] = "lora"
    """Train a low-rank adapter (arXiv 2106.09685) or every weight of the denoiser."""
    prior_preservation: bool = True
    """Train on class pictures too, so that the class keeps its variety."""
    prior_loss_weight: float = Field(1.0, ge=0)
    """Weight of the class pictures' loss."""
    class_images: int = Field(100, ge=1)
    """Class pictures to draw with the base model before training."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return rates that suit the tuner and the size of the base model."""
        values = super().defaults(chosen, family)
        full = chosen.get("tuner", "lora") == "full"
        if chosen.get("base_model", BUILTIN) == BUILTIN:
            # Guidance bleaches a subject before it bleaches a shape; and more steps than these wear the subject out.
            values |= {"guidance_scale": 2.5, "steps": 300, "batch_size": 4, "class_images": 32}
            values["learning_rate"] = 1e-4 if full else 1e-3
        else:
            values["learning_rate"] = 5e-6 if full else 1e-4
        return values

    @model_validator(mode="before")
    @classmethod
    def _derive_class_prompt(cls, data: Any) -> Any:  # raw input of any shape: pydantic checks it after this
        if not isinstance(data, Mapping) or data.get("class_prompt"):
            return data
        prompt, rare = str(data.get("instance_prompt", "")), str(data.get("rare_token", "sks"))
        return {**data, "class_prompt": without_word(prompt, rare)} if holds_word(prompt, rare) else data

    @field_validator("instance_prompt")
    @classmethod
    def _holds_rare_token(cls, value: str, info: ValidationInfo) -> str:
        rare = info.data.get("rare_token")
        if rare is not None and not holds_word(value, rare):
            raise ValueError(
                f'"{value}" lacks the rare token "{rare}"; write "a photo of {rare} dog", '
                "or name a word of your own with -s rare_token=WORD"
            )
        return value

    @field_validator("class_prompt")
    @classmethod
    def _names_class_alone(cls, value: str, info: ValidationInfo) -> str:
        rare = info.data.get("rare_token")
        if rare is not None and holds_word(value, rare):
            raise ValueError(
                f'"{value}" holds the rare token "{rare}"; it names the class alone, as in "a photo of a dog"'
            )
        if not value and info.data.get("instance_prompt"):
            raise ValueError(f'the prompt is nothing but "{rare}"; add the class, as in "{rare} dog"')
        return value

    def footprint(self, size: ModelSize) -> Footprint:
        """Return what it trains; class pictures share a forward pass with the subject's."""
        samples = self.batch_size * (2 if self.prior_preservation else 1)
        text = self.train_text_encoder
        if self.tuner == "full":
            trained = size.denoiser + (size.text_encoders if text else 0)
            return Footprint(trained=trained, samples=samples, kept=KEPT_FULL, text=text)
        trained = self.rank * (size.denoiser_lora + (size.text_lora if text else 0))
        return Footprint(trained=trained, added=trained, samples=samples, kept=KEPT_LORA, text=text)

    @property
    def trains_all_weights(self) -> bool:
        """With the tuner for it."""
        return self.tuner == "full"

    @property
    def draws_images(self) -> bool:
        """Class pictures are drawn before training."""
        return self.prior_preservation or super().draws_images

    @property
    def caption_word(self) -> str | None:
        """The rare token: a caption takes the place of the instance prompt."""
        return self.rare_token

    @property
    def trigger(self) -> str | None:
        """The rare token with its class: the instance prompt."""
        return self.instance_prompt
