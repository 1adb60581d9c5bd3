"""From a request that was read to orders for the thread that draws: adapters found and read, pictures decoded."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entrypoints.adapters.controls import read_picture
from entrypoints.models.base import BaseModel
from entrypoints.runtime.pictures import crop_square
from entrypoints.serving.bodies import Defaults
from entrypoints.serving.cache import MemoryCache
from entrypoints.serving.library import Library, Registered
from entrypoints.serving.sample import Begin
from entrypoints.serving.served import ServedAdapter, read_adapter
from entrypoints.serving.texts import ServedWord
from entrypoints.serving.worker import Drawn, ImageOrder
from orchestrator.contract.families import native_resolution
from orchestrator.contract.generation import SCHEDULERS, Generation
from orchestrator.contract.recipe import BUILTIN


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
    begin: Begin | None
    scheduler: Any  # a class of diffusers, or None

    def orders(
        self,
        deadline: float,
        done: Callable[[int, Drawn | Exception], None],
    ) -> list[ImageOrder]:
        """Return an order for each image; `done` is told its number and what came of it."""
        wanted = self.generation
        orders = []
        for number, asked in enumerate(wanted.images):
            orders.append(
                ImageOrder(
                    asked.prompt,
                    wanted.negative_prompt,
                    asked.seed,
                    wanted.steps,
                    wanted.guidance,
                    wanted.size,
                    done=lambda result, number=number: done(number, result),
                    adapters=[(used.served, used.weight) for used in self.adapters],
                    words=self.words,
                    begin=self.begin,
                    scheduler=self.scheduler,
                    deadline=deadline,
                )
            )
        return orders


def defaults_of(base: BaseModel) -> Defaults:
    """Return what requests draw with that do not say: what the family's pipeline in diffusers does, at its own size.

    The built-in model draws in fewer steps, and needs less guidance.
    """
    size = native_resolution(base.folder) or base.family.resolution
    if base.reference.id == BUILTIN:
        return Defaults(steps=12, guidance=4.0, size=size)
    return Defaults(steps=50, guidance=7.5 if base.family.name == "sd" else 5.0, size=size)


class Service:
    """What the server knows and holds beside the base model; its methods are for the thread of the event loop."""

    def __init__(self, base: BaseModel, library: Library, cache: MemoryCache[ServedAdapter]) -> None:
        self.base = base
        self.defaults = defaults_of(base)
        self.library = library
        self.cache = cache

    async def prepare(self, wanted: Generation) -> Prepared:
        """Read what a request needs.

        Raises UnknownAdapterError, and TrainingError for an adapter or a picture that cannot be used.
        """
        found = [(use.name, use.weight, self._find(use.name)) for use in wanted.adapters]
        found += [(name, 1.0, self._find(name)) for name in wanted.embeddings]
        # All are asked for before any is waited for.
        coming = [self.read(registered) for _, _, registered in found]
        served = await asyncio.gather(*coming)
        adapters = []
        words: dict[str, ServedWord] = {}
        for (name, weight, _), one in zip(found, served, strict=True):
            adapters.append(UsedAdapter(name, weight, one))
            if one.word is not None:
                words[one.word.word] = one.word
        begin = self._begin(wanted)
        scheduler = getattr(diffusers, SCHEDULERS[wanted.scheduler]) if wanted.scheduler else None
        return Prepared(wanted, adapters, list(words.values()), begin, scheduler)

    def _find(self, name: str) -> Registered:
        registered = self.library.find(name)
        if registered is None:
            raise UnknownAdapterError(name, [one.name for one in self.library.everything()])
        return registered

    def read(self, registered: Registered) -> "asyncio.Future[ServedAdapter]":
        """Return the promise of an adapter in memory."""
        future = self.cache.get(
            registered.sha256,
            lambda: read_adapter(self.base, registered.folder, registered.manifest),
        )
        return asyncio.wrap_future(future)

    def _begin(self, wanted: Generation) -> Begin | None:
        if wanted.image is None:
            return None
        picture = crop_square(read_picture(wanted.image, "the image"), wanted.size)
        mask = None
        if wanted.mask is not None:
            drawn = crop_square(read_picture(wanted.mask, "the mask").convert("L"), wanted.size)
            mask = latent_mask(drawn, self.base.pipeline.vae_scale_factor).to(self.base.device)
        return Begin(picture, wanted.strength, mask)


def latent_mask(picture: Image.Image, scale: int) -> Tensor:
    """Return a mask at the size of the latents, (1, 1, height, width): 1 where the picture is white, and else 0."""
    side = picture.width // scale
    values = np.asarray(picture, dtype=np.float32) / 255
    whole = torch.from_numpy((values >= 0.5).astype(np.float32))[None, None]  # noqa: PLR2004 - half of white
    return torch.nn.functional.interpolate(whole, (side, side))
