"""DreamBooth (arXiv 2208.12242): bind a rare token to one subject from a handful of pictures."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError, ValidationInfo, field_validator, model_validator

from orchestrator.contract.datasets import SUBJECT_PHOTOS, DatasetKind
from orchestrator.contract.families import Family
from orchestrator.contract.footprint import KEPT_FULL, KEPT_LORA, PASSES_FROZEN, PASSES_FULL, Footprint, ModelSize
from orchestrator.contract.mixins import Denoising, LowRank
from orchestrator.contract.new_words import initializer_fault, placeholder_fault, rare_token_doubt
from orchestrator.contract.nouns import bare, noun_behind, noun_of
from orchestrator.contract.problem import Problem
from orchestrator.contract.prompts import SUBJECT_MARK, EvaluationPrompt, contexts
from orchestrator.contract.recipe import BUILTIN
from orchestrator.contract.tokens import Tokenizer
from orchestrator.contract.words import NewWord, Word, holds_word, is_article, occurrences, without_word

_BUILTIN_RATES = {"full": 1.3e-4, "loha": 2.6e-3, "lokr": 6.5e-3}
"""Of the tuners that learn the sample subject too much or too little at the rate of the others (docs/results.md)."""


class DreamBooth(LowRank, Denoising):
    """Fine-tune on pictures of one subject while the class it belongs to is held in place."""

    dataset: ClassVar[DatasetKind] = SUBJECT_PHOTOS
    summary: ClassVar[str] = "one subject from a few photos, called by a rare token (LoRA or full fine-tuning)"
    prompt_field: ClassVar[str | None] = "instance_prompt"
    sample_defaults: ClassVar[Mapping[str, Any]] = {
        "instance_prompt": "a photo of sks monster",
        "class_prompt": "a photo of a monster",
    }

    rare_token: Word = Field("sks")
    """The word that comes to mean the subject."""
    instance_prompt: str = Field(examples=["a photo of sks dog"])
    """Prompt of the training pictures; holds the rare token, as in "a photo of sks dog"."""
    class_prompt: str = ""
    """Prompt of the class pictures: "a photo of a dog"; when left out, the instance prompt without the rare token."""
    tuner: Literal["lora", "dora", "lokr", "loha", "oft", "full"] = "lora"  # type: ignore[assignment]
    """Train an adapter, as the recipe lora does, or every weight of the denoiser (full)."""
    pivotal: bool = False
    """Learn embedding rows for the rare token too, which is then a new word, "<my-dog>"; tuner=lora or dora."""
    initializer_token: Word | None = Field(None, examples=["dog"])
    """With pivotal, the word that the rows start from; the last one of the class when left out."""
    vectors: int = Field(2, ge=1, le=32)
    """With pivotal, embedding rows of the rare token."""
    embedding_rate: float = Field(5e-4, gt=0, le=1)
    """With pivotal, learning rate of the rows."""
    embedding_share: float = Field(0.5, gt=0, le=1)
    """With pivotal, share of the steps after which the rows stay as they are."""
    output_preservation: bool = False
    """Differential preservation: hold the class in place by what the base model predicts for it, without class
    pictures; for adapters only."""
    prior_preservation: bool = Field(True, validate_default=True)
    """Train on class pictures too, so that the class keeps its variety."""
    prior_loss_weight: float = Field(1.0, ge=0)
    """Weight of the loss that holds the class in place."""
    class_images: int = Field(100, ge=1, le=10_000)
    """Class pictures to draw with the base model before training."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return rates that suit the tuner and the size of the base model."""
        values = super().defaults(chosen, family)
        if _truth(chosen.get("output_preservation")):
            values["prior_preservation"] = False
        if chosen.get("base_model", BUILTIN) == BUILTIN:
            # Measured: docs/defaults.md. What holds the class in place costs more of the subject than it is worth here.
            values |= {
                "guidance_scale": 2.0,  # more bleaches a subject before it bleaches a shape
                "steps": 180,
                "batch_size": 4,
                "learning_rate": _BUILTIN_RATES.get(str(chosen.get("tuner")), 1.3e-3),
                "lr_schedule": "cosine",
                "prior_preservation": False,
                "class_images": 32,
                "vectors": 1,
                "embedding_rate": 1e-2,
            }
        else:
            values["learning_rate"] = 5e-6 if chosen.get("tuner") == "full" else 1e-4
        return values

    @model_validator(mode="before")
    @classmethod
    def _derive_class_prompt(cls, data: Any) -> Any:  # raw input of any shape: pydantic checks it after this
        """Fill in the class prompt that was left out: the instance prompt without the rare token."""
        if not isinstance(data, Mapping) or data.get("class_prompt", "") != "":
            return data
        prompt = str(data.get("instance_prompt", ""))
        rare = str(data.get("rare_token", "sks"))
        if not holds_word(prompt, rare):
            return data
        if noun_behind(prompt, rare):
            return {**data, "class_prompt": without_word(prompt, rare)}
        given = {key: value for key, value in data.items() if key != "class_prompt"}
        is_read = _truth(data.get("output_preservation"))
        if _truth(data.get("prior_preservation")) is False and not is_read:
            return given
        return {**given, "class_prompt": ""}

    @field_validator("pivotal")
    @classmethod
    def _goes_with_the_tuner(cls, value: bool, info: ValidationInfo) -> bool:
        """Refuse pivotal with what it cannot be combined with."""
        if not value:
            return value
        if info.data.get("tuner") not in ("lora", "dora"):
            raise ValueError("its two files are read together with tuner=lora or tuner=dora alone")
        if info.data.get("train_text_encoder"):
            raise ValueError("trains the text encoder's input; leave train_text_encoder out")
        if info.data.get("optimizer") == "prodigy":
            raise ValueError("has a rate of its own for the rows, and Prodigy one for all; write -s optimizer=adamw")
        return value

    @field_validator("output_preservation")
    @classmethod
    def _has_an_untuned_base(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("tuner") == "full":
            raise ValueError("needs the base model beside the tuned one; write -s tuner=lora, or use class pictures")
        return value

    @field_validator("prior_preservation")
    @classmethod
    def _holds_the_class_once(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("output_preservation"):
            raise ValueError("output_preservation takes the place of class pictures; leave one of the two out")
        return value

    @field_validator("instance_prompt")
    @classmethod
    def _holds_rare_token(cls, value: str, info: ValidationInfo) -> str:
        rare = info.data.get("rare_token")
        if rare is not None and not holds_word(value, rare):
            example = _class_beside(rare)
            raise ValueError(
                f'"{value}" lacks the rare token "{rare}"; write "a photo of {rare} {example}", '
                "or name a word of your own with -s rare_token=WORD"
            )
        return value

    @field_validator("class_prompt")
    @classmethod
    def _names_class_alone(cls, value: str, info: ValidationInfo) -> str:
        rare = info.data.get("rare_token")
        if rare is not None and holds_word(value, rare):
            example = _class_beside(rare)
            raise ValueError(
                f'"{value}" holds the rare token "{rare}"; it names the class alone, as in "a photo of a {example}"'
            )
        prompt = info.data.get("instance_prompt")
        if not value and prompt and rare is not None:  # a fault of these two is reported there
            raise ValueError(_no_class(prompt, rare))
        return value

    def footprint(self, size: ModelSize) -> Footprint:
        """Return what it trains; class pictures share a forward pass with the subject's."""
        samples = self.batch_size
        if self.prior_preservation or self.output_preservation:
            samples += self.batch_size
        text = self.train_text_encoder
        if self.tuner == "full":
            trained = size.denoiser
            if text:
                trained += size.text_encoders
            return Footprint(
                trained=trained,
                samples=samples,
                kept=KEPT_FULL,
                passes=PASSES_FULL,
                text=text,
            )
        trained = self.adapter_parameters(size)
        if self.pivotal:
            trained += self.vectors * size.text_width
            text = True
        return Footprint(
            trained=trained,
            added=trained,
            samples=samples,
            kept=KEPT_LORA,
            passes=PASSES_FROZEN,
            text=text,
        )

    @property
    def trains_all_weights(self) -> bool:
        """With the tuner for it."""
        return self.tuner == "full"

    @property
    def trains_text_weights(self) -> bool:
        """With the same tuner, when it is asked to."""
        return self.trains_all_weights and self.train_text_encoder

    @property
    def images_drawn(self) -> int:
        """The class pictures too, which are drawn before training."""
        count = super().images_drawn
        if self.prior_preservation:
            count += self.class_images
        return count

    @property
    def new_word(self) -> NewWord | None:
        """The rare token: a caption takes the place of the instance prompt."""
        vectors = 0
        if self.pivotal:
            vectors = self.vectors
        return NewWord(self.rare_token, vectors)

    @property
    def initializer(self) -> str:
        """The word that the rows of the rare token start from."""
        if self.initializer_token is not None:
            return self.initializer_token
        noun = noun_behind(self.instance_prompt, self.rare_token)
        if not noun:
            noun = noun_of(self.class_prompt)
        if not noun:
            return "thing"
        return noun[-1]

    @property
    def judged_by(self) -> list[EvaluationPrompt]:
        """The evaluation prompts: the same for both models, with the rare token and the class.

        CLIP does not know the rare token; the text that it compares images with has the class alone.
        """
        is_builtin = self.base_model == BUILTIN
        texts = contexts(builtin=is_builtin)
        chosen = texts[: self.evaluation_prompts]
        return [self.judged_by_text(text) for text in chosen]

    def judged_by_text(self, text: str) -> EvaluationPrompt:
        """Return the evaluation prompt for a text with {} where the subject is, or with the rare token."""
        named, plain = self._subject_and_class
        if SUBJECT_MARK in text:
            prompt = text.replace(SUBJECT_MARK, named)
            read = text.replace(SUBJECT_MARK, plain)
        elif holds_word(text, self.rare_token):
            prompt = text
            read = without_word(text, self.rare_token)
        else:
            raise ValueError(f'names the subject neither by {SUBJECT_MARK} nor by its word "{self.rare_token}"')
        before = prompt
        if self.pivotal:  # the base model does not know a new word
            before = read
        return EvaluationPrompt(
            before=before,
            after=prompt,
            text=read,
        )

    @property
    def _subject_and_class(self) -> tuple[str, str]:
        """What the evaluation prompts call the subject, and its class: "a sks dog" and "a dog"."""
        noun = noun_behind(self.instance_prompt, self.rare_token)
        is_derived = self.class_prompt == without_word(self.instance_prompt, self.rare_token)
        if not noun or not is_derived:
            noun = noun_of(self.class_prompt) or noun
        article = self._article(noun)
        named = " ".join([*article, self.rare_token, *noun])
        plain = " ".join([*article, *noun]) or "a thing"
        return named, plain

    def _article(self, noun: list[str]) -> list[str]:
        """Return the article that the class has in its prompt: "a" of "a photo of a dog", none of "a pair of shoes"."""
        if not noun:
            return []
        words = [bare(word) for word in self.class_prompt.split()]
        for place in range(1, len(words)):
            if words[place : place + len(noun)] == noun and is_article(words[place - 1]):
                return [words[place - 1]]
        return []

    @property
    def texts(self) -> list[tuple[str, str]]:
        """The prompts of the subject and of its class too."""
        found = [("instance_prompt", self.instance_prompt)]
        if self.prior_preservation or self.output_preservation:
            found.append(("class_prompt", self.class_prompt))
        return found + super().texts

    @property
    def notes(self) -> list[str]:
        """The class prompt, where nobody wrote it."""
        is_derived = self.class_prompt == without_word(self.instance_prompt, self.rare_token)
        if not is_derived or not self.prior_preservation:
            return []
        derived = f'The class pictures are drawn for "{self.class_prompt}"'
        note = f'{derived}; to change that: -s class_prompt="...".'
        return [note]

    def vocabulary_faults(self, tokenizer: Tokenizer) -> list[Problem]:
        """Return why the rare token cannot become a word with rows of its own."""
        if not self.pivotal:
            return []
        faults = {
            "rare_token": placeholder_fault(tokenizer, self.rare_token, self.vectors),
            "initializer_token": initializer_fault(tokenizer, self.initializer),
        }
        problems = []
        for field, fault in faults.items():
            if fault is not None:
                what, fix = fault
                fix = fix.replace("placeholder_token", "rare_token")
                problem = Problem(where=field, what=what, fix=fix)
                problems.append(problem)
        return problems

    def vocabulary_doubts(self, tokenizer: Tokenizer) -> list[Problem]:
        """Return why the rare token may be learned badly."""
        if self.pivotal:
            return []
        doubt = rare_token_doubt(tokenizer, self.rare_token)
        if doubt is None:
            return []
        what, fix = doubt
        return [Problem(where="rare_token", what=what, fix=fix)]

    def idle_settings(self) -> dict[str, str]:
        """Return also those of the tuner and the prior that are not chosen."""
        idle = super().idle_settings()
        if self.tuner == "full":
            idle["rank"] = idle["alpha"] = idle["targets"] = "tuner=full trains every weight, without an adapter"
        if not self.pivotal:
            for name in ("initializer_token", "vectors", "embedding_rate", "embedding_share"):
                idle[name] = "pivotal is off"
        if self.output_preservation:
            idle["class_images"] = "output_preservation draws none"
        elif not self.prior_preservation:
            for name in ("class_prompt", "class_images", "prior_loss_weight"):
                idle[name] = "class pictures are off, unless with -s prior_preservation=true"
        elif not self.prior_loss_weight:
            for name in ("class_prompt", "class_images"):
                idle[name] = "prior_loss_weight is 0"
        return idle

    @property
    def trigger(self) -> str | None:
        """The rare token with its class: the instance prompt."""
        return self.instance_prompt


def _no_class(prompt: str, rare: str) -> str:
    """Return why there is no prompt of the class."""
    places = [found.span() for found in occurrences(prompt, NewWord(rare))]
    for (_, end), (start, _) in pairwise(places):
        if not re.search(r"\w", prompt[end:start]):
            return (
                f'"{prompt}" calls both the subject and its class "{rare}"; call the subject by a word that means '
                f'nothing: "a photo of sks {rare}", with -s rare_token=sks'
            )
    example = _class_beside(rare)
    return (
        f'"{prompt}" does not say what "{rare}" is; write the class behind it, as in "{rare} {example}", '
        f'or give the prompt of the class pictures: -s "class_prompt=a photo of a {example}"'
    )


def _class_beside(rare: str) -> str:
    """Return an example of a class, which is not the rare token."""
    if rare.lower() == "dog":
        return "toy"
    return "dog"


def _truth(value: object) -> bool | None:
    """Return how pydantic reads a raw value as a truth value; None where it cannot."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return None
