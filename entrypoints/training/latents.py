"""From images to the distribution of their latents, encoded once or anew at each visit.

The autoencoder gives each latent a mean and a standard deviation, its "moments"; training draws from them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from entrypoints.models.base import BaseModel
from entrypoints.runtime.pictures import CaptionedImage, crop, read_image
from orchestrator.contract.buckets import Size, bucket_sizes, nearest_size
from orchestrator.contract.recipe import Denoising

MOST_CACHED = 2 * 2**30
"""Bytes of latents, or of decoded images, that are kept. Those of a larger data set are made anew at each visit."""
_BYTES_A_PIXEL = 16
"""Most that the moments of a pixel take: an autoencoder halves the sides of a picture at least once."""


class Latents(Protocol):
    """The images of a stream as a source of latents."""

    groups: Sequence[Sequence[int]]
    """Indices of the images of each size: those of a forward pass have one size."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def moments_of(self, indices: list[int], random: torch.Generator, share: slice) -> Tensor:
        """Return the moments of a share of the images, which have one size: (images, 2, channels, height, width)."""
        ...


class CachedLatents:
    """Images cut at their centre, encoded once."""

    def __init__(self, base: BaseModel, images: Sequence[CaptionedImage], sizes: Sequence[Size]) -> None:
        self.groups = groups_of(sizes)
        known: dict[Path, Tensor] = {}  # an image that counts as several is there as often
        self.moments: list[Tensor] = []
        for image, size in zip(images, sizes, strict=True):
            if image.path not in known:
                pixels = crop(read_image(image.path), size)
                known[image.path] = base.encode_images([pixels])[0]
            self.moments.append(known[image.path])

    def __len__(self) -> int:
        return len(self.moments)

    def moments_of(
        self,
        indices: list[int],
        random: torch.Generator,  # noqa: ARG002 - nothing is random here
        share: slice,
    ) -> Tensor:
        """Return the moments of a share of the images."""
        return torch.stack([self.moments[index] for index in indices[share]])


class FreshLatents:
    """Images that are read and encoded at each visit: cut at another position each time, or too many to be kept."""

    def __init__(
        self,
        base: BaseModel,
        images: Sequence[CaptionedImage],
        sizes: Sequence[Size],
        *,
        random_crop: bool,
    ) -> None:
        self.base = base
        self.images = images
        self.sizes = sizes
        self.groups = groups_of(sizes)
        self.random_crop = random_crop
        self._decoded: dict[Path, Image.Image] = {}
        self._decoded_bytes = 0

    def __len__(self) -> int:
        return len(self.images)

    def moments_of(self, indices: list[int], random: torch.Generator, share: slice) -> Tensor:
        """Return the moments of a share of the images.

        The positions of all crops are drawn, so that a share's do not depend on how many ranks there are.
        """
        positions = [[0.5, 0.5]] * len(indices)
        if self.random_crop:
            positions = torch.rand(len(indices), 2, generator=random).tolist()
        crops: list[Image.Image] = []
        for index, (across, down) in zip(indices[share], positions[share], strict=True):
            image = self._read(self.images[index].path)
            crops.append(crop(image, self.sizes[index], across, down))
        return self.base.encode_images(crops)

    def _read(self, path: Path) -> Image.Image:
        """Return a decoded image; the first ones are kept, as many as fit."""
        kept = self._decoded.get(path)
        if kept is not None:
            return kept
        image = read_image(path)
        self._decoded_bytes += 3 * image.width * image.height
        if self._decoded_bytes <= MOST_CACHED:
            self._decoded[path] = image
        return image


def groups_of(sizes: Sequence[Size]) -> list[list[int]]:
    """Return the indices of the images of each size, in the order of the sizes."""
    by_size: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        by_size.setdefault(size, []).append(index)
    return [by_size[size] for size in sorted(by_size)]


def latents_of(
    base: BaseModel,
    recipe: Denoising,
    images: Sequence[CaptionedImage],
) -> Latents:
    """Return the images as a source of latents at the recipe's resolution.

    Images are encoded once, here, unless the recipe cuts them differently at each visit or there are too many.
    """
    square = Size(recipe.resolution, recipe.resolution)
    sizes = [square] * len(images)
    if recipe.buckets:
        choices = bucket_sizes(recipe.resolution, pixel_step(base))
        shapes = shapes_of(images)
        sizes = [nearest_size(shapes[image.path], choices) for image in images]
    different = len({image.path for image in images})
    is_too_large = different * recipe.resolution**2 * _BYTES_A_PIXEL > MOST_CACHED
    if recipe.random_crop or is_too_large:
        return FreshLatents(base, images, sizes, random_crop=recipe.random_crop)
    return CachedLatents(base, images, sizes)


def pixel_step(base: BaseModel) -> int:
    """Return what the sides of a picture have to be multiples of: each level of a U-Net halves those of the one above.

    At least 8, where the model does not need more.
    """
    halvings = len(base.denoiser.config.down_block_types) - 1
    return max(8, base.pipeline.vae_scale_factor << halvings)


def shapes_of(images: Sequence[CaptionedImage]) -> Mapping[Path, Size]:
    """Return the size of each image file, from its header."""
    shapes = {}
    for image in images:
        if image.path not in shapes:
            with Image.open(image.path) as opened:
                shapes[image.path] = Size(*opened.size)
    return shapes
