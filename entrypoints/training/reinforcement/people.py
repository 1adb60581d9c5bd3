"""The reward that people give: a round is left for them in an exchange, and the job waits for what they say.

While they label, the job keeps running, or it ends with its state saved and is started again (`Wait`). Both come to the
same: the round's pictures are drawn again or read, and the round is closed with the labels that are used, before the
first step that uses them.
"""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entrypoints.runtime import process
from entrypoints.runtime.pictures import png_of
from entrypoints.runtime.stop import WaitsForLabels
from entrypoints.training.reinforcement.rollouts import Asked
from entrypoints.training.run import Run
from orchestrator.contract.command_line import command
from orchestrator.contract.environment import Wait
from orchestrator.contract.events import NOTE, Item, Phase, emit
from orchestrator.contract.labels import BEST, EXCHANGE_FOLDER, LABELS_PHASE, WAITS, WORST, RoundManifest
from orchestrator.contract.plurals import counted
from orchestrator.contract.rewards import RewardUse
from orchestrator.contract.rounds import AskedOfPeople, DrawnSample, close_round, is_closed, settled, write_round
from orchestrator.contract.settlement import Settlement

POLL_SECONDS = 2.0


class _Labelled(NamedTuple):
    """How far the labels of a round are."""

    images: int
    """How many are judged by as many people as are asked."""
    enough: bool
    """Whether the job goes on with them."""
    expired: bool
    """Whether the time to wait is over."""


class People:
    """Asks people about the rounds of a run."""

    def __init__(self, run: Run, use: RewardUse) -> None:
        """Prepare to ask; `use` says how long a round waits."""
        self.run = run
        self.use = use
        self.name = run.environment.job_name

    @property
    def exchange(self) -> Path:
        """Where rounds are left and labels are found; read and written by the first rank."""
        return self.run.environment.checkpoints / EXCHANGE_FOLDER

    def scores(
        self,
        number: int,
        drawn_by: str,
        asked: Sequence[Sequence[Asked]],
        images: Sequence[Image.Image],
    ) -> list[float]:
        """Return what people say of this rank's images, from 1 to 5, once they have said it. All ranks call it.

        Raises WaitsForLabels when they have not, and the job ends until then; Stopped when it was asked to end.

        Args:
            number: Of the round.
            drawn_by: Hash of all that its images follow from.
            asked: The images of each rank.
            images: Those of this rank, in the same order.
        """
        drawn = self._of_all_ranks(images)
        count = len(drawn)
        manifest = None
        if self.run.ranks.is_first:
            manifest = self._leave(number, drawn_by, asked, drawn)
        self._wait(number, manifest, count)
        scores = [0.0] * count
        if manifest is not None:
            scores = self._close(manifest)
        everything = self._of_first(scores)
        share = len(images)
        begin = self.run.ranks.rank * share
        end = begin + share
        return everything[begin:end]

    def _leave(
        self,
        number: int,
        drawn_by: str,
        asked: Sequence[Sequence[Asked]],
        drawn: Sequence[Image.Image],
    ) -> RoundManifest:
        """Write the round, those of the first rank first; an earlier attempt may have."""
        everything: list[Asked] = []
        for of_rank in asked:
            everything += of_rank
        samples = []
        for one, image in zip(everything, drawn, strict=True):
            sample = DrawnSample(
                png=png_of(image),
                prompt=one.prompt,
                seed=one.seed,
                group=one.group,
            )
            samples.append(sample)
        patience = timedelta(hours=self.use.label_hours)
        wanted = AskedOfPeople(
            job=self.name,
            number=number,
            drawn_by=drawn_by,
            people=self.use.people,
            deadline=datetime.now(UTC) + patience,
        )
        return write_round(self.exchange, wanted, samples)

    def _close(self, manifest: RoundManifest) -> list[float]:
        """Note which labels are used, and return the scores that they give."""
        found = settled(self.exchange, manifest)
        settlement = close_round(self.exchange, manifest, found)
        return scores_of(manifest, settlement)

    def _wait(self, number: int, manifest: RoundManifest | None, count: int) -> None:
        """Return once there are enough labels of `count` images.

        Only the first rank has the manifest, and looks.
        """
        holds = self.run.environment.wait is Wait.HOLD
        told = -1
        name = f"{LABELS_PHASE}{number}"
        emit(Phase(name=name, of=count))
        if holds and manifest is not None:
            label = command("label", self.name)
            sys.stderr.write(f"{NOTE}people are asked about round {number}; they label it with: {label}\n")
        while True:
            labelled = self._labelled(manifest)
            if labelled.images > told:
                told = labelled.images
                emit(Item(done=told, of=count))
            if labelled.enough:
                return
            if labelled.expired or not holds:
                raise _waits(number, labelled.images, count, self.name)
            self.run.check_stop()
            process.require_reader()
            time.sleep(POLL_SECONDS)

    def _labelled(self, manifest: RoundManifest | None) -> _Labelled:
        """Return how far the labels are, as the first rank sees them."""
        found = _Labelled(images=0, enough=False, expired=False)
        if manifest is not None:
            found = self._looked(manifest)
        images, enough, expired = self._of_first(found)
        return _Labelled(
            images=int(images),
            enough=bool(enough),
            expired=bool(expired),
        )

    def _looked(self, manifest: RoundManifest) -> _Labelled:
        """Look at the labels that there are now."""
        now = datetime.now(UTC)
        deadline = manifest.deadline
        settlement = settled(self.exchange, manifest)
        missing = len(settlement.unfinished)
        enough = settlement.is_enough(deadline, now)
        if is_closed(self.exchange, manifest.round):
            enough = True
        return _Labelled(
            images=len(manifest.samples) - missing,
            enough=enough,
            expired=deadline is not None and now >= deadline,
        )

    def _of_first(self, numbers: Sequence[float]) -> list[float]:
        """Return the numbers that the first rank has; as many on each."""
        own = torch.tensor(numbers, dtype=torch.float64, device=self.run.device)
        every = self.run.ranks.gather(own)
        found: list[float] = every[0].tolist()
        return found

    def _of_all_ranks(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Return the images of all ranks, those of the first one first."""
        if self.run.ranks.ranks == 1:
            return list(images)
        pixels = torch.stack([_pixels(image) for image in images])
        own = pixels.to(self.run.device)
        every = self.run.ranks.gather(own)
        found = []
        for one in every.flatten(0, 1):
            array = one.cpu().numpy()
            found.append(Image.fromarray(array))
        return found


def scores_of(manifest: RoundManifest, settlement: Settlement) -> list[float]:
    """Return the score of each image of a round, from 1 to 5.

    It is the mean of its ratings; without any, what its comparisons come to: 1 when it lost all of them, 5 when it won
    all. An image of which nothing was said gets the mean of its group, so that nothing is learned from it.
    """
    said = _compared(settlement)
    for id_, rating in settlement.ratings.items():
        said[id_] = rating.mean
    if not said:
        raise ValueError("nothing was said of any image")
    groups: dict[int, list[float]] = {}
    for sample in manifest.samples:
        if sample.id in said:
            group = groups.setdefault(sample.group, [])
            group.append(said[sample.id])
    mean_of_all = fmean(said.values())
    scores = []
    for sample in manifest.samples:
        score = said.get(sample.id)
        if score is None:
            group = groups.get(sample.group, [mean_of_all])
            score = fmean(group)
        scores.append(score)
    return scores


def _compared(settlement: Settlement) -> dict[str, float]:
    """Return the scores of images that were compared: the share that each won, on the scale of ratings."""
    shares: dict[str, list[float]] = {}
    for choice in settlement.choices:
        of_first = shares.setdefault(choice.first, [])
        of_first.append(choice.share)
        of_second = shares.setdefault(choice.second, [])
        of_second.append(1 - choice.share)
    scores = {}
    for id_, of_image in shares.items():
        share = fmean(of_image)
        scores[id_] = WORST + (BEST - WORST) * share
    return scores


def _pixels(image: Image.Image) -> Tensor:
    """Return the pixels of an image: (height, width, 3), bytes."""
    return torch.from_numpy(np.array(image.convert("RGB")))


def _waits(number: int, labelled: int, count: int, job: str) -> WaitsForLabels:
    """Return the ending of a job of whose round so many images have a label."""
    images = counted(count, "image")
    message = f"Round {number}{WAITS}{labelled} of {images} with one."
    label = command("label", job)
    return WaitsForLabels(message, label)
