"""Textual inversion (arXiv 2208.01618): learn one new word; the model itself stays as it is."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchestrator.contract.datasets import SUBJECT_PHOTOS, DatasetKind
from orchestrator.contract.families import Family
from orchestrator.contract.footprint import KEPT_EMBEDDING, PASSES_FROZEN, Footprint, ModelSize
from orchestrator.contract.recipe import BUILTIN, Denoising
from orchestrator.contract.words import Word


class TextualInversion(Denoising):
    """Train the embedding rows of a placeholder token and nothing else."""

    dataset: ClassVar[DatasetKind] = SUBJECT_PHOTOS
    summary: ClassVar[str] = "a new word for a subject or a style; a file of a few kilobytes"
    prompt_field: ClassVar[str | None] = "placeholder_token"
    sample_defaults: ClassVar[Mapping[str, Any]] = {"placeholder_token": "<subject>", "initializer_token": "monster"}

    placeholder_token: Word = Field(examples=["<my-dog>"])
    """The new word; must not be in the vocabulary yet, so put it in angle brackets: "<my-dog>"."""
    initializer_token: Word = Field(examples=["dog"])
    """A word of the vocabulary, a single token, from which the new vectors start."""
    vectors: int = Field(1, ge=1, le=32)
    """Embedding rows of the new word; more of them hold more detail and are harder to edit."""
    learnable_property: Literal["object", "style"] = "object"
    """What the new word stands for: selects the prompt templates."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return rates that suit the size of the base model; embeddings are never decayed towards zero."""
        values = super().defaults(chosen, family)
        values["weight_decay"] = 0.0
        if chosen.get("base_model", BUILTIN) == BUILTIN:
            values |= {"learning_rate": 2e-2, "steps": 300, "batch_size": 4, "vectors": 4}
        else:
            values |= {"learning_rate": 5e-4, "steps": 3000}
        return values

    def footprint(self, size: ModelSize) -> Footprint:
        """Return what it trains: rows of the text encoders' input, through which the gradient goes."""
        rows = self.vectors * size.text_width
        return Footprint(
            trained=rows,
            added=rows,
            samples=self.batch_size,
            kept=KEPT_EMBEDDING,
            passes=PASSES_FROZEN,
            text=True,
        )

    @property
    def caption_word(self) -> str | None:
        """The placeholder token: a caption takes the place of a template."""
        return self.placeholder_token

    @property
    def trigger(self) -> str | None:
        """The placeholder token."""
        return self.placeholder_token
