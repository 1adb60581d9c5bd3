"""The thread that draws: it takes images out of the queue between two steps, and lets them share the steps."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from entrypoints.models.control import Control
from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.engine import Engine
from entrypoints.serving.fairness import FairQueue
from entrypoints.serving.low_rank_file import LowRankWeights
from entrypoints.serving.metrics import Metrics
from entrypoints.serving.residency import Resident, SlotTable
from entrypoints.serving.safety import SafetyChecker
from entrypoints.serving.sample import Begin, Sample, SampleRequest, start
from entrypoints.serving.served import ServedAdapter
from entrypoints.serving.slots import SlotUse
from entrypoints.serving.texts import ServedWord, TextReader, TextRequest
from orchestrator.contract.buckets import Size

IDLE_SECONDS = 0.5
"""Between two looks for orders that nobody waits for any more, while there is nothing to draw."""
PATIENCE_SECONDS = 5.0
"""That an image may wait for rows or slots which others take in turn, before these wait for it."""
QUANTUM = 8 * 64 * 64 * 20
"""Pixels times steps that an adapter's requests may cost in a turn: those of eight small images."""


class Expired(Exception):  # noqa: N818 - no error of the program
    """The deadline of a request has passed."""


class Cancelled(Exception):  # noqa: N818 - no error of the program
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Drawn:
    """A finished image."""

    image: Image.Image
    seconds: float
    """That its steps took, each divided among the images that shared it."""
    waited: float
    """Seconds from its order to its first step."""
    generations: Sequence[int | None]
    """Of the slot of each of its adapters, in their order; None for a word, which needs no slot."""
    largest_batch: int
    """Images that shared a step with it, itself included, at most."""
    warnings: Sequence[str] = ()
    """What of its texts was not read."""
    flagged: bool | None = None
    """Whether the safety checker flags it; None without a checker."""


@dataclass(eq=False)
class ImageOrder:
    """An image to draw; all that it needs is in memory."""

    prompt: str
    negative: str | None
    seed: int
    steps: int
    guidance: float
    size: Size
    done: Callable[["Drawn | Exception"], None]
    """Is told once, by the thread that draws, what came of it."""
    adapters: Sequence[tuple[ServedAdapter, float]] = ()
    """Each with its weight."""
    words: Sequence[ServedWord] = ()
    controls: Sequence[Control] = ()
    begin: Begin | None = None
    scheduler: Any = None  # a class of diffusers
    deadline: float | None = None
    """In seconds of the monotonic clock."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    preview: Callable[[int, Image.Image], None] | None = None
    """Is told after each step but the last how many were taken, and how the image looks then."""
    ordered: float = field(default_factory=time.monotonic)

    @property
    def flow(self) -> frozenset[str]:
        """Whose turn it waits for."""
        return frozenset(adapter.key for adapter, _ in self.adapters)

    @property
    def cost(self) -> float:
        """Its work: pixels times steps."""
        return float(self.pixels * self.steps)

    @property
    def pixels(self) -> int:
        """Of the image."""
        return self.size.width * self.size.height

    @property
    def is_guided(self) -> bool:
        """Whether it takes two rows of a batch."""
        return self.guidance > 1


@dataclass(eq=False)
class _Running:
    """An image that is being drawn."""

    order: ImageOrder
    sample: Sample
    residents: Sequence[Resident]
    waited: float
    warnings: Sequence[str]
    largest_batch: int = 0


class Worker:
    """Owns the base model: nothing else calls it while the thread runs."""

    def __init__(
        self,
        engine: Engine,
        reader: TextReader,
        slots: SlotTable,
        rows: Callable[[int], int],
        metrics: Metrics | None = None,
        checker: SafetyChecker | None = None,
    ) -> None:
        self.engine = engine
        self.reader = reader
        self.slots = slots
        self.rows = rows
        """From the pixels of an image to how many rows of a batch are computed at once."""
        self.metrics = metrics or Metrics()
        self.checker = checker
        self.seconds_per_work = 0.0
        """Seconds for a pixel in a step, of late; 0 until something was measured."""
        self.progress = time.monotonic()
        """When the thread was last seen alive."""
        self._queue: FairQueue[ImageOrder] = FairQueue(QUANTUM)
        self._running: OrderedDict[Size, list[_Running]] = OrderedDict()  # the next ones to step come first
        self._first: ImageOrder | None = None  # that has waited so long that no other may begin before it
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)

    def start(self) -> None:
        """Begin to draw."""
        self._thread.start()

    def stop(self, seconds: float | None = None) -> None:
        """Draw what was ordered and end; returns when that is done, or has taken too long."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(seconds)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def order(self, images: Sequence[ImageOrder]) -> None:
        """Put images into the queue."""
        with self._changed:
            for image in images:
                self._queue.add(image.flow, image, image.cost)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        with self._changed:
            return len(self._queue)

    @property
    def drawing(self) -> int:
        """Images that are being drawn."""
        return sum(len(group) for group in list(self._running.values()))

    def _run(self) -> None:
        while True:
            self.progress = time.monotonic()
            with self._changed:
                nothing = not self._running and not len(self._queue)
                if nothing and self._stopping:
                    return
                if nothing:
                    self._changed.wait(IDLE_SECONDS)
            try:
                self._drop_gone()
                self._admit()
                self._step()
            except Exception as error:  # noqa: BLE001 - a bug: it is told to all, and ends no thread that others wait for
                self._end_all(error)

    def _end_all(self, error: Exception) -> None:
        """End all images, those in the queue included."""
        with self._changed:
            queued = self._queue.remove(lambda _: True)
        self._first = None
        for image in queued:
            image.done(error)
        for group in list(self._running.values()):
            for running in list(group):
                self._end(running, error)

    def _drop_gone(self) -> None:
        """End images whose deadline has passed, or that nobody waits for."""
        now = time.monotonic()
        with self._changed:
            gone = self._queue.remove(lambda image: end_of(image, now) is not None)
        for image in gone:
            if image is self._first:
                self._first = None
            image.done(end_of(image, now) or Cancelled())
        for group in list(self._running.values()):
            for running in list(group):
                end = end_of(running.order, now)
                if end is not None:
                    self._end(running, end)

    def _admit(self) -> None:
        """Begin images for which there is room."""
        while True:
            with self._changed:
                image = self._queue.take(self._fits)
            if image is None:
                return
            self._first = None
            try:
                running = self._begin(image)
            except Exception as error:  # noqa: BLE001 - it is told to whoever ordered the image
                image.done(error)
                continue
            self._running.setdefault(image.size, []).append(running)

    def _fits(self, image: ImageOrder) -> bool:
        """Whether an image can begin now; no other may when one has waited too long for rows or slots to be free."""
        if self._first is not None and image is not self._first:
            return False
        if self._has_rows(image) and self._has_slots(image):
            return True
        if time.monotonic() - image.ordered >= PATIENCE_SECONDS:
            self._first = image
        return False

    def _has_rows(self, image: ImageOrder) -> bool:
        group = self._running.get(image.size, [])
        if not group:
            return True
        rows = 2 if image.is_guided else 1
        for running in group:
            rows += running.sample.rows
        return rows <= self.rows(image.pixels)

    def _has_slots(self, image: ImageOrder) -> bool:
        wanted: dict[str, LowRankWeights | None] = {}
        for adapter, _ in image.adapters:
            wanted[adapter.key] = adapter.weights
        return self.slots.could_hold(wanted)

    def _begin(self, image: ImageOrder) -> _Running:
        residents: list[Resident] = []
        uses: list[SlotUse] = []
        try:
            for adapter, weight in image.adapters:
                if adapter.weights is None:
                    continue
                resident = self._hold(adapter.key, adapter.weights)
                residents.append(resident)
                uses.append(SlotUse(resident.slot, weight))
            used = tuple((adapter.key, weight) for adapter, weight in image.adapters)
            text = TextRequest(
                image.prompt,
                image.negative,
                image.is_guided,
                tuple(image.words),
                tuple(uses),
                used,
            )
            warnings = self.reader.warnings(text)
            request = SampleRequest(
                self.reader.conditions(text),
                image.seed,
                image.steps,
                image.guidance,
                image.size,
                uses,
                image.controls,
                image.begin,
            )
            sample = start(self.engine.base, request, image.scheduler)
        except BaseException:
            for resident in residents:
                self.slots.release(resident)
            raise
        waited = time.monotonic() - image.ordered
        self.metrics.queue_seconds.observe(waited)
        return _Running(image, sample, residents, waited, warnings)

    def _hold(self, key: str, weights: LowRankWeights) -> Resident:
        """Hold an adapter in a slot."""
        if self.slots.holds(key):
            return self.slots.hold(key, weights)
        began = time.perf_counter()
        resident = self.slots.hold(key, weights)
        self.metrics.load_seconds.labels("slot").observe(time.perf_counter() - began)
        return resident

    def _step(self) -> None:
        """Take one step of the group whose turn it is."""
        if not self._running:
            return
        size, group = next(iter(self._running.items()))
        self._running.move_to_end(size)
        began = time.perf_counter()
        taken = [running.sample.step for running in group]
        try:
            self.engine.step([running.sample for running in group])
        except Exception as error:  # noqa: BLE001 - it is told to whoever ordered the images
            self._step_alone(list(group), taken, error)
            return
        self._count(group, time.perf_counter() - began)
        self._stepped(group)

    def _step_alone(
        self,
        group: Sequence[_Running],
        taken: Sequence[int],
        error: Exception,
    ) -> None:
        """Take a step that has failed for a group once more, for each image alone: the fault may be that of one.

        `taken` are the steps that each had taken before; those that have taken this one are left as they are.
        """
        for running, before in zip(group, taken, strict=True):
            if len(group) == 1:
                self._end(running, error)
                return
            if running.sample.step == before:
                try:
                    self.engine.step([running.sample])
                except Exception as own:  # noqa: BLE001
                    self._end(running, own)
                    continue
            self._stepped([running])

    def _stepped(self, group: Sequence[_Running]) -> None:
        """Finish or show the images that have taken a step together."""
        for running in list(group):
            running.largest_batch = max(running.largest_batch, len(group))
            if running.sample.is_done:
                self._finish(running)
            elif running.order.preview is not None:
                self._show(running, running.order.preview)

    def _count(self, group: Sequence[_Running], seconds: float) -> None:
        """Count a step that was taken."""
        used: set[str] = set()
        for running in group:
            used |= running.order.flow
        self.metrics.batch_images.observe(len(group))
        self.metrics.batch_adapters.observe(len(used))
        self.metrics.step_seconds.observe(seconds)
        pixels = 0
        for running in group:
            pixels += running.order.pixels
        per_work = seconds / pixels
        old = self.seconds_per_work or per_work
        self.seconds_per_work = 0.9 * old + 0.1 * per_work

    def _finish(self, running: _Running) -> None:
        """Decode an image and hand it over."""
        sample = running.sample
        result: Drawn | Exception
        try:
            if not torch.isfinite(sample.latents).all():
                message = "The image came out as NaN or infinity, and there is nothing to show."
                raise TrainingError(
                    "adapter",
                    message,
                    "give its adapters smaller weights, or less guidance",
                )
            image = self.engine.decode(sample)
            flagged = self.checker.flags(image) if self.checker else None
            generations = generations_of(running)
            result = Drawn(
                image,
                sample.seconds,
                running.waited,
                generations,
                running.largest_batch,
                running.warnings,
                flagged,
            )
        except Exception as error:  # noqa: BLE001 - it is told to whoever ordered the image
            result = error
        self._end(running, result)

    def _show(
        self,
        running: _Running,
        preview: Callable[[int, Image.Image], None],
    ) -> None:
        """Hand over how an image looks by now."""
        try:
            preview(running.sample.step, self.engine.decode(running.sample))
        except Exception as error:  # noqa: BLE001 - it is told to whoever ordered the image
            self._end(running, error)

    def _end(self, running: _Running, result: Drawn | Exception) -> None:
        group = self._running[running.order.size]
        group.remove(running)
        if not group:
            del self._running[running.order.size]
        for resident in running.residents:
            self.slots.release(resident)
        running.order.done(result)


def generations_of(running: _Running) -> list[int | None]:
    """Return the generation of the slot of each adapter; None for a word, which needs no slot."""
    residents = iter(running.residents)
    found: list[int | None] = []
    for adapter, _ in running.order.adapters:
        found.append(next(residents).generation if adapter.weights is not None else None)
    return found


def end_of(image: ImageOrder, now: float) -> Exception | None:
    """Return why an image need not be drawn any more; None while it is waited for."""
    if image.cancelled.is_set():
        return Cancelled()
    if image.deadline is not None and now > image.deadline:
        return Expired()
    return None
