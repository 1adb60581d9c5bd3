"""From the captions of a data set to the prompts of each visit."""

from collections.abc import Sequence

import torch

from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.denoising import PromptsOf
from orchestrator.contract.mixins import Captioned

SEPARATOR = ", "


def caption_prompts(recipe: Captioned, images: Sequence[CaptionedImage]) -> PromptsOf:
    """Return the prompts of the images: their captions, in the form of each visit.

    What is random is drawn for every image, so that it does not depend on what the others get.
    """

    def prompts_of(indices: list[int], random: torch.Generator) -> list[str]:
        dropped = torch.rand(len(indices), generator=random) < recipe.caption_dropout
        prompts = []
        for index, is_dropped in zip(indices, dropped.tolist(), strict=True):
            caption = images[index].caption or ""
            if recipe.shuffle_tags:
                caption = shuffled(caption, recipe.kept_tags, random)
            prompts.append("" if is_dropped else recipe.with_trigger(caption))
        return prompts

    return prompts_of


def shuffled(caption: str, kept: int, random: torch.Generator) -> str:
    """Return a caption with its parts between commas in a random order behind the first `kept`."""
    tags = [tag.strip() for tag in caption.split(",")]
    others = tags[kept:]
    order = torch.randperm(len(others), generator=random).tolist()
    return SEPARATOR.join(tags[:kept] + [others[place] for place in order])


def repeated(images: Sequence[CaptionedImage]) -> list[CaptionedImage]:
    """Return each image as often as it counts."""
    found = []
    for image in images:
        found += [image] * image.repeats
    return found


def different_captions(images: Sequence[CaptionedImage]) -> list[str]:
    """Return the captions, each once, in the order of the images."""
    captions = [image.caption for image in images if image.caption]
    return list(dict.fromkeys(captions))
