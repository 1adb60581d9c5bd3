"""Draw held-out prompts with an adapter and without it, and score the images by every reward."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict

from benchmarks.reinforcement.hidden import HIDDEN, brightness
from benchmarks.reinforcement.true_pictures import true_pictures
from entrypoints.adapters.loading import load_adapter
from entrypoints.evaluation.metrics import clip_scorer
from entrypoints.models.base import BaseModel as Model
from entrypoints.models.loading import load_base_model
from entrypoints.models.sampling import Drawing, DrawRequest, draw
from entrypoints.training.rewards.aesthetic import Aesthetic
from entrypoints.training.rewards.alignment import ClipAlignment
from entrypoints.training.rewards.diversity import FeatureSpace, diversity_space, group_diversity
from entrypoints.training.rewards.jpeg import JpegIncompressibility
from orchestrator.contract.adapter import MANIFEST_FILE
from orchestrator.contract.prompt_file import parse_prompts
from orchestrator.resources import AESTHETIC_HEAD, BUILTIN_MODEL, sample_prompts

HELD_OUT = 16
"""The last prompts of the packaged file, which training is told to leave out."""
SEEDS = tuple(range(1000, 1004))
"""Of the noise; training draws by others."""
GUIDANCE = 2.0
"""Of the images, as the recipe draws them where nothing else is chosen."""
STEPS = 12
SIDE = 64
DIVERSITY = "diversity"
CPU = torch.device("cpu")


class Judged(BaseModel):
    """Scores of the images of the held-out prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    scores: Mapping[str, tuple[tuple[float, ...], ...]]
    """Name of a reward to the scores of each prompt's images; of diversity there is one for each prompt."""


def held_out_prompts() -> list[str]:
    """Return the prompts that are judged by."""
    text = sample_prompts(builtin=True).read_bytes()
    return parse_prompts(text).prompts[-HELD_OUT:]


def judge(adapter: Path | None, guidance: float = GUIDANCE) -> Judged:
    """Draw with the built-in model, with an adapter if one is given, and score what was drawn."""
    base = load_base_model(BUILTIN_MODEL, "builtin", None, CPU, with_clip=True)
    if adapter is not None and (adapter / MANIFEST_FILE).is_file():
        load_adapter(base, adapter, 1.0)
    elif adapter is not None:  # of another trainer
        base.pipeline.load_lora_weights(str(adapter))
    prompts = held_out_prompts()
    requests = [DrawRequest(prompt, seed) for prompt in prompts for seed in SEEDS]
    images = draw(base, requests, Drawing(STEPS, guidance, SIDE), _go_on)
    return Judged(scores=scores_of(base, prompts, images))


def judge_true_pictures() -> Judged:
    """Score pictures of the program that drew what the built-in model was trained on."""
    base = load_base_model(BUILTIN_MODEL, "builtin", None, CPU, with_clip=True)
    prompts = held_out_prompts()
    return Judged(scores=scores_of(base, prompts, true_pictures(prompts, len(SEEDS))))


def scores_of(
    base: Model,
    prompts: list[str],
    images: list[Image.Image],
) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Return the scores of images by every reward, those of each prompt together."""
    scorer = clip_scorer(base)
    if scorer is None:
        raise ValueError("the built-in model has lost its CLIP")
    groups = [number // len(SEEDS) for number in range(len(images))]
    prompts_of_images = [prompts[group] for group in groups]
    found = {}
    for reward in (JpegIncompressibility(), Aesthetic(scorer, AESTHETIC_HEAD), ClipAlignment(scorer)):
        scores = reward.scores(images, prompts_of_images, groups)
        found[reward.name] = _by_prompt([float(score or 0) for score in scores])
    found[HIDDEN] = _by_prompt([brightness(image) for image in images])
    of_groups = group_diversity(_space(), images, groups)
    found[DIVERSITY] = tuple((of_groups[group],) for group in sorted(of_groups))
    return found


@cache
def _space() -> FeatureSpace:
    return diversity_space(CPU)


def _by_prompt(scores: list[float]) -> tuple[tuple[float, ...], ...]:
    parts = []
    for begin in range(0, len(scores), len(SEEDS)):
        part = scores[begin : begin + len(SEEDS)]
        parts.append(tuple(part))
    return tuple(parts)


def _go_on() -> None:
    """Nobody asks the benchmark to stop."""
