"""Whether an image is in the sample style: a logistic regression on features of a network that has seen neither.

It is fitted on scenes that no training picture shows, drawn plainly and in ink, and is as good as its accuracy on
others of both kinds, which the page states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from entrypoints.evaluation.efficientnet import load_efficientnet
from entrypoints.runtime.pictures import read_image
from pretraining.pictures import draw
from pretraining.scenes import Scene, draw_scene, generator
from pretraining.style import inked

FITTED, HELD_OUT = 96, 96
"""Scenes of each kind."""
SIDE = 64
"""Of the pictures, as the built-in model draws, pixels."""
STEPS = 300
RATE = 0.1
DECAY = 1e-3


@dataclass(frozen=True)
class StyleScorer:
    """The fitted regression."""

    weight: Tensor
    """(features,)"""
    bias: Tensor
    """A scalar."""
    accuracy: float
    """On drawn scenes that it was not fitted on."""

    @classmethod
    @cache
    def of_drawn_scenes(cls) -> "StyleScorer":
        """Fit it."""
        scenes = [draw_scene(generator("style scorer", number)) for number in range(FITTED + HELD_OUT)]
        features, labels = examples(scenes[:FITTED])
        layer = nn.Linear(features.shape[1], 1)
        nn.init.zeros_(layer.weight)
        optimizer = torch.optim.Adam(layer.parameters(), lr=RATE, weight_decay=DECAY)
        for _ in range(STEPS):
            loss = nn.functional.binary_cross_entropy_with_logits(layer(features)[:, 0], labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        weight, bias = layer.weight[0].detach(), layer.bias[0].detach()
        others, right = examples(scenes[FITTED:])
        is_right = ((others @ weight + bias) > 0) == (right > 0)
        return cls(weight, bias, float(is_right.float().mean()))

    def probabilities(self, paths: Sequence[Path]) -> tuple[float, ...]:
        """Return for each image how likely it is in the style, from 0 to 1."""
        features = embed([read_image(path) for path in paths])
        return tuple(torch.sigmoid(features @ self.weight + self.bias).tolist())


def examples(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """Return features (2 x scenes, width) and labels (2 x scenes,): 1 in ink, 0 plain."""
    plain = [draw(scene, SIDE) for scene in scenes]
    ink = [inked(scene, SIDE) for scene in scenes]
    labels = torch.cat([torch.zeros(len(plain)), torch.ones(len(ink))])
    return embed([*plain, *ink]), labels


def embed(images: Sequence[Image.Image]) -> Tensor:
    """Return unit vectors of images, (images, width)."""
    return load_efficientnet(torch.device("cpu")).embed_images(images)
