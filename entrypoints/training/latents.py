"""From images to the distribution of their latents, encoded once or anew at each visit.

The autoencoder gives each latent a mean and a standard deviation, its "moments"; training draws from them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage, crop, cut_of, read_image
from orchestrator.contract.buckets import Size, bucket_sizes, nearest_size
from orchestrator.contract.events import Warned, emit
from orchestrator.contract.mixins import Denoising
from orchestrator.contract.plurals import counted

MOST_CACHED = 2 * 2**30
"""Bytes of latents, or of decoded images, that are kept. Those of a larger data set are made anew at each visit."""
_BYTES_A_PIXEL = 16
"""Most that the moments of a pixel take: an autoencoder halves the sides of a picture at least once."""


class Cut(NamedTuple):
    """Where an image is cut to its size, from 0 (left, top) to 1 (right, bottom)."""

    across: float
    """0: at the left edge, 0.5: in the middle, 1: at the right edge."""
    down: float
    """0: at the upper edge, 1: at the lower edge."""


CENTRE = Cut(0.5, 0.5)


class Views(NamedTuple):
    """Images as a forward pass is to learn them, all of one size; first dimension: the image."""

    moments: Tensor
    """Of their latents, (images, 2, channels, height, width)."""
    weights: Tensor | None
    """Of each place of the latents in the loss, (images, 1, height, width); None without masks."""
    framings: Tensor
    """How each was cut, (images, 4): height and width of the original, and pixels cut away at the top and left."""


def joined(views: Sequence[Views]) -> Views:
    """Return views of one size as one."""
    moments = []
    weights = []
    framings = []
    for view in views:
        moments.append(view.moments)
        framings.append(view.framings)
        if view.weights is not None:
            weights.append(view.weights)
    all_weights = None
    if weights:
        all_weights = torch.cat(weights)
    return Views(
        moments=torch.cat(moments),
        weights=all_weights,
        framings=torch.cat(framings),
    )


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

    def views_of(self, indices: Sequence[int], cuts: Sequence[Cut]) -> Views:
        """Return images of one size, each cut as said."""
        ...


class Viewer:
    """Cuts images to their sizes, and their masks with them."""

    def __init__(self, base: BaseModel, recipe: Denoising, most_kept: int) -> None:
        """Keep at most so many bytes of decoded images, for images that are viewed again."""
        self.base = base
        self.masked = recipe.masked_loss
        self.unmasked_weight = recipe.unmasked_weight
        self.most_kept = most_kept
        self._decoded: dict[Path, Image.Image] = {}
        self._decoded_bytes = 0

    def view(self, image: CaptionedImage, size: Size, cut: Cut = CENTRE) -> Views:
        """Return one image, cut to a size: the first dimension of its tensors is 1.

        Raises TrainingError("dataset") for a mask of another size than its image, and where a file cannot be read.
        """
        picture = self._read(image.path, "RGB")
        whole = Size(*picture.size)
        shown = crop(picture, size, *cut)
        moments = self.base.encode_images([shown])
        original = image.original or whole
        kept = cut_of(whole, size, *cut)
        numbers = [
            original.height,
            original.width,
            kept.top,
            kept.left,
        ]
        framing = torch.tensor([numbers], dtype=torch.float32)
        weights = None
        if self.masked:
            weights = self._weights(image, whole, size, cut, moments)
        return Views(moments, weights, framing.to(moments.device))

    def _weights(
        self,
        image: CaptionedImage,
        whole: Size,
        size: Size,
        cut: Cut,
        moments: Tensor,
    ) -> Tensor:
        """Return the weights of an image's latents by its mask, cut like the image, whose size is `whole`.

        They are of shape (1, 1, height, width), from `unmasked_weight` where the mask is black to 1 where it is white.
        """
        height, width = moments.shape[-2:]
        if image.mask is None:  # an image of the class
            return torch.ones(1, 1, height, width, device=moments.device)
        mask = self._read(image.mask, "L")
        if mask.size != whole:
            mask_size = f"{mask.width}x{mask.height}"
            image_size = f"{whole.width}x{whole.height}"
            raise TrainingError(
                "dataset",
                f"The mask {image.mask.name} is {mask_size}, and its image {image.path.name} {image_size}.",
                "Give each mask the size of its image, then submit again.",
            )
        shown = crop(mask, size, *cut)
        # Each place of the latents has the mean of the pixels that it stands for.
        small = shown.resize((width, height), Image.Resampling.BOX)
        values = np.asarray(small, dtype=np.float32) / 255
        weights = torch.from_numpy(values)
        weights = weights.clamp(min=self.unmasked_weight)
        return weights.to(moments.device).expand(1, 1, height, width)

    def _read(self, path: Path, mode: str) -> Image.Image:
        """Return a decoded image, in Pillow's mode; the first ones are kept, as many as fit."""
        kept = self._decoded.get(path)
        if kept is not None:
            return kept
        image = read_image(path, mode)
        bytes_a_pixel = len(image.getbands())
        self._decoded_bytes += bytes_a_pixel * image.width * image.height
        if self._decoded_bytes <= self.most_kept:
            self._decoded[path] = image
        return image


class CachedLatents:
    """Images cut at their centre, encoded once."""

    def __init__(self, viewer: Viewer, images: Sequence[CaptionedImage], sizes: Sequence[Size]) -> None:
        self.sizes = sizes
        self.groups = groups_of(sizes)
        known: dict[Path, Views] = {}  # an image that counts as several is there as often
        self.views: list[Views] = []
        for image, size in zip(images, sizes, strict=True):
            view = known.get(image.path)
            if view is None:
                view = viewer.view(image, size)
                known[image.path] = view
            self.views.append(view)
        _warn_of_lost_masks(known, viewer)

    def __len__(self) -> int:
        return len(self.views)

    def cuts(self, visits: int, random: torch.Generator) -> list[Cut]:  # noqa: ARG002 - nothing is random here
        """Return the centre, for each visit."""
        return [CENTRE] * visits

    def views_of(self, indices: Sequence[int], cuts: Sequence[Cut]) -> Views:  # noqa: ARG002 - known already
        """Return images."""
        chosen = [self.views[index] for index in indices]
        return joined(chosen)


def _warn_of_lost_masks(views: Mapping[Path, Views], viewer: Viewer) -> None:
    """Warn of images of which the white of the mask is cut away."""
    lost = []
    for path, view in views.items():
        if view.weights is None:
            continue
        is_white = view.weights > viewer.unmasked_weight
        if not is_white.any():
            lost.append(path.name)
    if lost:
        images = counted(len(lost), "image")
        message = (
            f"The white part of the mask lies outside what is cut from {images}, {lost[0]} first: "
            "submit again with -s buckets=true, which keeps the shape of images, or crop them to what matters."
        )
        emit(Warned(message=message))


class FreshLatents:
    """Images that are read and encoded at each visit: cut at another position each time, or too many to be kept."""

    def __init__(
        self,
        viewer: Viewer,
        images: Sequence[CaptionedImage],
        sizes: Sequence[Size],
        *,
        random_crop: bool,
    ) -> None:
        self.viewer = viewer
        self.images = images
        self.sizes = sizes
        self.groups = groups_of(sizes)
        self.random_crop = random_crop

    def __len__(self) -> int:
        return len(self.images)

    def cuts(self, visits: int, random: torch.Generator) -> list[Cut]:
        """Return another place for each visit, or the centre."""
        if not self.random_crop:
            return [CENTRE] * visits
        places = torch.rand(visits, 2, generator=random)
        cuts = []
        for across, down in places.tolist():
            cuts.append(Cut(across, down))
        return cuts

    def views_of(self, indices: Sequence[int], cuts: Sequence[Cut]) -> Views:
        """Read, cut and encode images; decoded ones are kept by the viewer, as many as fit."""
        views = []
        for index, cut in zip(indices, cuts, strict=True):
            image = self.images[index]
            size = self.sizes[index]
            view = self.viewer.view(image, size, cut)
            views.append(view)
        return joined(views)


def groups_of(sizes: Sequence[Size]) -> list[list[int]]:
    """Return the indices of the images of each size, in the order of the sizes."""
    by_size: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        same_size = by_size.setdefault(size, [])
        same_size.append(index)
    in_order = sorted(by_size)
    return [by_size[size] for size in in_order]


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
        sizes = []
        for image in images:
            shape = shapes[image.path]
            sizes.append(nearest_size(shape, choices))
    files = {image.path for image in images}
    pixels = len(files) * recipe.resolution**2
    is_too_large = pixels * _BYTES_A_PIXEL > MOST_CACHED
    if recipe.random_crop or is_too_large:
        viewer = Viewer(base, recipe, MOST_CACHED)
        return FreshLatents(viewer, images, sizes, random_crop=recipe.random_crop)
    viewer = Viewer(base, recipe, 0)
    return CachedLatents(viewer, images, sizes)


def pixel_step(base: BaseModel) -> int:
    """Return what the sides of a picture have to be multiples of: each level of a U-Net halves those of the one above.

    At least 8, where the model does not need more.
    """
    levels = len(base.denoiser.config.down_block_types)
    halvings = levels - 1
    step = base.pipeline.vae_scale_factor << halvings
    return max(8, step)


def shapes_of(images: Sequence[CaptionedImage]) -> Mapping[Path, Size]:
    """Return the size of each image file, from its header."""
    shapes = {}
    for image in images:
        if image.path in shapes:
            continue
        with Image.open(image.path) as opened:
            width, height = opened.size
        shapes[image.path] = Size(width, height)
    return shapes
