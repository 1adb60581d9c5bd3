"""The judge of prompt following: a classifier of drawn pixels, trained apart from the CLIP and the denoiser.

It answers a few of the questions of `pretraining.attributes` from pixels alone. It sees drawn pictures only, blurred,
noisy and differently lit so that it judges generated pictures by the same measure.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from pretraining.attributes import QUESTIONS, answers
from pretraining.clip import disturbed
from pretraining.examples import drawn_scenes, scaled, stacked
from pretraining.machine import autocast, device
from pretraining.pictures import draw
from pretraining.scenes import Mix, Scene
from pretraining.training import StageSettings, fit, gradients_in_parts, randomness

BLURRED_SHARE = 0.5
ASKED = ("kind", "colour", "ground", "eyes", "top")
MIX = Mix(monsters=0.6, shape_sizes=(1, 2, 1), monster_sizes=(1, 2, 1))
"""Monsters have the more difficult questions."""
WIDTHS = (3, 32, 64, 128, 192)
PARTS = 2  # of a batch, each with its own thread
JUDGED_AT_ONCE = 256


class Judge(nn.Module):
    """Four strided and four plain convolutions in turns, and one linear layer per question."""

    def __init__(self) -> None:
        """Build the untrained network (about 1.6 M parameters)."""
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in itertools.pairwise(WIDTHS):
            layers += [nn.Conv2d(inside, outside, 4, stride=2, padding=1), nn.GroupNorm(8, outside), nn.SiLU()]
            layers += [nn.Conv2d(outside, outside, 3, padding=1), nn.GroupNorm(8, outside), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * 16, 192), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(192, len(QUESTIONS[name])) for name in ASKED})

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits (batch, answers) per question, for pictures (batch, 3, 64, 64) in -1..1."""
        features = self.body(pictures)
        return {name: head(features) for name, head in self.heads.items()}


def labels(scenes: Sequence[Scene]) -> dict[str, torch.Tensor]:
    """Return the number of the right answer to each question about each scene."""
    truth = torch.tensor([answers(scene) for scene in scenes])
    names = list(QUESTIONS)
    return {name: truth[:, names.index(name)] for name in ASKED}


def train_judge(settings: StageSettings, folder: Path, pictures: int) -> Judge:
    """Train on drawn pictures of training's combinations; return the averaged network."""
    torch.manual_seed(settings.seed)
    network = Judge().to(device())
    scenes = list(drawn_scenes(settings.seed, "judge", pictures, MIX))
    pool, truth = stacked([draw(scene) for scene in scenes]), labels(scenes)

    def loss(chosen: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        with autocast():
            logits = network(pictures.to(device()))
        errors = []
        for name in ASKED:
            right = truth[name][chosen].to(device())
            errors.append(functional.cross_entropy(logits[name].float(), right))
        return torch.stack(errors).sum()

    def losses(step: int) -> list[Callable[[], torch.Tensor]]:
        source = randomness(settings, step)
        chosen = torch.randint(len(pool), (settings.batch,), generator=source)
        seen = blurred(disturbed(scaled(pool[chosen]), source), source)
        size = settings.batch // PARTS
        pairs = zip(chosen.split(size), seen.split(size), strict=True)
        return [partial(loss, *pair) for pair in pairs]

    fit(network, settings, gradients_in_parts(network, losses), folder)
    return network.cpu()


def blurred(pictures: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Blur half of the pictures by a 3x3 mean, as an autoencoder would."""
    soft = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    chosen = torch.rand(len(pictures), 1, 1, 1, generator=source) < BLURRED_SHARE
    return torch.where(chosen, soft, pictures)


@torch.no_grad()
def verdicts(judge: Judge, pictures: torch.Tensor, scenes: Sequence[Scene]) -> dict[str, torch.Tensor]:
    """Return, per question, which of the uint8 pictures (count, 3, 64, 64) show what their scene says."""
    truth, right = labels(scenes), {name: [] for name in ASKED}
    for first in range(0, len(scenes), JUDGED_AT_ONCE):
        part = slice(first, first + JUDGED_AT_ONCE)
        logits = judge(scaled(pictures[part]))
        for name in ASKED:
            right[name].append(logits[name].argmax(1) == truth[name][part])
    return {name: torch.cat(found) for name, found in right.items()}
