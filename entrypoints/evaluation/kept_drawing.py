"""Drawing for an evaluation: each batch is kept, so that a job that was stopped draws only what is missing."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor, nn

from entrypoints.conditions.shown import from_bytes
from entrypoints.models.base import BaseModel
from entrypoints.models.control import Control, draw_controlled
from entrypoints.models.image_cache import ImageCache
from entrypoints.models.sampling import DrawRequest, batches, draw_batch
from orchestrator.contract.events import Item, emit


class Steering(NamedTuple):
    """What steers the images of some requests."""

    network: nn.Module
    """A ControlNet, on the device of the base model."""
    scale: float
    """What it adds is multiplied by it."""
    shown: Sequence[Sequence[Tensor]]
    """The maps that it is shown at once; of each, one for each image: bytes, (3, height, width)."""

    def of_batch(self, start: int, count: int) -> "Steering":
        """Return what steers some of the images."""
        shown = [pictures[start : start + count] for pictures in self.shown]
        return self._replace(shown=shown)

    @property
    def pictures(self) -> list[Tensor]:
        """All maps, one after another."""
        return [picture for pictures in self.shown for picture in pictures]

    def controls(self, base: BaseModel) -> list[Control]:
        """Return the controls of a batch."""
        found = []
        for pictures in self.shown:
            condition = from_bytes(pictures).to(base.device)
            found.append(Control(self.network, condition, self.scale))
        return found


class KeptDrawing:
    """Draws with a base model, and tells how many images of all are ready."""

    def __init__(self, base: BaseModel, total: int, check_stop: Callable[[], None]) -> None:
        self.base = base
        self.total = total
        self.check_stop = check_stop
        self.done = 0

    def draw(
        self,
        requests: Sequence[DrawRequest],
        cache: ImageCache,
        steering: Steering | None = None,
    ) -> list[Image.Image]:
        """Return the images of requests; only those that no attempt has drawn are drawn.

        `cache` is that of the base model as it is now, an adapter that was put into it included, or of its ControlNet.
        """
        images: list[Image.Image] = []
        for batch in batches(self.base, requests, cache.drawing):
            self.check_stop()
            steered = None
            if steering is not None:
                steered = steering.of_batch(len(images), len(batch))
            drawn = self._of_batch(batch, cache, steered)
            images += drawn
            self.done += len(drawn)
            emit(Item(done=self.done, of=self.total))
        return images

    def _of_batch(
        self,
        batch: Sequence[DrawRequest],
        cache: ImageCache,
        steering: Steering | None,
    ) -> list[Image.Image]:
        """Return the images of a batch, which are kept or else drawn."""
        if steering is not None:
            cache = cache.with_conditions(steering.pictures)
        images = cache.read_whole(batch)
        if images is not None:
            return images
        if steering is None:
            images = draw_batch(self.base, batch, cache.drawing, self.check_stop)
        else:
            controls = steering.controls(self.base)
            images = draw_controlled(self.base, batch, cache.drawing, controls, self.check_stop)
        cache.keep(batch, images)
        return images
