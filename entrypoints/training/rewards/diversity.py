"""How different the images of one group are, in a feature space that no reward looks at."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from entrypoints.evaluation.efficientnet import load_efficientnet
from entrypoints.evaluation.spaces import Embeds
from entrypoints.runtime.failures import TrainingError

SIDE = 16
"""Images are compared so small where no network is at hand, in pixels: noise is no difference."""
LEVELS = 255
PIXELS = "pixels"
EFFICIENTNET = "EfficientNet-Lite0"


class FeatureSpace(NamedTuple):
    """What images are compared in."""

    name: str
    """What people call it."""
    network: Embeds | None
    """None for the pixels themselves."""

    def vectors(self, images: Sequence[Image.Image]) -> Tensor:
        """Return a vector of each image, (images, width); in pixels, one whose distances are of levels from 0 to 1."""
        if self.network is not None:
            return self.network.embed_images(images)
        rows = []
        for image in images:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
            levels = np.asarray(small, dtype=np.float32) / LEVELS
            rows.append(torch.from_numpy(levels).flatten())
        pixels = torch.stack(rows)
        length = math.sqrt(pixels.shape[1])
        return pixels / length  # the root of the mean square, not of the sum


def diversity_space(device: torch.device) -> FeatureSpace:
    """Return EfficientNet-Lite0, or the pixels where its packages are not installed."""
    try:
        return FeatureSpace(EFFICIENTNET, load_efficientnet(device))
    except (ModuleNotFoundError, TrainingError):
        return FeatureSpace(PIXELS, None)


def group_diversity(
    space: FeatureSpace,
    images: Sequence[Image.Image],
    groups: Sequence[int],
) -> dict[int, float]:
    """Return the mean distance of two images of each group; groups of one image are left out."""
    vectors = space.vectors(images)
    members: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    found = {}
    for group, places in members.items():
        if len(places) > 1:
            found[group] = float(nn.functional.pdist(vectors[places]).mean())
    return found
