"""Pictures and captions: from files to latents, and which of them a step sees."""

import torch
from PIL import Image
from torch import Tensor

from entrypoints.models.stable_diffusion import BaseModel
from entrypoints.runtime.pictures import Picture, crop_square, read_image, to_tensor
from orchestrator.contract.recipe import Recipe


@torch.no_grad()
def encode_moments(base: BaseModel, images: list[Image.Image]) -> Tensor:
    """Return mean and standard deviation of each picture's latents, shape (pictures, 2, channels, height, width).

    Pictures go through the autoencoder one at a time: what one is encoded to does not depend on its neighbours.
    """
    moments = []
    with torch.autocast(base.device.type, enabled=False):  # half precision overflows in some autoencoders
        for image in images:
            posterior = base.vae.encode(to_tensor(image).to(base.device)).latent_dist
            moments.append(torch.stack([posterior.mean, posterior.std], dim=1))
    scaling_factor: float = base.vae.config.scaling_factor
    return torch.cat(moments) * scaling_factor


class CachedLatents:
    """Centre-cropped pictures, encoded once."""

    def __init__(self, base: BaseModel, pictures: list[Picture], side: int) -> None:
        self.moments = encode_moments(base, [crop_square(read_image(picture.path), side) for picture in pictures])

    def __len__(self) -> int:
        return len(self.moments)

    def moments_of(self, indices: list[int], generator: torch.Generator) -> Tensor:  # noqa: ARG002 - nothing is random here
        """Return the moments of some pictures: (batch, 2, channels, height, width)."""
        return self.moments[indices]


class RandomCrops:
    """Pictures cut at a place of their own each time, so encoded each time."""

    def __init__(self, base: BaseModel, pictures: list[Picture], side: int) -> None:
        self.base = base
        self.side = side
        self.images = [read_image(picture.path) for picture in pictures]

    def __len__(self) -> int:
        return len(self.images)

    def moments_of(self, indices: list[int], generator: torch.Generator) -> Tensor:
        """Return the moments of fresh crops of some pictures: (batch, 2, channels, height, width)."""
        places = torch.rand(len(indices), 2, generator=generator).tolist()
        pairs = zip(indices, places, strict=True)
        return encode_moments(self.base, [crop_square(self.images[i], self.side, *place) for i, place in pairs])


Latents = CachedLatents | RandomCrops


def latents_of(base: BaseModel, recipe: Recipe, pictures: list[Picture]) -> Latents:
    """Return the pictures as a source of latents, encoded once unless each visit is to be cut differently."""
    source = RandomCrops if recipe.random_crop else CachedLatents
    return source(base, pictures, recipe.resolution)
