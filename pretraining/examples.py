"""Collections of pictures and captions as arrays, each item drawn from `(seed, split, index)` alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from pretraining import textures
from pretraining.captions import caption
from pretraining.pictures import SIZE, draw
from pretraining.scenes import EVEN_MIX, HARD_MIX, Mix, Scene, chance, draw_scene, generator

PHOTO_OPENINGS = (
    "a photo",
    "a photo of a texture",
    "a photograph",
    "a picture",
    "a photo of nature",
    "a photo of an object",
)


@dataclass(frozen=True)
class Examples:
    """Pictures (count, 3, 64, 64) as uint8 and one caption each."""

    pictures: torch.Tensor
    captions: tuple[str, ...]


def drawn_scenes(seed: int, split: str, count: int, mix: Mix = EVEN_MIX, *, unseen: bool = False) -> Iterator[Scene]:
    """Yield the scenes of a split; `unseen` draws from the held-out combinations instead of training's."""
    for index in range(count):
        yield draw_scene(generator(seed, split, index), mix, unseen=unseen)


def drawn(seed: int, split: str, count: int, *, unseen: bool = False) -> Examples:
    """Return drawn pictures with captions."""
    scenes = list(drawn_scenes(seed, split, count, unseen=unseen))
    texts = tuple(caption(scene, generator(seed, split, index, "caption")) for index, scene in enumerate(scenes))
    return Examples(stacked([draw(scene) for scene in scenes]), texts)


def photographic(seed: int, split: str, count: int) -> Examples:
    """Return crops of photographs with plain captions ("a photo of a texture", "a photo of grass")."""
    pictures, texts = [], []
    for index in range(count):
        rng = generator(seed, split, index)
        picture, name = textures.photo_crop(rng)
        pictures.append(picture)
        texts.append(rng.choice(PHOTO_OPENINGS) if chance(rng, 0.5) else f"a photo of {name}")
    return Examples(stacked(pictures), tuple(texts))


def diet(seed: int, count: int) -> torch.Tensor:
    """Return the autoencoder's pictures (count, 3, 64, 64): drawn ones, photo crops, dead leaves and noise."""
    pictures = []
    for index in range(count):
        rng = generator(seed, "diet", index)
        kind = rng.choices(("drawn", "photo", "leaves", "noise"), (50, 38, 8, 4))[0]
        if kind == "drawn":
            pictures.append(draw(draw_scene(rng, HARD_MIX)))
        elif kind == "photo":
            pictures.append(textures.photo_crop(rng)[0])
        else:
            pictures.append(textures.dead_leaves(rng) if kind == "leaves" else textures.noise(rng))
    return stacked(pictures)


def stacked(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Return RGB pictures of one size as one uint8 tensor (count, 3, height, width)."""
    arrays = (
        np.stack([np.asarray(picture) for picture in pictures]) if pictures else np.zeros((0, SIZE, SIZE, 3), np.uint8)
    )
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()


def scaled(pictures: torch.Tensor) -> torch.Tensor:
    """Map uint8 pixels to floats from -1 to 1, the range that all networks here work in."""
    return pictures.float() / 127.5 - 1


def unscaled(pictures: torch.Tensor) -> torch.Tensor:
    """Map floats from -1 to 1 back to uint8 pixels; what lies outside is cut off."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
