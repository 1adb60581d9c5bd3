"""From images to the distribution of their latents, encoded once or cropped differently at each visit.

The autoencoder gives each latent a mean and a standard deviation, its "moments"; training draws from them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from entrypoints.models.base import BaseModel
from entrypoints.runtime.pictures import CaptionedImage, crop_square, read_image
from orchestrator.contract.recipe import Denoising


class CachedLatents:
    """Centre-cropped images, encoded once."""

    def __init__(
        self,
        base: BaseModel,
        images: Sequence[CaptionedImage],
        side: int,
    ) -> None:
        crops = []
        for image in images:
            pixels = read_image(image.path)
            crops.append(crop_square(pixels, side))
        self.moments = base.encode_images(crops)

    def __len__(self) -> int:
        return len(self.moments)

    def moments_of(
        self,
        indices: list[int],
        random: torch.Generator,  # noqa: ARG002 - nothing is random here
        share: slice,
    ) -> Tensor:
        """Return the moments of a share of the images: (images, 2, channels, height, width)."""
        return self.moments[indices[share]]


class RandomCrops:
    """Images cropped at another position each time, so encoded each time."""

    def __init__(
        self,
        base: BaseModel,
        images: Sequence[CaptionedImage],
        side: int,
    ) -> None:
        self.base = base
        self.side = side
        self.images = [read_image(image.path) for image in images]

    def __len__(self) -> int:
        return len(self.images)

    def moments_of(
        self,
        indices: list[int],
        random: torch.Generator,
        share: slice,
    ) -> Tensor:
        """Return the moments of new crops of a share of the images: (images, 2, channels, height, width).

        The positions of all crops are drawn, so that a share's do not depend on how many ranks there are.
        """
        positions = torch.rand(len(indices), 2, generator=random).tolist()
        crops = []
        for index, (across, down) in zip(indices[share], positions[share], strict=True):
            image = self.images[index]
            crops.append(crop_square(image, self.side, across, down))
        return self.base.encode_images(crops)


Latents = CachedLatents | RandomCrops


def latents_of(
    base: BaseModel,
    recipe: Denoising,
    images: Sequence[CaptionedImage],
) -> Latents:
    """Return the images as a source of latents at the recipe's resolution.

    Images are encoded once, here, unless the recipe crops them differently at each visit.
    """
    if recipe.random_crop:
        return RandomCrops(base, images, recipe.resolution)
    return CachedLatents(base, images, recipe.resolution)
