"""The images of a round: what is asked for, how it is drawn, and the files in which a killed run finds it again.

A batch that is drawn is kept beside the checkpoints at once, under a hash of the weights that drew it. A run that was
cut off while it drew goes on with the next batch. One whose files are lost, or that goes back to an older checkpoint,
draws the same again: the weights that draw a round are in the checkpoint, and noise is keyed by round and image.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from entrypoints.adapters.weights import save_weights
from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import Drawing, DrawRequest, draw_latents
from entrypoints.runtime.randomness import image_indices, keyed_seed
from entrypoints.training.reinforcement import ddpo

CheckStop = Callable[[], None]
"""Raises Stopped when the process was asked to end."""

FOLDER = "rollouts"
"""Beside the checkpoints."""
KEY_CHARACTERS = 24
_SEEDS = 2**32
"""Those that people can draw by too."""


@dataclass(frozen=True)
class Asked:
    """One image of a round."""

    prompt: str
    index: int
    """Of the prompt, among those that are trained on."""
    group: int
    """Number of the prompt's place in the round, over all ranks: its images are compared with one another."""
    seed: int
    """Of all its noise."""


@dataclass(frozen=True)
class Drawn:
    """The images of a batch, in the order in which they were asked for; tensors in float32."""

    latents: Tensor
    """Without noise, (samples, channels, height, width)."""
    path: ddpo.Path | None = None
    """How they came about, where that is learned from."""

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file of them holds."""
        if self.path is None:
            return {"latents": self.latents}
        return {"path": self.path.latents, "log_probs": self.path.log_probs}

    def to(self, device: torch.device) -> "Drawn":
        """Return them on a device."""
        if self.path is None:
            return Drawn(self.latents.to(device))
        latents = self.path.latents.to(device)
        log_probs = self.path.log_probs.to(device)
        path = ddpo.Path(latents, log_probs)
        return Drawn(path.latents[-1], path)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> "Drawn":
        """Return what `tensors` wrote; raises KeyError for other tensors."""
        if "path" not in tensors:
            return cls(tensors["latents"])
        path = ddpo.Path(tensors["path"], tensors["log_probs"])
        return cls(path.latents[-1], path)


class Scores(NamedTuple):
    """What rewards say of the images of one rank."""

    total: list[float]
    """What is raised, for each image."""
    trained: dict[str, list[float]]
    """The rewards in it, by name."""
    evaluated: dict[str, list[float]]
    """Those that are not, and how much the images of a group differ."""


class Sampler(Protocol):
    """Draws the latents of a batch."""

    def __call__(self, asked: Sequence[Asked], check_stop: CheckStop) -> Drawn:
        """Draw them; `check_stop` is called between steps, and what it raises ends the drawing."""
        ...


def asked_in_round(
    prompts: Sequence[str],
    *,
    seed: int,
    number: int,
    rank: int,
    ranks: int,
    prompts_per_round: int,
    group_size: int,
) -> list[Asked]:
    """Return the images of a round that one rank draws: each batch of them shows as many prompts as there are.

    Over the rounds all prompts are visited as often. Two ranks draw what one with twice the prompts would.

    Args:
        prompts: Those that are trained on.
        seed: Of the recipe.
        number: Of the round, from 0.
        rank: Of this process.
        ranks: How many processes train together.
        prompts_per_round: Prompts of a round on each rank.
        group_size: Images of each of them.
    """
    everyone = prompts_per_round * ranks
    visited = number * everyone
    count = len(prompts)
    indices = image_indices(seed, "prompts", visited, everyone, count)
    first = rank * prompts_per_round
    asked = []
    for image in range(group_size):
        for place in range(first, first + prompts_per_round):
            hashed = keyed_seed(seed, "rollout", number, place, image)
            index = indices[place]
            one = Asked(prompts[index], index, place, seed=hashed % _SEEDS)
            asked.append(one)
    return asked


@dataclass(frozen=True)
class PathSampler:
    """DDPO's: every step of DDIM with its probability.

    A path takes the memory of an image's latents for each step: 3 MB for 50 steps of a model of 512 pixels.
    """

    policy: ddpo.Policy
    size: int
    """Side of the images, pixels."""

    def __call__(self, asked: Sequence[Asked], check_stop: CheckStop) -> Drawn:
        """Draw a batch, each image by a generator of its own on the CPU."""
        base = self.policy.base
        channels = base.denoiser.config.in_channels
        side = self.size // base.pipeline.vae_scale_factor
        shape = (channels, side, side)
        generators = []
        for one in asked:
            random = torch.Generator("cpu")
            generators.append(random.manual_seed(one.seed))

        def noise() -> Tensor:
            parts = [torch.randn(shape, generator=random) for random in generators]
            together = torch.stack(parts)
            return together.to(base.device)

        prompts = [one.prompt for one in asked]
        conditions = self.policy.conditions_of(prompts)
        path = ddpo.draw_path(self.policy, conditions, noise, check_stop)
        return Drawn(path.latents[-1], path)


@dataclass(frozen=True)
class FastSampler:
    """The base model's own sampler, which draws in few steps.

    What is drawn is what `draw` and plain diffusers draw of the same prompt and seed, before it is decoded.
    """

    base: BaseModel
    drawing: Drawing

    def __call__(self, asked: Sequence[Asked], check_stop: CheckStop) -> Drawn:
        """Draw a batch as plain diffusers does."""
        requests = [DrawRequest(one.prompt, one.seed) for one in asked]
        latents = draw_latents(self.base, requests, self.drawing, check_stop)
        return Drawn(latents.float())


class KeptRollouts:
    """The batches of one round that one rank has drawn so far, and their rewards, as files.

    Each rank writes files of its own, so that ranks of one host share a folder. Each file appears by a rename. On
    SageMaker the folder is copied to the bucket with the checkpoints, and comes back on the instance that goes on.
    """

    def __init__(self, root: Path, key: str, rank: int) -> None:
        self.root = root / FOLDER
        self.folder = self.root / key
        self.key = key
        self.rank = rank

    def read(self, batch: int) -> Drawn | None:
        """Return a batch in main memory; None when it is not there, or not whole: a copy may be cut off."""
        path = self._path(batch)
        try:
            tensors = load_file(path)
            return Drawn.of_tensors(tensors)
        except (OSError, SafetensorError, KeyError):
            return None

    def keep(self, batch: int, drawn: Drawn) -> None:
        """Write a batch, whole or not at all."""
        path = self._path(batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")
        save_weights(drawn.tensors(), draft)
        draft.replace(path)

    def read_scores(self, images: int) -> Scores | None:
        """Return the rewards of this rank's images; None when they were not scored yet."""
        try:
            text = self._scores.read_text(encoding="utf-8")
            values = json.loads(text)
            scores = Scores(**values)
        except (OSError, ValueError, TypeError):
            return None
        return scores if len(scores.total) == images else None

    def keep_scores(self, scores: Scores) -> None:
        """Write rewards, whole or not at all: a judge need not be asked again."""
        self._scores.parent.mkdir(parents=True, exist_ok=True)
        draft = self._scores.with_name(f".{self._scores.name}")
        draft.write_text(json.dumps(scores._asdict()), encoding="utf-8")
        draft.replace(self._scores)

    @property
    def _scores(self) -> Path:
        return self.folder / f"rank-{self.rank:03}-scores.json"

    def drop_others(self) -> None:
        """Delete the files of other rounds."""
        if not self.root.is_dir():
            return
        for folder in self.root.iterdir():
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)

    def _path(self, batch: int) -> Path:
        name = f"rank-{self.rank:03}-batch-{batch:05}.safetensors"
        return self.folder / name


def drop_rollouts(root: Path) -> None:
    """Delete all that was kept, when nothing is trained any more."""
    shutil.rmtree(root / FOLDER, ignore_errors=True)


def key_of(round_number: int, identity: str, weights: Mapping[str, Tensor]) -> str:
    """Return a hash of all that the images of a round depend on.

    Args:
        round_number: From 0: it keys the noise.
        identity: Of the run: its recipe, prompts, base model and code.
        weights: What draws, by the names of the trained parameters.
    """
    beginning = f"{identity}:{round_number}"
    digest = hashlib.sha256(beginning.encode())
    for name in sorted(weights):
        digest.update(name.encode())
        weight = weights[name].detach().cpu()
        digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()[:KEY_CHARACTERS]


def batches_of(asked: Sequence[Asked], size: int) -> list[Sequence[Asked]]:
    """Return images in batches of a size that divides them."""
    batches = []
    for start in range(0, len(asked), size):
        end = start + size
        batches.append(asked[start:end])
    return batches


def decoded(base: BaseModel, latents: Tensor) -> list[Image.Image]:
    """Return the pictures of latents, decoded one at a time in float32: half precision overflows in some autoencoders.

    So an image's bytes do not depend on those it was drawn with.
    """
    images: list[Image.Image] = []
    with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
        for one in latents.split(1):
            images += base.decode(one)
    return images
