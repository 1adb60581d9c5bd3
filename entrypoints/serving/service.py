"""From a request that was read to orders for the thread that draws: adapters found and read, pictures decoded."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from entrypoints.adapters.controls import Shown, read_picture, require_kind, require_shape, shown_by
from entrypoints.models.base import BaseModel
from entrypoints.models.control import Control
from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from entrypoints.runtime.pictures import crop
from entrypoints.serving.bodies import Defaults
from entrypoints.serving.cache import MemoryCache
from entrypoints.serving.library import Library, Registered, described
from entrypoints.serving.low_rank_file import KIND
from entrypoints.serving.metrics import Metrics
from entrypoints.serving.sample import Begin
from entrypoints.serving.served import ServedAdapter, read_adapter
from entrypoints.serving.texts import ServedWord
from entrypoints.serving.unpacked import UnpackedArchives
from entrypoints.serving.worker import Drawn, ImageOrder
from orchestrator.contract import generation
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.conditions import MAP_KINDS
from orchestrator.contract.families import native_resolution
from orchestrator.contract.generation import SCHEDULERS, Generation
from orchestrator.contract.recipe import BUILTIN

DECODERS = 2
"""Threads that decode pictures: so few that large ones do not fill the memory."""
NO_ROOM = ("memory", "out-of-memory", "disk-full")
"""Kinds of failures that say that the machine is too small."""


class UnknownAdapterError(Exception):
    """A request names an adapter that the server does not know."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        close = get_close_matches(name, known, n=1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        super().__init__(f'There is no adapter "{name}".{hint}')


class UsedAdapter(NamedTuple):
    """An adapter of a request, as it was when the request came."""

    name: str
    weight: float
    served: ServedAdapter


@dataclass(frozen=True)
class Prepared:
    """A request all of whose parts are in memory."""

    generation: Generation
    adapters: Sequence[UsedAdapter]
    words: Sequence[ServedWord]
    controls: Sequence[Control]
    begin: Begin | None
    scheduler: Any  # a class of diffusers, or None

    def orders(
        self,
        deadline: float,
        done: Callable[[int, Drawn | Exception], None],
        preview: Callable[[int, int, Image.Image], None] | None = None,
    ) -> list[ImageOrder]:
        """Return an order for each image; `done` is told its number and what came of it.

        `preview` is told its number, the steps that were taken, and how it looks then.
        """
        wanted = self.generation
        used = [(one.served, one.weight) for one in self.adapters if one.served.network is None]
        orders = []
        for number, asked in enumerate(wanted.images):
            orders.append(
                ImageOrder(
                    asked.prompt,
                    wanted.negative_prompt,
                    asked.seed,
                    wanted.steps,
                    wanted.guidance,
                    wanted.shape,
                    done=lambda result, number=number: done(number, result),
                    adapters=used,
                    words=self.words,
                    controls=self.controls,
                    begin=self.begin,
                    scheduler=self.scheduler,
                    deadline=deadline,
                    preview=partial(preview, number) if preview else None,
                )
            )
        return orders


def defaults_of(base: BaseModel) -> Defaults:
    """Return what requests draw with that do not say: what the family's pipeline in diffusers does, at its own size.

    The built-in model draws in fewer steps, and needs less guidance.
    """
    size = native_resolution(base.folder) or base.family.resolution
    if base.reference.id == BUILTIN:
        return Defaults(12, 4.0, size, BUILTIN)
    guidance = 7.5 if base.family.name == "sd" else 5.0
    return Defaults(50, guidance, size, base.reference.id)


def of_recipe(manifest: AdapterManifest, defaults: Defaults) -> Defaults:
    """Return what the recipe of an adapter drew with; the defaults where its manifest has no such number."""
    return Defaults(
        steps=int(manifest.number("inference_steps", defaults.steps)),
        guidance=manifest.number("guidance_scale", defaults.guidance),
        size=int(manifest.number("resolution", defaults.size)),
        base_model=defaults.base_model,
    )


class Service:
    """What the server knows and holds beside the base model; its methods are for the thread of the event loop."""

    def __init__(
        self,
        base: BaseModel,
        library: Library,
        cache: MemoryCache[ServedAdapter],
        disk: UnpackedArchives,
        metrics: Metrics | None = None,
    ) -> None:
        self.base = base
        self.defaults = defaults_of(base)
        self.library = library
        self.cache = cache
        self.disk = disk
        self.metrics = metrics or Metrics()
        self._decoders = ThreadPoolExecutor(DECODERS, "decoding")

    def defaults_for(self, named: str | None, names: Sequence[str]) -> Defaults:
        """Return what a request draws with that does not say: what the recipe of its first adapter drew with.

        `named` is the adapter that SageMaker has named for it, `names` are those of its body.
        """
        first = [named] if named is not None else []
        for name in [*first, *names]:
            registered = self.library.find(name)
            if registered is not None:
                return of_recipe(registered.manifest, self.defaults)
        return self.defaults

    async def prepare(self, wanted: Generation) -> Prepared:
        """Read what a request needs.

        Raises UnknownAdapterError, and TrainingError for an adapter or a picture that cannot be used.
        """
        found = []
        for use in wanted.adapters:
            found.append((use.name, use.weight, self._find(use.name)))
        for name in wanted.embeddings:
            found.append((name, 1.0, self._find(name)))
        networks = []
        for control in wanted.controls:
            registered = self._find(control.network)
            require_map(control)
            require_kind(control, registered.manifest)
            networks.append(registered)
        # All are asked for before any is waited for.
        coming = []
        for _, _, registered in found:
            coming.append(self.read(registered))
        for registered in networks:
            coming.append(self.read(registered))
        everything = await asyncio.gather(*coming)
        served = everything[: len(found)]
        served_networks = everything[len(found) :]
        adapters = []
        words: dict[str, ServedWord] = {}
        for (name, weight, _), one in zip(found, served, strict=True):
            require_drawable(name, weight, one)
            adapters.append(UsedAdapter(name, weight, one))
            if one.word is not None:
                other = words.setdefault(one.word.word, one.word)
                require_same(other, one.word)
        loop = asyncio.get_running_loop()
        begin, shown = await loop.run_in_executor(self._decoders, self._pictures, wanted)
        controls = []
        for control, of_control, one in zip(wanted.controls, shown, served_networks, strict=True):
            network = require_network(control.network, one)
            steering = Control(
                network,
                of_control.condition,
                control.scale,
                control.start,
                control.end,
                of_control.mask,
            )
            controls.append(steering)
            adapters.append(UsedAdapter(control.network, control.scale, one))
        scheduler = None
        if wanted.scheduler is not None:
            scheduler = getattr(diffusers, SCHEDULERS[wanted.scheduler])
        return Prepared(
            wanted,
            adapters,
            list(words.values()),
            controls,
            begin,
            scheduler,
        )

    def describe(self, name: str, place: Path) -> Registered:
        """Return an adapter in a folder or an archive, by its manifest; raises TrainingError."""
        try:
            with self.disk.opened(place) as folder:
                return described(name, place, folder)
        except OSError as error:
            raise unreadable(name, error) from error

    def read(self, registered: Registered) -> "asyncio.Future[ServedAdapter]":
        """Return the promise of an adapter in memory; who gives up waiting takes it from nobody else who waits."""
        future = self.cache.get(registered.key, lambda: self._read(registered))
        return asyncio.shield(asyncio.wrap_future(future))

    def _find(self, name: str) -> Registered:
        registered = self.library.find(name)
        if registered is None:
            known = [one.name for one in self.library.everything()]
            raise UnknownAdapterError(name, known)
        return registered

    def _read(self, registered: Registered) -> ServedAdapter:
        """Read an adapter from disk; for the readers' threads."""
        began = time.perf_counter()
        try:
            with self.disk.opened(registered.place) as folder:
                opened = time.perf_counter()
                self.metrics.load_seconds.labels("disk").observe(opened - began)
                adapter = read_adapter(self.base, folder, registered.manifest)
        except Exception as error:  # whatever libraries raise at files that others wrote
            failure = failure_of(error)
            if failure is None:
                raise unreadable(registered.name, error) from error
            kind = failure.kind if failure.kind in NO_ROOM else KIND
            raise TrainingError(
                kind,
                failure.message,
                failure.next_step,
            ) from error
        self.metrics.load_seconds.labels("memory").observe(time.perf_counter() - opened)
        return adapter

    def _pictures(self, wanted: Generation) -> tuple[Begin | None, Sequence[Shown]]:
        """Decode the pictures of a request, which takes long for large ones."""
        shown = shown_by(wanted, {}, self.base.device)
        if wanted.image is None:
            return None, shown
        picture = read_picture(wanted.image, "the image")
        mask = None
        if wanted.mask is not None:
            drawn = read_picture(wanted.mask, "the mask")
            require_shape("the mask", picture, drawn, "where the image is drawn anew")
            cut = crop(drawn.convert("L"), wanted.shape)
            mask = latent_mask(cut, self.base.pipeline.vae_scale_factor).to(self.base.device)
        return Begin(crop(picture, wanted.shape), wanted.strength, mask), shown


def unreadable(name: str, error: Exception) -> TrainingError:
    """Return the failure of an adapter that cannot be read."""
    return TrainingError(
        KIND,
        f'The adapter "{name}" cannot be read: {first_line(error)}',
        "fetch it again, and register it again",
    )


def require_drawable(
    name: str,
    weight: float,
    adapter: ServedAdapter,
) -> None:
    """Raise TrainingError("adapter") for a ControlNet, and for a weight that an adapter cannot have."""
    if adapter.network is not None:
        raise TrainingError(
            KIND,
            f'"{name}" is a ControlNet, which follows a picture.',
            'name it in "controlnets", with the picture',
        )
    if weight != 1 and not adapter.has_strength:
        raise TrainingError(
            KIND,
            f'"{name}" is a learned word, or changes lengths or angles of weights: it has no strength other than 1.',
            "draw with it at weight 1",
        )


def require_map(control: generation.Control) -> None:
    """Raise TrainingError("conditions") for a map that a network would have to compute: the server has none."""
    if control.is_map or not MAP_KINDS[control.kind].needs_weights:
        return
    raise TrainingError(
        "conditions",
        f"This server computes no {control.kind} maps: that takes a network of its own.",
        'send the map itself, with "is_map": true',
    )


def require_same(one: ServedWord, other: ServedWord) -> None:
    """Raise TrainingError("prompt") for two words that are written alike."""
    if one.sha256 != other.sha256:
        raise TrainingError(
            "prompt",
            f'Two adapters of the request have each learned a word "{one.word}".',
            "draw with one of them alone",
        )


def require_network(name: str, adapter: ServedAdapter) -> nn.Module:
    """Return the network of a ControlNet; raises TrainingError("control") for an adapter of another kind."""
    if adapter.network is None:
        raise TrainingError(
            "control",
            f'"{name}" is no ControlNet.',
            'name it in "adapters", and a ControlNet in "controlnets"',
        )
    return adapter.network


def latent_mask(picture: Image.Image, scale: int) -> Tensor:
    """Return a mask at the size of the latents, (1, 1, height, width): 1 where the picture is white, and else 0."""
    values = np.asarray(picture, dtype=np.float32) / 255
    whole = torch.from_numpy((values >= 0.5).astype(np.float32))[None, None]  # noqa: PLR2004 - half of white
    return torch.nn.functional.interpolate(whole, (picture.height // scale, picture.width // scale))
