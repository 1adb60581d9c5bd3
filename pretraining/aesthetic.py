"""The head of the aesthetic reward for the built-in model: how colourful a picture is, read from CLIP's embedding.

`python -m pretraining.aesthetic` makes it. What is beautiful is nothing that drawn shapes could teach; what colourful
means has a definition that agrees with people's judgement (Hasler and Suesstrunk 2003, doi 10.1117/12.477378).
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance
from safetensors.torch import save_file

from entrypoints.evaluation.metrics import ClipScorer, clip_scorer
from entrypoints.models.loading import load_base_model
from orchestrator.contract.linear_head import HEAD_FILE
from orchestrator.resources import AESTHETIC_HEAD, BUILTIN_MODEL
from pretraining.pictures import draw
from pretraining.scenes import draw_scene, generator

PICTURES = 4000
HELD_OUT = 1000
SATURATION = (0.0, 1.6)
"""Factors by which the colours of a picture are made stronger or weaker, so that each has many versions."""
CONTRAST = (0.5, 1.3)
RIDGE = 1e-3
"""Weight of the squared weights beside the mean squared error."""
POINT = 10.0
"""Colourfulness of one point: the scores are then about as large as those of other aesthetic predictors, 1 to 10."""


class Fit(NamedTuple):
    """A head, and how well it does on pictures that it was not fitted to."""

    weight: torch.Tensor
    """(1, width)."""
    bias: torch.Tensor
    """(1,)."""
    explained: float
    """Share of the variance of the held-out pictures' colourfulness (R squared)."""
    deviation: float
    """Standard deviation of the held-out pictures' colourfulness, in points."""


def colourfulness(image: Image.Image) -> float:
    """Return Hasler and Suesstrunk's M3: 0 for grey, about 15 slightly, 45 quite and 80 highly colourful."""
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.float64), 2, 0)
    red_green = red - green
    yellow_blue = (red + green) / 2 - blue
    deviation = np.hypot(red_green.std(), yellow_blue.std())
    mean = np.hypot(red_green.mean(), yellow_blue.mean())
    return float(deviation + 0.3 * mean)


def examples(seed: int, split: str, count: int) -> list[Image.Image]:
    """Return drawn pictures, their colours stronger or weaker."""
    pictures = []
    for index in range(count):
        random = generator(seed, split, index)
        picture = draw(draw_scene(random))
        picture = ImageEnhance.Color(picture).enhance(random.uniform(*SATURATION))
        pictures.append(ImageEnhance.Contrast(picture).enhance(random.uniform(*CONTRAST)))
    return pictures


def fit(scorer: ClipScorer, seed: int = 0, pictures: int = PICTURES, held_out: int = HELD_OUT) -> Fit:
    """Fit a head by ridge regression on the embeddings of drawn pictures."""
    inputs, wanted = _measured(scorer, examples(seed, "aesthetic", pictures))
    middle = inputs.mean(dim=0)
    mean = wanted.mean()
    centred = inputs - middle
    covariance = centred.T @ centred / len(inputs)
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    weight = torch.linalg.solve(covariance, centred.T @ (wanted - mean) / len(inputs))
    bias = mean - middle @ weight
    unseen, truth = _measured(scorer, examples(seed, "aesthetic, held out", held_out))
    error = (unseen @ weight + bias - truth).square().mean()
    explained = 1 - float(error / truth.var(unbiased=False))
    return Fit(weight.float().unsqueeze(0), bias.float().unsqueeze(0), explained, float(truth.std()))


def _measured(scorer: ClipScorer, pictures: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embeddings of pictures and their colourfulness in points, in double precision."""
    embeddings = scorer.embed_images(pictures).double()
    colours = torch.tensor([colourfulness(picture) for picture in pictures], dtype=torch.float64)
    return embeddings, colours / POINT


def main() -> None:
    """Fit the head and write it with its card."""
    grammar = argparse.ArgumentParser(prog="python -m pretraining.aesthetic", description=__doc__)
    grammar.add_argument("--folder", type=Path, default=AESTHETIC_HEAD.parent, help="gets the head and its card")
    folder: Path = grammar.parse_args().folder
    base = load_base_model(BUILTIN_MODEL, "builtin", None, torch.device("cpu"))
    scorer = clip_scorer(base)
    if scorer is None:
        raise SystemExit("The built-in model has no CLIP.")
    found = fit(scorer)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"layers.0.weight": found.weight, "layers.0.bias": found.bias}, folder / HEAD_FILE)
    (folder / "README.md").write_text(_card(found), encoding="utf-8")


def _card(found: Fit) -> str:
    return f"""# Head of the aesthetic reward for the built-in model

One linear layer on the image embedding of the built-in model's own CLIP (`../base_model/clip`). Its score is how
**colourful** a picture is, in tens of Hasler and Suesstrunk's measure (2003, doi 10.1117/12.477378): 1.5 slightly, 4.5
quite, 8 highly colourful. It knows nothing of beauty; it is there so that the aesthetic reward can be tried offline.
For other models take LAION's head, as [docs/rewards.md](../../../docs/rewards.md) says.

Fitted by ridge regression to {PICTURES:,} pictures that `pretraining/` draws, their colours made stronger or weaker by
chance. On {HELD_OUT:,} others it explains {found.explained:.0%} of the variance; the standard deviation of their scores
is {found.deviation:.2f}. `python -m pretraining.aesthetic` makes it again. Licence: that of this project.
"""


if __name__ == "__main__":
    main()
