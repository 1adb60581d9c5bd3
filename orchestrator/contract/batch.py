"""The settings of a batch: many images, drawn with finished adapters by as many workers as there are devices.

They travel as a recipe's do, so that a job that draws is planned, priced, watched and stopped like one that trains. Its
samples and the adapters are channels.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.contract.adapter import EMBEDDING, FULL, LORA, PEFT, PIVOTAL
from orchestrator.contract.batch_result import DRAW_BATCH, Sample
from orchestrator.contract.datasets import NOTHING, DatasetKind
from orchestrator.contract.drawing import images_at_once
from orchestrator.contract.families import Family
from orchestrator.contract.footprint import Footprint, ModelSize
from orchestrator.contract.recipe import Recipe

ADAPTERS_CHANNEL = "adapters"
"""A folder for each adapter, by its hash."""
SAMPLES_CHANNEL = "samples"
SAMPLES_FILE = "samples.json"

ALONE = frozenset({FULL, PEFT})
"""Kinds of adapters that draw without another one beside them; learned words excepted."""
TOGETHER = frozenset({LORA, PIVOTAL, EMBEDDING})
"""Kinds of adapters whose changes add up."""
MOST_IMAGES = 50_000
"""Of a batch: its files are listed, and its index is read as a whole."""
_CHECKPOINT_MINUTES = 1.0
"""Each batch of images is kept as soon as it is drawn."""


class BatchSamples(BaseModel):
    """What a batch draws."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: tuple[Sample, ...] = Field(min_length=1, max_length=MOST_IMAGES)
    """All images, each once."""

    def write(self, folder: Path) -> None:
        """Write them into the folder of their channel."""
        folder.mkdir(parents=True, exist_ok=True)
        text = self.model_dump_json(exclude_defaults=True)
        (folder / SAMPLES_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "BatchSamples":
        """Read them from the folder of their channel."""
        return cls.model_validate_json((folder / SAMPLES_FILE).read_bytes())

    @cached_property
    def sha256(self) -> str:
        """Hash over the ids of all samples, and so over all that the images depend on."""
        ids = [sample.id for sample in self.samples]
        text = "\n".join(sorted(ids))
        return hashlib.sha256(text.encode()).hexdigest()


class BatchDrawing(Recipe):
    """Draw the samples of a batch.

    It trains nothing: what every recipe has for training (steps, checkpoints, validation) stays as it is by default.
    Size, steps and guidance of the samples are their own; here stand those of which the duration is estimated.
    """

    summary: ClassVar[str] = "draw many images with finished adapters"
    dataset: ClassVar[DatasetKind] = NOTHING
    entry: ClassVar[str] = "entrypoints.draw_batch"
    trains: ClassVar[bool] = False
    shares_images: ClassVar[bool] = True

    images: int = Field(1, ge=1, le=MOST_IMAGES)
    """Images that it draws in all."""

    @classmethod
    def defaults(cls, chosen: Any, family: Family | None) -> dict[str, Any]:
        """Return the defaults of every recipe, without an evaluation."""
        own = {"evaluation_prompts": 0, "checkpoint_minutes": _CHECKPOINT_MINUTES}
        return {**super().defaults(chosen, family), **own}

    @classmethod
    def recipe_name(cls) -> str:
        """Return the name of the work."""
        return DRAW_BATCH

    def footprint(self, size: ModelSize) -> Footprint:  # noqa: ARG002 - whatever the model
        """Return what it takes beside drawing: nothing, because the weights of adapters are few, or replace others."""
        return Footprint(trained=0, added=0, samples=0, kept=0.0, text=False)

    @property
    def images_drawn(self) -> int:
        """How many images all workers draw together."""
        return self.images

    @property
    def memory_advice(self) -> str:
        """What is left to do where memory is too small."""
        return "draw smaller images, or use a larger machine"


def batches_of(samples: Sequence[Sample], *, gpu: bool) -> list[Sequence[Sample]]:
    """Return samples in the batches in which they are drawn, those of the same adapters one after another.

    An image depends a little on the others of its batch, so batches depend on the samples alone, and never on how many
    workers there are or on what is drawn already.
    """
    groups: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        group = groups.setdefault(_drawn_alike(sample), [])
        group.append(sample)
    batches: list[Sequence[Sample]] = []
    for key in sorted(groups):
        group = groups[key]
        count = images_at_once(group[0].width, group[0].height, gpu=gpu)
        for start in range(0, len(group), count):
            batches.append(group[start : start + count])
    return batches


def _drawn_alike(sample: Sample) -> tuple[str, ...]:
    """Return what samples of a batch have in common: adapters first, which take long to load."""
    adapters = ""
    for adapter in sample.adapters:
        adapters += f"{adapter.sha256} {adapter.weight!r} "
    return (
        adapters,
        f"{sample.width}x{sample.height}",
        f"{sample.steps}",
        f"{sample.guidance!r}",
        f"{sample.scheduler}",
        f"{sample.negative_prompt!r}",
    )


def share_of(
    batches: Sequence[Sequence[Sample]],
    worker: int,
    workers: int,
) -> Iterator[Sequence[Sample]]:
    """Yield the batches of a worker, counted from 0: neighbours, so that it loads few adapters; of equal work for all.

    Each batch is in the share of one worker.
    """
    total = sum(map(_work, batches))
    before = 0
    for batch in batches:
        work = _work(batch)
        middle = before + work / 2
        before += work
        if int(middle * workers / total) == worker:
            yield batch


def _work(batch: Sequence[Sample]) -> int:
    """Return the work of a batch: pixels times steps."""
    first = batch[0]
    return len(batch) * first.steps * first.pixels
