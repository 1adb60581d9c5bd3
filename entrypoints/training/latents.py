"""From images to the distribution of their latents, encoded once or anew at each visit.

The autoencoder gives each latent a mean and a standard deviation, its "moments"; training draws from them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

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


class Cut(NamedTuple):
    """Where an image is cut to its size, from 0 (left, top) to 1 (right, bottom)."""

    across: float
    down: float


CENTRE = Cut(0.5, 0.5)


class Latents(Protocol):
    """The images of a stream as a source of latents."""

    sizes: Sequence[Size]
    """Of each image, in pixels."""
    groups: Sequence[Sequence[int]]
    """Indices of the images of each size: those of a forward pass have one size."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def cuts(self, visits: int, random: torch.Generator) -> list[Cut]:
        """Return where each of some visits cuts its image."""
        ...

    def moments_of(self, indices: Sequence[int], cuts: Sequence[Cut]) -> Tensor:
        """Return the moments of images of one size, each cut as said: (images, 2, channels, height, width)."""
        ...


class CachedLatents:
    """Images cut at their centre, encoded once."""

    def __init__(self, base: BaseModel, images: Sequence[CaptionedImage], sizes: Sequence[Size]) -> None:
        self.sizes = sizes
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

    def cuts(self, visits: int, random: torch.Generator) -> list[Cut]:  # noqa: ARG002 - nothing is random here
        """Return the centre, for each visit."""
        return [CENTRE] * visits

    def moments_of(self, indices: Sequence[int], cuts: Sequence[Cut]) -> Tensor:  # noqa: ARG002 - known already
        """Return the moments of images."""
        return torch.stack([self.moments[index] for index in indices])


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

    def cuts(self, visits: int, random: torch.Generator) -> list[Cut]:
        """Return another place for each visit, or the centre."""
        if not self.random_crop:
            return [CENTRE] * visits
        return [Cut(across, down) for across, down in torch.rand(visits, 2, generator=random).tolist()]

    def moments_of(self, indices: Sequence[int], cuts: Sequence[Cut]) -> Tensor:
        """Read, cut and encode images, and return their moments."""
        crops: list[Image.Image] = []
        for index, cut in zip(indices, cuts, strict=True):
            image = self._read(self.images[index].path)
            crops.append(crop(image, self.sizes[index], *cut))
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
