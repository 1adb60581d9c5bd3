"""Alarms of a run that learns nothing, or worse than nothing, in its first tenth: while little has been paid for.

What the loss of single steps hides in its noise, a probe shows: the loss of the same images, noise and times at every
look. Of each alarm the message says what was seen and what usually causes it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.events import Warned, emit

LOOKS = (0.05, 0.1)
"""Shares of the steps after which the probe is looked at again."""
FEWEST_STEPS = 40
"""In a shorter run, too little can have been learned for the probe to show it."""
DOUBTFUL = 0.8
"""Loss over mean square of the target, at the start, from which more samples are probed: a model that fits its images
is mostly far below."""
NO_BETTER_THAN_ZERO = 0.87
"""The same of DOUBTED samples, and what is too much of it. Measured on the packaged data: up to 0.80 in good runs, also
in a style that is foreign to the model; 0.93 and more with wrong noise or targets. Not measured on models of photos."""
WORSE_THAN_ZERO = 1.35
"""The same of the sample that is predicted worst: up to 1.15 in good runs, 1.60 and more in the others."""
SPREAD = (0.4, 2.5)
"""Standard deviation of latents that were scaled as they should be, which is about 1."""
OTHER_TIMES = (0.5, 1.5)
"""Factors by which the denoiser is told other times than the noise is of."""
PROBED = 16
"""Samples of a probe."""
DOUBTED = 64
"""Samples of the probe that decides whether a base model fits the images."""
CAPTIONS_PROBED = 32
"""Samples of the probes that compare captions."""
BETTER_DESCRIBED = 1.4
"""Standard errors by which an image's own caption is better than those of others. Measured on the packaged style: 2.3
and more with the right captions, 0.5 and less with captions in another order."""
COMPARED = 1024
"""Numbers of each trained weight that are compared with those of the start."""
CERTAIN = 3.0
"""Standard errors from which a change is no chance."""
HIGHER = 1.0
"""Percent of the loss from which a rise, or a fall, is more than the unrest of the first steps."""
VISIBLE = 1.0
"""Standard errors below which nothing can be said to have changed."""
EXPLODED = 1000.0
"""Norm of the gradients over its median so far."""
SEVERAL = 5
"""Steps in a row."""


@dataclass(frozen=True)
class Probe:
    """The loss of some samples; two probes are of the same images, noise and times."""

    losses: Tensor
    """(samples,)"""
    target_squares: Tensor
    """Mean square of what should be predicted, (samples,): the loss of a model that predicts zero."""
    spread: float
    """Standard deviation of the latents."""
    falls: bool = True
    """Whether it falls as soon as something is learned; not where a frozen model predicts well by itself."""

    @property
    def ratio(self) -> float:
        """The loss over that of a model that predicts zero."""
        return float(self.losses.mean() / self.target_squares.mean())

    @property
    def worst_ratio(self) -> float:
        """The same of the sample that is predicted worst."""
        return float((self.losses / self.target_squares).max())


@runtime_checkable
class Probed(Protocol):
    """An objective that can be probed."""

    def probe(self, samples: int, *, told: float = 1.0, shift: int = 0) -> Probe | None:
        """Return the loss of so many samples, which are the same at every call, without gradients.

        The denoiser is told the times multiplied by `told`. With a `shift`, each image has another caption, so
        many places behind its own; None where captions do not describe images, or when the shifts are used up.
        """
        ...


@runtime_checkable
class Rewarded(Protocol):
    """An objective that has nothing to teach in some steps, by no fault of the code."""

    def has_signal(self) -> bool:
        """Whether there was something to learn in the latest step."""
        ...


class Watchdog:
    """Looks at a run from its first step on; a resumed run was looked at before."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], objective: object, steps: int) -> None:
        self.parameters = parameters
        self.objective = objective if isinstance(objective, Probed) else None
        self.rewarded = objective if isinstance(objective, Rewarded) else None
        self.looks = {max(2, math.ceil(share * steps)) for share in LOOKS} if steps >= FEWEST_STEPS else set()
        self.first: Probe | None = None
        self.norms: list[float] = []
        self._start: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_training(self) -> None:
        """Remember where the weights begin, and warn of data that the base model cannot make sense of."""
        self._start = {name: some_of(parameter).clone() for name, parameter in self.parameters.items()}
        if self.objective is None or not self.looks:
            return
        self.first = self.objective.probe(PROBED)
        for message in self._doubts_of_data():
            emit(Warned(message=message))

    def _doubts_of_data(self) -> Iterator[str]:
        if self.first is None or self.objective is None:
            return
        if self.first.ratio > DOUBTFUL:
            yield from doubts_of_fit(self.objective.probe(DOUBTED))
        smallest, largest = SPREAD
        if not smallest < self.first.spread < largest:
            yield (
                f"The latents of these images have a standard deviation of {self.first.spread:.2f}, where about 1 is "
                "expected: check scaling_factor in vae/config.json of the base model."
            )
        for told in OTHER_TIMES:
            other = self.objective.probe(PROBED, told=told)
            if other is not None and standard_errors(self.first.losses - other.losses) > VISIBLE:
                yield (
                    f"The base model predicts better when it is told {told:g} times the time of the noise. Its "
                    "scheduler may not be the one it was trained with (betas, shift)."
                )
        if self._captions_are_of_others():
            yield (
                "To the base model, the captions describe their own images no better than one another's. Check that "
                "each caption stands beside its own image; if the words are new to the model, that is as it should be."
            )

    def _captions_are_of_others(self) -> bool:
        """Whether images are predicted no better with their own captions than with those of others on average."""
        if self.objective is None:
            return False
        others: list[Tensor] = []
        while (other := self.objective.probe(CAPTIONS_PROBED, shift=len(others) + 1)) is not None:
            others.append(other.losses)
        if not others:
            return False
        own = self.objective.probe(CAPTIONS_PROBED)
        if own is None:
            return False
        advantage = torch.stack(others).mean(dim=0) - own.losses
        return standard_errors(advantage) < BETTER_DESCRIBED

    def after_step(self, step: int, norm: float) -> None:
        """Look at a run after `step`, counted from 1; `norm` is that of its gradients.

        Raises TrainingError("learns-nothing") when it cannot come to anything.
        """
        if not math.isfinite(norm):  # half precision: the step was left out
            return
        if self.rewarded is not None and not self.rewarded.has_signal():
            return
        if norm == 0:
            raise _learns_nothing(
                f"the gradients of step {step} are all zero",
                "Nothing that is trained has an effect on the loss; check the recipe's code for a detached tensor.",
            )
        self._look_at_gradients(step, norm)
        self._require_change(step)
        if step in self.looks:
            self._look_at_probe(step)

    def _look_at_gradients(self, step: int, norm: float) -> None:
        """Warn, once, of gradients that stay far above what they were."""
        self.norms.append(norm)
        earlier = sorted(self.norms[:-SEVERAL])
        if len(earlier) < SEVERAL:
            return
        usual = earlier[len(earlier) // 2]
        latest = self.norms[-SEVERAL:]
        if min(latest) > EXPLODED * usual:
            emit(
                Warned(
                    message=f"Since step {step - SEVERAL + 1} the gradients are {EXPLODED:.0f} times what they were."
                )
            )
            self.norms.clear()

    def _require_change(self, step: int) -> None:
        """Raise when no parameter has changed since the start after some steps; once one has, stop comparing."""
        if not self._start:
            return
        if any(not torch.equal(some_of(self.parameters[name]), start) for name, start in self._start.items()):
            self._start.clear()
        elif len(self.norms) >= SEVERAL:
            raise _learns_nothing(
                f"no trained weight has changed in {step} steps",
                "Check learning_rate, and that the optimizer holds what is trained.",
            )

    def _look_at_probe(self, step: int) -> None:
        """Compare the probe with that of the start."""
        if self.first is None or self.objective is None:
            return
        now = self.objective.probe(PROBED)
        if now is None:
            return
        change = now.losses - self.first.losses
        if not bool(change.any()):
            raise _learns_nothing(
                f"after {step} steps the model predicts exactly what it predicted at the start",
                "What is trained is not a part of the model that predicts; check the recipe's code.",
            )
        errors = standard_errors(change)
        percent = 100 * float(change.mean() / self.first.losses.mean())
        if errors > CERTAIN and percent > HIGHER:
            raise _learns_nothing(
                f"after {step} steps the loss on the same noise is {percent:.1f} % higher than at the start",
                "Submit again with a lower rate, for example a tenth: -s learning_rate=...",
            )
        if not now.falls:
            return
        if step == max(self.looks) and errors > -VISIBLE and percent > -HIGHER:
            message = (
                f"After {step} steps the loss on the same noise has not fallen ({percent:+.2f} %, within its own "
                "noise). If it stays so the run learns nothing: raise learning_rate, or check images and captions."
            )
            emit(Warned(message=message))


def some_of(parameter: nn.Parameter) -> Tensor:
    """Return a few numbers of a parameter, to see whether it changes: a copy of all would take the model's memory."""
    return parameter.detach().flatten()[:COMPARED]


def standard_errors(changes: Tensor) -> float:
    """Return the mean of paired differences in units of its standard error."""
    error = changes.std() / math.sqrt(len(changes))
    if error == 0:
        return 0.0
    return float(changes.mean() / error)


def _learns_nothing(what: str, next_step: str) -> TrainingError:
    return TrainingError("learns-nothing", f"The run learns nothing: {what}.", next_step)


def doubts_of_fit(probe: Probe | None) -> Iterator[str]:
    """Yield why a base model seems not to fit the images.

    Of many samples, because a few differ by more than good runs do from bad ones.
    """
    if probe is None:
        return
    if probe.ratio > NO_BETTER_THAN_ZERO and probe.worst_ratio > WORSE_THAN_ZERO:
        yield (
            "Before training, the base model predicts these images hardly better than a model that predicts zero "
            f"({probe.ratio:.2f} of its loss, and {probe.worst_ratio:.2f} at worst). Its latents may be scaled wrongly "
            "(scaling_factor in vae/config.json), or its scheduler may not be the one it was trained with "
            "(prediction_type, betas)."
        )
