"""Pictures without an object that teach the autoencoder what photographs are made of: dead leaves, noise, photo crops.

The photographs are those that scikit-image ships (public domain or CC0, see its data/README); every one is cropped,
reduced, flipped, recoloured and lit anew each time it is used.
"""

import math
import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from pretraining.canvas import Colour
from pretraining.pictures import SIZE
from pretraining.scenes import chance

PHOTOGRAPHS = {
    "astronaut": "a person",
    "chelsea": "a cat",
    "coffee": "a cup of coffee",
    "rocket": "a rocket",
    "hubble_deep_field": "stars",
    "retina": "an eye",
    "immunohistochemistry": "tissue",
    "camera": "a man",
    "brick": "a brick wall",
    "grass": "grass",
    "gravel": "gravel",
    "coins": "coins",
    "moon": "the moon",
}


@cache
def photograph(name: str) -> Image.Image:
    """Return one of scikit-image's photographs in RGB."""
    return Image.fromarray(getattr(data, name)()).convert("RGB")


def photo_crop(rng: random.Random, size: int = SIZE) -> tuple[Image.Image, str]:
    """Return a square crop of a photograph, at any scale from pixels to the whole, and what the photograph shows."""
    name = rng.choice(tuple(PHOTOGRAPHS))
    photo = photograph(name)
    side = round(math.exp(rng.uniform(math.log(1.5 * size), math.log(min(photo.size)))))
    left, top = rng.randint(0, photo.width - side), rng.randint(0, photo.height - side)
    crop = photo.resize(
        (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side), reducing_gap=3
    )
    crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if chance(rng, 0.5) else crop
    return recoloured(crop, rng), PHOTOGRAPHS[name]


def recoloured(image: Image.Image, rng: random.Random) -> Image.Image:
    """Change light and contrast, and for half of the pictures mix the colour channels a little or exchange them."""
    pixels = np.asarray(image, np.float32) / 255
    if chance(rng, 0.5):
        pixels = pixels[..., rng.sample(range(3), 3)]
    cast = np.array([rng.uniform(0.85, 1.15) for _ in range(3)], np.float32)
    pixels = np.clip(pixels, 0, 1) ** rng.uniform(0.7, 1.4) * cast
    pixels = (pixels - 0.5) * rng.uniform(0.8, 1.3) + 0.5 + rng.uniform(-0.1, 0.1)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def dead_leaves(rng: random.Random, size: int = SIZE) -> Image.Image:
    """Return a dead-leaves picture: overlapping discs and rectangles whose radii follow a power law, as in nature.

    Source: Lee, Mumford, Huang, "Occlusion models for natural images", IJCV 2001; for learning, Baradad et al. 2021.
    """
    large = size * 2
    palette = [random_colour(rng) for _ in range(rng.randint(4, 30))]
    image = Image.new("RGB", (large, large), palette[0])
    draw = ImageDraw.Draw(image)
    smallest = rng.choice((1.5, 3, 6))
    for _ in range(rng.randint(80, 500)):
        radius = min(smallest / math.sqrt(1 - rng.random() * 0.999), large * 0.6)
        x, y, turn = rng.uniform(0, large), rng.uniform(0, large), rng.uniform(0, math.pi)
        if chance(rng, 0.5):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rng.choice(palette))
        else:
            narrow = radius * rng.uniform(0.2, 1)
            cos, sin = math.cos(turn), math.sin(turn)
            corners = ((radius, narrow), (-radius, narrow), (-radius, -narrow), (radius, -narrow))
            draw.polygon([(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in corners], fill=rng.choice(palette))
    return image.reduce(2)


def noise(rng: random.Random, size: int = SIZE) -> Image.Image:
    """Return coloured noise whose spectrum falls with frequency as that of photographs does (1/f to 1/f^2)."""
    source = np.random.default_rng(rng.getrandbits(64))
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    fall = np.maximum(np.hypot(fx, fy), 1 / size) ** -rng.uniform(0.8, 2)
    waves = source.normal(size=(3, size, size // 2 + 1)) + 1j * source.normal(size=(3, size, size // 2 + 1))
    grey = rng.uniform(0.3, 0.95)  # channels of photographs are much alike
    waves = grey * waves[:1] + (1 - grey) * waves
    field = np.fft.irfft2(waves * fall, s=(size, size))
    field = (
        field / field.std() * rng.uniform(0.08, 0.25)
        + np.array([rng.uniform(0.2, 0.8) for _ in range(3)])[:, None, None]
    )
    return Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def random_colour(rng: random.Random) -> Colour:
    """Return a colour: half are greyish as in photographs, half anything."""
    if chance(rng, 0.5):
        grey = rng.uniform(0, 255)
        red, green, blue = (max(0, min(255, round(grey + rng.gauss(0, 25)))) for _ in range(3))
        return red, green, blue
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)
