"""Textual inversion (arXiv 2208.01618): learn one new word; the model itself stays as it is."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchestrator.contract.datasets import SUBJECT_PHOTOS, DatasetKind
from orchestrator.contract.families import Family
from orchestrator.contract.footprint import KEPT_EMBEDDING, PASSES_FROZEN, Footprint, ModelSize
from orchestrator.contract.mixins import Denoising
from orchestrator.contract.new_words import initializer_fault, placeholder_fault
from orchestrator.contract.problem import Problem
from orchestrator.contract.prompts import SUBJECT_MARK, EvaluationPrompt, contexts, templates
from orchestrator.contract.recipe import BUILTIN
from orchestrator.contract.tokens import Tokenizer
from orchestrator.contract.words import DETERMINERS, NewWord, Word, occurrences, with_article, with_word


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
    hold_initializer: bool = False
    """Leave the last of several vectors as it starts. The new word then ends in the initializer itself, and the others
    say what is special about it: prompt fidelity drops less."""
    learnable_property: Literal["object", "style"] = "object"
    """What the new word stands for: selects the prompt templates."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return rates that suit the size of the base model; embeddings are never decayed towards zero."""
        values = super().defaults(chosen, family)
        values["weight_decay"] = 0.0
        if chosen.get("base_model", BUILTIN) == BUILTIN:
            values |= {  # measured: docs/defaults.md
                "learning_rate": 5e-2,
                "lr_schedule": "cosine",
                "steps": 300,
                "batch_size": 4,
                "vectors": 3,
                "hold_initializer": True,
            }
        else:
            values |= {"learning_rate": 5e-4, "steps": 3000}
        return values

    def footprint(self, size: ModelSize) -> Footprint:
        """Return what it trains: rows of the text encoders' input, through which the gradient goes."""
        rows = self.vectors * size.text_width
        held = size.text_width if self.is_held else 0
        return Footprint(
            trained=rows - held,
            added=rows,
            samples=self.batch_size,
            kept=KEPT_EMBEDDING,
            passes=PASSES_FROZEN,
            text=True,
        )

    @property
    def is_held(self) -> bool:
        """Whether the last vector stays as it starts: the only one never does."""
        return self.hold_initializer and self.vectors > 1

    def idle_settings(self) -> dict[str, str]:
        """Return also what a single vector leaves no room for."""
        idle = super().idle_settings()
        if self.vectors == 1:
            idle["hold_initializer"] = "vectors is 1, and the only vector is trained"
        return idle

    @property
    def new_word(self) -> NewWord | None:
        """The placeholder token: a caption takes the place of a template."""
        return NewWord(self.placeholder_token, self.vectors)

    @property
    def templates(self) -> tuple[str, ...]:
        """Training prompts with {} where the placeholder stands; one is drawn at random at each visit (sec. 3)."""
        is_style = self.learnable_property == "style"
        return templates(builtin=self.base_model == BUILTIN, style=is_style)

    @property
    def judged_by(self) -> list[EvaluationPrompt]:
        """The evaluation prompts: with the initializer for the base model, with the new word for the tuned one.

        CLIP does not know the new word; the text that it compares images with has the initializer.
        """
        is_style = self.learnable_property == "style"
        chosen = contexts(builtin=self.base_model == BUILTIN, style=is_style)
        return [self.judged_by_text(context) for context in chosen[: self.evaluation_prompts]]

    def judged_by_text(self, text: str) -> EvaluationPrompt:
        """Return the evaluation prompt for a text with {} where the new word belongs, or with the word itself."""
        known = with_article(self.initializer_token)
        if SUBJECT_MARK in text:
            plain = text.replace(SUBJECT_MARK, known)
            return EvaluationPrompt(plain, text.replace(SUBJECT_MARK, self.placeholder_token), plain)
        word = NewWord(self.placeholder_token, self.vectors)
        if not any(occurrences(text, word)):
            raise ValueError(f'names what was learned neither by {SUBJECT_MARK} nor by its word "{word.text}"')
        asked = with_word(text, word)
        words_before = asked.partition(word.text)[0].lower().split()
        if words_before and words_before[-1] in DETERMINERS:  # "my <toy>" is "my owl"
            known = self.initializer_token
        plain = asked.replace(word.text, known)
        return EvaluationPrompt(plain, asked, plain)

    @property
    def texts(self) -> list[tuple[str, str]]:
        """The training prompts too."""
        training = [("vectors", template.format(self.placeholder_token)) for template in self.templates]
        return training + super().texts

    def vocabulary_faults(self, tokenizer: Tokenizer) -> list[Problem]:
        """Return why the placeholder or the initializer cannot be used."""
        faults = {
            "placeholder_token": placeholder_fault(tokenizer, self.placeholder_token, self.vectors),
            "initializer_token": initializer_fault(tokenizer, self.initializer_token),
        }
        problems = []
        for field, fault in faults.items():
            if fault is not None:
                what, fix = fault
                problems.append(Problem(where=field, what=what, fix=fix))
        return problems

    @property
    def trigger(self) -> str | None:
        """The placeholder token."""
        return self.placeholder_token
