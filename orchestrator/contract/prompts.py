"""Prompts to train and to judge by: contexts that ask for the subject where it was never photographed."""

from collections.abc import Iterable
from typing import NamedTuple

# The words of the built-in model: plain colours, patterns, sizes.
BUILTIN_CONTEXTS = (
    "a photo of {} on a red background",
    "a photo of {} on a black background",
    "a photo of {} on an orange background",
    "a photo of {} on a striped red background",
    "a photo of {} on a dotted yellow background",
    "a photo of {} on a checkered blue background",
    "a photo of {} on a yellow background",
    "a photo of {} on a striped green background",
    "a photo of {} on a dotted black background",
    "a photo of {} on a checkered purple background",
    "a drawing of {} on a pink background",
    "a picture of {} on a striped blue background",
    "a drawing of {} on a checkered green background",
    "a picture of {} on a dotted red background",
    "a photo of {} on a gradient orange background",
    "a painting of {} on a checkered black background",
)
PHOTO_CONTEXTS = (
    "a photo of {} on a beach at sunset",
    "a photo of {} in deep snow",
    "a photo of {} in front of a brick wall",
    "a photo of {} on a wooden kitchen table",
    "a photo of {} in a field of yellow flowers",
    "a photo of {} beside a mountain lake",
    "an oil painting of {}",
    "a pencil sketch of {}",
    "a photo of {} in a crowded street at night",
    "a photo of {} on a red carpet",
    "a photo of {} inside a library",
    "a photo of {} under autumn trees",
    "a photo of {} in a boat",
    "a watercolour of {}",
    "a close-up photo of {} in the rain",
    "a photo of {} on a stone staircase",
)
BUILTIN_STYLE_CONTEXTS = (
    "a picture of a red circle in the style of {}",
    "a picture of a green circle in the style of {}",
    "a picture of a blue circle in the style of {}",
    "a picture of a yellow circle in the style of {}",
    "a picture of a red star in the style of {}",
    "a picture of a green star in the style of {}",
    "a picture of a blue star in the style of {}",
    "a picture of a yellow star in the style of {}",
    "a picture of a red heart in the style of {}",
    "a picture of a green heart in the style of {}",
    "a picture of a blue heart in the style of {}",
    "a picture of a yellow heart in the style of {}",
    "a picture of a red monster in the style of {}",
    "a picture of a green monster in the style of {}",
    "a picture of a blue monster in the style of {}",
    "a picture of a yellow monster in the style of {}",
)
PHOTO_STYLE_CONTEXTS = (
    "a cat in the style of {}",
    "a castle in the style of {}",
    "a bicycle in the style of {}",
    "a forest in the style of {}",
    "a teapot in the style of {}",
    "a portrait of a woman in the style of {}",
    "a fishing boat in the style of {}",
    "a city street in the style of {}",
    "a horse in the style of {}",
    "a mountain lake in the style of {}",
    "a vase of flowers in the style of {}",
    "a train station in the style of {}",
    "a bowl of fruit in the style of {}",
    "a lighthouse in the style of {}",
    "a violin in the style of {}",
    "a garden in the style of {}",
)

BUILTIN_OBJECT_TEMPLATES = (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "a good photo of {}",
    "a photo of my {}",
    "a photo of the {}",
    "the photo of {}",
)
PHOTO_OBJECT_TEMPLATES = (
    "a photo of {}",
    "a photo of the {}",
    "a close-up photo of {}",
    "a bright photo of the {}",
    "a dark photo of {}",
    "a cropped photo of the {}",
    "a good picture of {}",
    "a picture showing my {}",
)
STYLE_TEMPLATES = (
    "a picture in the style of {}",
    "a painting in the style of {}",
    "a drawing in the style of {}",
    "a photo in the style of {}",
    "an image in the style of {}",
)


SUBJECT_MARK = "{}"
"""Stands for the subject in a prompt that somebody writes for an evaluation."""


class EvaluationPrompt(NamedTuple):
    """One prompt to judge an adapter by, in the words that each of its readers knows."""

    before: str
    """As the base model is asked."""
    after: str
    """As the tuned model is asked."""
    text: str
    """As CLIP reads it: without the subject's own word."""


def contexts(*, builtin: bool, style: bool = False) -> tuple[str, ...]:
    """Return the evaluation contexts that suit the built-in model, or models of photos."""
    if style:
        return BUILTIN_STYLE_CONTEXTS if builtin else PHOTO_STYLE_CONTEXTS
    return BUILTIN_CONTEXTS if builtin else PHOTO_CONTEXTS


def unrelated(*, builtin: bool, without: Iterable[str]) -> list[str]:
    """Return prompts that have nothing to do with what an adapter has learned: none of the words `without` is in them.

    They are the contexts of a style, without the style.
    """
    found = []
    for context in contexts(builtin=builtin, style=True):
        text = context.partition(" in the style of ")[0]
        if not set(text.lower().split()).intersection(without):
            found.append(text)
    return found


def templates(*, builtin: bool, style: bool = False) -> tuple[str, ...]:
    """Return the training prompts of a new word for a thing or a style."""
    if style:
        return STYLE_TEMPLATES
    return BUILTIN_OBJECT_TEMPLATES if builtin else PHOTO_OBJECT_TEMPLATES
