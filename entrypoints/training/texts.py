"""Texts that would not teach the new word are refused before the first step, by the rules that a submit goes by."""

from collections.abc import Sequence

from entrypoints.models.base import BaseModel
from entrypoints.models.tokens import tokenizers_of
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage
from orchestrator.contract.events import Warned, emit
from orchestrator.contract.families import is_hub_id
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.text_length import length_problems
from orchestrator.contract.tokens import holds_word

MOST = 5
"""Texts that a message lists."""
CAPTIONS_ADVICE = "Put the word into each caption, or leave the captions out."
LENGTH_ADVICE = "Shorten these texts, then submit again."


def require_texts(base: BaseModel, recipe: Recipe, images: Sequence[CaptionedImage]) -> None:
    """Raise TrainingError("dataset") for captions without the new word, and for texts too long for it to be read.

    What else is too long is warned of. A submit has done all this where it could read the model's tokenizer.
    """
    tokenizers = tokenizers_of(base)
    word = recipe.new_word
    captions = []
    lacking = []
    for image in images:
        if image.caption is None:
            continue
        name = image.path.name
        captions.append((name, image.caption))
        if word is not None and not holds_word(tokenizers, image.caption, word):
            lacking.append(name)
    if word is not None and lacking:
        names = _listed(lacking)
        raise TrainingError("dataset", f'The captions of {names} lack "{word.text}".', CAPTIONS_ADVICE)
    found = length_problems(tokenizers, [*recipe.texts, *captions], word)
    if found.refused:
        texts = _listed([problem.render() for problem in found.refused], separator="; ")
        raise TrainingError("dataset", f"The new word would not be learned. {texts}", LENGTH_ADVICE)
    if found.warnings and is_hub_id(recipe.base_model):
        warnings = [problem.render() for problem in found.warnings]
        message = _listed(warnings, separator="; ")
        emit(Warned(message=message))


def require_captions(images: Sequence[CaptionedImage]) -> None:
    """Raise TrainingError("dataset") for images without a caption."""
    lacking = [image.path.name for image in images if not image.caption]
    if lacking:
        raise TrainingError(
            "dataset",
            f"These images have no caption: {_listed(lacking)}.",
            "Write a caption for each image into metadata.jsonl, then submit again.",
        )


def _listed(items: Sequence[str], separator: str = ", ") -> str:
    """Return the first few items, and how many more there are."""
    shown = separator.join(items[:MOST])
    more = len(items) - MOST
    return f"{shown} and {more} more" if more > 0 else shown
