"""The judge of prompt following: a small classifier of drawn pixels, trained apart from the CLIP and the denoiser.

It tells kind, colour and background colour from a picture's pixels alone. It sees drawn pictures only, blurred, noisy
and differently lit so that it judges generated pictures by the same measure.
"""

import itertools
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from pretraining.clip import disturbed
from pretraining.examples import drawn_scenes, scaled, stacked
from pretraining.pictures import draw
from pretraining.scenes import COLOURS, KINDS, Scene
from pretraining.training import StageSettings, fit, gradients_of, randomness

BLURRED_SHARE = 0.5
HEADS = {"kind": len(KINDS), "colour": len(COLOURS), "background": len(COLOURS)}


class Judge(nn.Module):
    """Four strided convolutions and one linear layer per question."""

    def __init__(self) -> None:
        """Build the untrained network (about 0.3 M parameters)."""
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for inside, outside in itertools.pairwise(widths):
            layers += [nn.Conv2d(inside, outside, 4, stride=2, padding=1), nn.GroupNorm(8, outside), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 128), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(128, size) for name, size in HEADS.items()})

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits (batch, answers) per question, for pictures (batch, 3, 64, 64) in -1..1."""
        features = self.body(pictures)
        return {name: head(features) for name, head in self.heads.items()}


def labels(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Return the right answer to each question about each scene."""
    names = tuple(COLOURS)
    return {
        "kind": torch.tensor([KINDS.index(scene.kind) for scene in scenes]),
        "colour": torch.tensor([names.index(scene.colour) for scene in scenes]),
        "background": torch.tensor([names.index(scene.background.colour) for scene in scenes]),
    }


def train_judge(settings: StageSettings, folder: Path, pictures: int) -> Judge:
    """Train on freshly drawn pictures of training's combinations; return the averaged network."""
    torch.manual_seed(settings.seed)
    network = Judge()
    scenes = list(drawn_scenes(settings.seed, "judge", pictures))
    pool, truth = stacked([draw(scene) for scene in scenes]), labels(scenes)

    def loss(step: int) -> torch.Tensor:
        source = randomness(settings, step)
        chosen = torch.randint(len(pool), (settings.batch,), generator=source)
        answers = network(blurred(disturbed(scaled(pool[chosen]), source), source))
        return torch.stack([functional.cross_entropy(answers[name], truth[name][chosen]) for name in HEADS]).sum()

    fit(network, settings, gradients_of(loss), folder)
    return network


def blurred(pictures: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Blur half of the pictures by a 3x3 mean, as an autoencoder would."""
    soft = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    chosen = torch.rand(len(pictures), 1, 1, 1, generator=source) < BLURRED_SHARE
    return torch.where(chosen, soft, pictures)


@torch.no_grad()
def verdicts(judge: Judge, pictures: torch.Tensor, scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Return, per question, which of the uint8 pictures (count, 3, 64, 64) show what their scene says."""
    answers = judge(scaled(pictures))
    return {name: answers[name].argmax(1) == right for name, right in labels(scenes).items()}
