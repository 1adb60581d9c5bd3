"""What a ControlNet is shown of each training picture: a map of it, or the picture that lies beside it.

Maps are made of the picture as it is cut for training, so that every line of a map lies where the picture has it. At
most MOST_KEPT bytes of condition pictures are kept; those of a larger data set are made anew at each visit.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from entrypoints.conditions.shown import bytes_of, condition_of, from_bytes
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.latents import CENTRE, Cut
from orchestrator.contract.buckets import Size
from orchestrator.contract.datasets import CONDITIONS_FOLDER
from orchestrator.contract.recipes.controlnet import ControlNet

MOST_KEPT = 2**30
"""Bytes, three a pixel."""
MOST_NAMED = 5
"""Pictures that a message names."""


class ConditionPictures:
    """The condition pictures of a stream's images."""

    def __init__(self, recipe: ControlNet, images: Sequence[CaptionedImage], sizes: Sequence[Size]) -> None:
        self.recipe = recipe
        self.images = images
        self.sizes = sizes
        self._kept: dict[tuple[Path, str], Tensor] = {}
        self._kept_bytes = 0

    def kinds_of(self, visits: int, random: torch.Generator) -> list[str | None]:
        """Draw which kind of condition each visit shows, and whether it shows one at all."""
        kinds = self.recipe.conditions
        chosen = torch.randint(len(kinds), (visits,), generator=random)
        dropped = torch.rand(visits, generator=random) < self.recipe.condition_dropout
        found: list[str | None] = []
        for number, is_dropped in zip(chosen.tolist(), dropped.tolist(), strict=True):
            kind: str | None = kinds[number]
            if is_dropped:
                kind = None
            found.append(kind)
        return found

    def pictures_of(self, indices: Sequence[int], cuts: Sequence[Cut], kinds: Sequence[str | None]) -> Tensor:
        """Return the conditions of images of one size, cut as the images are: (images, 3, height, width), 0 to 1.

        Where none is shown, the picture is black.
        """
        pictures = []
        for index, cut, kind in zip(indices, cuts, kinds, strict=True):
            pictures.append(self._bytes_of(index, cut, kind))
        return from_bytes(pictures)

    def _bytes_of(self, index: int, cut: Cut, kind: str | None) -> Tensor:
        """Return one condition as bytes, (3, height, width)."""
        size = self.sizes[index]
        if kind is None:
            return torch.zeros(3, size.height, size.width, dtype=torch.uint8)
        image = self.images[index]
        key = (image.path, kind)
        is_fixed = cut == CENTRE
        if is_fixed and key in self._kept:
            return self._kept[key]
        shown = condition_of(image, size, kind, *cut)
        pixels = bytes_of(shown)
        bytes_then = self._kept_bytes + pixels.numel()
        if is_fixed and bytes_then <= MOST_KEPT:
            self._kept[key] = pixels
            self._kept_bytes = bytes_then
        return pixels


def require_conditions(recipe: ControlNet, images: Sequence[CaptionedImage]) -> None:
    """Raise TrainingError("dataset") for images without a condition, where conditions are given."""
    if not recipe.reads_conditions:
        return
    lacking = [image.path.name for image in images if image.condition is None]
    if not lacking:
        return
    named = ", ".join(lacking[:MOST_NAMED])
    more = len(lacking) - MOST_NAMED
    if more > 0:
        named = f"{named} and {more} more"
    raise TrainingError(
        "dataset",
        f"These images have no condition in {CONDITIONS_FOLDER}/: {named}.",
        "Add a picture of the same name for each, or have conditions computed: -s 'conditions=[\"canny\"]'.",
    )
