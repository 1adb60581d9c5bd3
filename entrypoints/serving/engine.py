"""The denoising loop of the server: samples with different adapters, prompts, guidance and steps share each step."""

import time
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from entrypoints.models.base import BaseModel, Conditions, Residuals
from entrypoints.models.control import Control
from entrypoints.serving.sample import Sample
from entrypoints.serving.slots import SlotNetwork, SlotUse


class Engine:
    """A base model whose denoiser has slots; it is used by one thread."""

    def __init__(self, base: BaseModel, denoiser: SlotNetwork) -> None:
        self.base = base
        self.denoiser = denoiser
        self._routed: tuple[Sequence[SlotUse], ...] | None = None

    @torch.no_grad()
    def step(self, samples: Sequence[Sample]) -> None:
        """Take a step of samples of one size, which may be at different ones, in one forward pass."""
        began = time.perf_counter()
        self._route(samples)
        noisy = torch.cat([sample.noisy() for sample in samples])
        times = torch.cat([sample.time.expand(sample.rows) for sample in samples])
        conditions = joined([sample.request.conditions for sample in samples])
        residuals = self._residuals(samples, noisy, times, conditions)
        prediction = self.base.predict(noisy, times, conditions, residuals)
        parts = prediction.split([sample.rows for sample in samples])
        for sample, part in zip(samples, parts, strict=True):
            sample.advance(part)
        share = (time.perf_counter() - began) / len(samples)
        for sample in samples:
            sample.seconds += share

    @torch.no_grad()
    def decode(self, sample: Sample) -> Image.Image:
        """Return the picture of a sample."""
        (image,) = self.base.decode(sample.latents)
        return image

    def _route(self, samples: Sequence[Sample]) -> None:
        """Name the slots of each row, unless they are those of the step before: what was gathered then is kept."""
        rows: list[Sequence[SlotUse]] = []
        for sample in samples:
            rows += [tuple(sample.request.slots)] * sample.rows
        routed = tuple(rows)
        if routed != self._routed:
            self.denoiser.routing.set(routed, self.base.device)
            self._routed = routed

    def forget_route(self) -> None:
        """Gather the weights of slots anew: one of them was written."""
        self._routed = None

    def _residuals(
        self,
        samples: Sequence[Sample],
        noisy: Tensor,
        times: Tensor,
        conditions: Conditions,
    ) -> Residuals | None:
        """Return what ControlNets add to each row, zeros where none acts; None when none acts at all.

        Rows of one ControlNet share its forward pass.
        """
        starts = [0]
        for sample in samples:
            starts.append(starts[-1] + sample.rows)
        acting: dict[int, list[tuple[int, Control]]] = {}
        for number, sample in enumerate(samples):
            for control in sample.acting():
                acting.setdefault(id(control.network), []).append((number, control))
        total: Residuals | None = None
        for found in acting.values():
            rows = []
            pictures = []
            for number, control in found:
                rows += range(starts[number], starts[number + 1])
                pictures.append(control.condition.expand(samples[number].rows, -1, -1, -1))
            places = torch.tensor(rows, device=noisy.device)
            added = self.base.residuals(
                found[0][1].network,
                noisy.index_select(0, places),
                times.index_select(0, places),
                {name: tensor.index_select(0, places) for name, tensor in conditions.items()},
                torch.cat(pictures),
            )
            counts = [samples[number].rows for number, _ in found]
            total = self._added(total, added, found, counts, places, len(noisy))
        return total

    def _added(
        self,
        total: Residuals | None,
        added: Residuals,
        found: Sequence[tuple[int, Control]],
        counts: Sequence[int],
        places: Tensor,
        rows: int,
    ) -> Residuals:
        """Return residuals with those of one ControlNet, scaled and masked by the control of each sample."""
        levels = []
        for number, tensor in enumerate([*added.down, added.middle]):
            parts = tensor.split(list(counts))
            scaled = [control.scaled(part) for (_, control), part in zip(found, parts, strict=True)]
            level = tensor.new_zeros(rows, *tensor.shape[1:])
            if total is not None:
                level = [*total.down, total.middle][number]
            level.index_add_(0, places, torch.cat(scaled))
            levels.append(level)
        return Residuals(levels[:-1], levels[-1])


def joined(conditions: Sequence[Conditions]) -> Conditions:
    """Return conditions of several samples as those of one batch."""
    names = conditions[0]
    return {name: torch.cat([one[name] for one in conditions]) for name in names}
