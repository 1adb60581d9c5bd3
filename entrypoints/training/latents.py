"""From pictures to latents, encoded once or cut differently at each visit."""

from collections.abc import Sequence

import torch
from torch import Tensor

from entrypoints.models.base import BaseModel
from entrypoints.runtime.pictures import Picture, crop_square, read_image
from orchestrator.contract.recipe import Denoising


class CachedLatents:
    """Centre-cropped pictures, encoded once."""

    def __init__(self, base: BaseModel, pictures: Sequence[Picture], side: int) -> None:
        self.moments = base.encode_images([crop_square(read_image(picture.path), side) for picture in pictures])

    def __len__(self) -> int:
        return len(self.moments)

    def moments_of(self, indices: list[int], random: torch.Generator, share: slice) -> Tensor:  # noqa: ARG002 - nothing is random here
        """Return the moments of a share of the pictures: (pictures, 2, channels, height, width)."""
        return self.moments[indices[share]]


class RandomCrops:
    """Pictures cut at another position each time, so encoded each time."""

    def __init__(self, base: BaseModel, pictures: Sequence[Picture], side: int) -> None:
        self.base = base
        self.side = side
        self.images = [read_image(picture.path) for picture in pictures]

    def __len__(self) -> int:
        return len(self.images)

    def moments_of(self, indices: list[int], random: torch.Generator, share: slice) -> Tensor:
        """Return the moments of fresh crops of a share of the pictures: (pictures, 2, channels, height, width).

        The positions of all crops are drawn, so that a share's do not depend on how many ranks there are.
        """
        positions = torch.rand(len(indices), 2, generator=random).tolist()
        crops = []
        for index, (across, down) in zip(indices[share], positions[share], strict=True):
            crops.append(crop_square(self.images[index], self.side, across, down))
        return self.base.encode_images(crops)


Latents = CachedLatents | RandomCrops


def latents_of(base: BaseModel, recipe: Denoising, pictures: Sequence[Picture]) -> Latents:
    """Return the pictures as a source of latents, encoded once unless each visit is to be cut differently."""
    if recipe.random_crop:
        return RandomCrops(base, pictures, recipe.resolution)
    return CachedLatents(base, pictures, recipe.resolution)
