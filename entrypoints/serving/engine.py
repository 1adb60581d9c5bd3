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
        noisy_parts = []
        time_parts = []
        condition_parts = []
        for sample in samples:
            noisy_parts.append(sample.noisy())
            time_parts.append(sample.time.expand(sample.rows))
            condition_parts.append(sample.request.conditions)
        noisy = torch.cat(noisy_parts)
        times = torch.cat(time_parts)
        conditions = joined(condition_parts)
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
            rows: list[int] = []
            pictures = []
            counts = []
            for number, control in found:
                count = samples[number].rows
                first = starts[number]
                rows += range(first, first + count)
                pictures.append(control.condition.expand(count, -1, -1, -1))
                counts.append(count)
            places = torch.tensor(rows, device=noisy.device)
            picked: Conditions = {}
            for name, tensor in conditions.items():
                picked[name] = tensor.index_select(0, places)
            _, first_control = found[0]
            added = self.base.residuals(
                first_control.network,
                noisy.index_select(0, places),
                times.index_select(0, places),
                picked,
                torch.cat(pictures),
            )
            controls = [control for _, control in found]
            total = self._added(total, added, controls, counts, places, len(noisy))
        return total

    def _added(
        self,
        total: Residuals | None,
        added: Residuals,
        controls: Sequence[Control],
        counts: Sequence[int],
        places: Tensor,
        rows: int,
    ) -> Residuals:
        """Return residuals with those of one ControlNet, scaled and masked by the control of each sample.

        `counts` are the rows of each control, and `places` where all of these are among the `rows` of the batch.
        """
        before: Sequence[Tensor | None] = [None] * (len(added.down) + 1)
        if total is not None:
            before = [*total.down, total.middle]
        levels = []
        for level, tensor in zip(before, [*added.down, added.middle], strict=True):
            if level is None:
                level = tensor.new_zeros(rows, *tensor.shape[1:])  # noqa: PLW2901
            scaled = []
            parts = tensor.split(list(counts))
            for control, part in zip(controls, parts, strict=True):
                scaled.append(control.scaled(part))
            level.index_add_(0, places, torch.cat(scaled))
            levels.append(level)
        *down, middle = levels
        return Residuals(down, middle)


def joined(conditions: Sequence[Conditions]) -> Conditions:
    """Return conditions of several samples as those of one batch."""
    batch: Conditions = {}
    for name in conditions[0]:
        parts = [one[name] for one in conditions]
        batch[name] = torch.cat(parts)
    return batch
