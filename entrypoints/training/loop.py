"""The training loop that all recipes share: from an objective and a tuner to trained weights, cut off or not."""

import math
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.machine import Machine
from entrypoints.runtime.randomness import keyed_seed
from entrypoints.runtime.stop import Stopped
from entrypoints.training import checkpoint
from entrypoints.training.objective import Objective
from entrypoints.training.run import Run
from orchestrator.contract.digest import FileDigest
from orchestrator.contract.events import Checkpoint, Phase, Resumed, Step, Warned, emit
from orchestrator.contract.recipe import Optimised

AUTOCAST = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NOT_YET = FileDigest(sha256="", size=0)
WEIGHT = "weight"  # kinds of tensors in a checkpoint, beside the names of AdamW's state
OBJECTIVE = "objective"

Validate = Callable[[int], None]
"""Draws pictures with the model as it is after a step."""


class NotFiniteError(Exception):
    """A step gave no finite number, and the weights are as they were before it."""


def learning_rate(recipe: Optimised, step: int) -> float:
    """Return the rate of a step, counted from 0: a line up, then constant, or down along a cosine or a line."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / (recipe.warmup_steps + 1)
    done = (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
    if recipe.lr_schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2
    if recipe.lr_schedule == "linear":
        return recipe.learning_rate * (1 - done)
    return recipe.learning_rate


class Trainer:
    """The optimizer, the gradient scaler, and how far they are."""

    def __init__(self, run: Run, recipe: Optimised, parameters: dict[str, nn.Parameter], objective: Objective) -> None:
        self.run = run
        self.recipe = recipe
        self.parameters = parameters
        self.objective = objective
        self.done = 0
        self.optimizer = torch.optim.AdamW(
            list(parameters.values()), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=recipe.mixed_precision == "fp16")

    def take_step(self) -> float:
        """Do one optimizer step and return its loss; NotFiniteError before a bad one touches the weights.

        Loss and gradients are those of all ranks together, so that all come to the same decision.
        """
        ranks = self.run.ranks
        torch.manual_seed(keyed_seed(self.recipe.seed, "dropout", ranks.rank, self.done))
        loss = ranks.mean(self._backward(self.objective.losses(self.done, ranks)))
        ranks.average_gradients(self.parameters.values())
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.max_grad_norm)
        value, length = torch.stack([loss, norm]).tolist()  # the only sync of a step
        if not math.isfinite(value):
            raise NotFiniteError("loss is not a finite number")
        if not math.isfinite(length) and not self._scaler_can_skip():
            raise NotFiniteError("gradients are not finite numbers")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.done)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return float(value)

    def _backward(self, losses: Iterator[Tensor]) -> Tensor:
        """Accumulate gradients over the forward passes and return their mean loss."""
        precision = AUTOCAST[self.recipe.mixed_precision]
        passes = self.recipe.gradient_accumulation
        total = torch.zeros((), device=self.run.device)
        autocast = torch.autocast(self.run.device.type, precision, enabled=precision != torch.float32)
        for _ in range(passes):
            with autocast:
                loss = next(losses) / passes
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
        return total

    def _scaler_can_skip(self) -> bool:
        """Whether infinite gradients may come of the scaler's factor: it leaves such a step out and halves it.

        Without scaling, or with a factor that is below one already, they are infinite by themselves.
        """
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1

    def is_finite(self) -> bool:
        """Whether all weights are finite numbers."""
        return all(bool(parameter.isfinite().all()) for parameter in self.parameters.values())

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights, AdamW's state of each, and the objective's state, by kind and name."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            found[f"{WEIGHT}/{name}"] = parameter.data
            for key, value in self.optimizer.state[parameter].items():
                found[f"{key}/{name}"] = value
        for name, value in self.objective.state().items():
            found[f"{OBJECTIVE}/{name}"] = value
        return found

    @torch.no_grad()
    def restore(self, manifest: checkpoint.Manifest, tensors: Mapping[str, Tensor]) -> None:
        """Go back to where a checkpoint was written."""
        of_objective: dict[str, Tensor] = {}
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            if kind == OBJECTIVE:
                of_objective[name] = tensor
            elif kind == WEIGHT:
                self.parameters[name].copy_(tensor)
            else:
                self.optimizer.state[self.parameters[name]][kind] = tensor
        self.objective.restore(of_objective)
        if manifest.scaler:
            self.scaler.load_state_dict(dict(manifest.scaler))
        self.done = manifest.step


class Saver:
    """Writes checkpoints by the minute, by the step, and whenever it is told to; the first rank does, for all."""

    def __init__(self, run: Run, identity: checkpoint.Identity, trainer: Trainer) -> None:
        self.run = run
        self.identity = identity
        self.trainer = trainer
        self.saved = 0
        self.last = time.monotonic()

    def resume(self) -> None:
        """Restore the newest valid checkpoint, if there is one."""
        self._require_agreement(self.identity.number, "do not hold the same data, base model and code")
        folder, manifest, complaints = checkpoint.find(self.run.environment.checkpoints, self.identity)
        for complaint in complaints:
            emit(Warned(message=complaint))
        step = manifest.step if manifest else 0
        self._require_agreement(step, f"hold different checkpoints (this one's is of step {step})")
        if folder and manifest:
            self.trainer.restore(manifest, checkpoint.load_tensors(folder, self.run.device))
            self.saved = manifest.step
            emit(Resumed(step=manifest.step))
            self._compare_machines(manifest.machine)

    def _require_agreement(self, number: int, difference: str) -> None:
        """Raise TrainingError("resume") unless all ranks hold the same number."""
        if not self.run.ranks.agree(number, self.run.device):
            message = f"The processes of this job {difference}, and would train different things."
            raise TrainingError("resume", message, "Submit the job again with --restart.")

    def _compare_machines(self, then: Machine) -> None:
        differences = then.differences(self.run.machine)
        if differences:
            message = f"The run continues on another machine than it began on: {', '.join(differences)}"
            emit(Warned(message=f"{message}. Its bytes may differ from those of an uninterrupted run."))

    def due(self) -> bool:
        """Whether the recipe wants a checkpoint after this step."""
        every = self.run.recipe.checkpoint_steps
        if every is not None and self.trainer.done % every == 0:
            return True
        return time.monotonic() - self.last >= self.run.recipe.checkpoint_minutes * 60

    def save(self) -> None:
        """Write a checkpoint of this moment, unless there is one."""
        if self.saved == self.trainer.done:
            return
        if self.run.ranks.is_first:
            manifest = checkpoint.Manifest(
                step=self.trainer.done,
                identity=self.identity,
                machine=self.run.machine,
                scaler=self.trainer.scaler.state_dict(),
                tensors=NOT_YET,
            )
            keep = self.run.recipe.keep_checkpoints
            checkpoint.save(self.run.environment.checkpoints, manifest, self.trainer.tensors(), keep)
        self.saved, self.last = self.trainer.done, time.monotonic()
        emit(Checkpoint(step=self.saved))


def fit(
    run: Run, base: BaseModel, recipe: Optimised, tuner: Tuner, objective: Objective, validate: Validate | None = None
) -> None:
    """Train to the recipe's last step, from the newest checkpoint on; `validate` draws pictures now and then.

    Raises Stopped when the process was asked to end, and TrainingError("nan-loss"), both after saving.
    """
    _prepare(base, recipe, tuner)
    trainer = Trainer(run, recipe, tuner.parameters, objective)
    saver = Saver(run, run.identity(base), trainer)
    saver.resume()
    emit(Phase(name="training", of=recipe.steps))
    try:
        _steps(run, trainer, saver, validate if run.ranks.is_first else None)
    except Stopped:
        saver.save()
        raise
    except NotFiniteError as error:
        if trainer.is_finite():
            saver.save()
        raise _nan_loss(trainer, saver, error) from error
    saver.save()
    base.denoiser.eval()
    for encoder in base.text_encoders.values():
        encoder.eval()


def _steps(run: Run, trainer: Trainer, saver: Saver, validate: Validate | None) -> None:
    recipe, began, first = trainer.recipe, time.monotonic(), trainer.done
    if validate and first and first % recipe.validation_steps == 0:
        validate(first)  # the run was perhaps cut off between the checkpoint and these pictures
    while trainer.done < recipe.steps:
        loss = trainer.take_step()
        announce(trainer, loss, (time.monotonic() - began) / (trainer.done - first))
        if saver.due():
            saver.save()
        run.check_stop()
        if validate and trainer.done % recipe.validation_steps == 0:
            validate(trainer.done)


def _nan_loss(trainer: Trainer, saver: Saver, error: NotFiniteError) -> TrainingError:
    """Say at which step it ended, what is left, and what to change."""
    kept = f"the checkpoint at step {saver.saved} is kept" if saver.saved else "there is no checkpoint"
    rate = trainer.recipe.learning_rate
    advice = f"Submit again with a lower rate: -s learning_rate={rate / 10:g}"
    if trainer.done == 0:
        advice = "Check the base model: nothing was trained yet"
    if trainer.scaler.is_enabled():
        advice += ", or in another arithmetic: -s mixed_precision=bf16"
    return TrainingError("nan-loss", f"The {error} at step {trainer.done + 1}; {kept}.", f"{advice}.")


def announce(trainer: Trainer, loss: float, seconds: float) -> None:
    """Say that a step is done; `seconds` is the mean of this process's steps."""
    step = trainer.done
    emit(
        Step(
            step=step,
            of=trainer.recipe.steps,
            loss=loss,
            learning_rate=learning_rate(trainer.recipe, step - 1),
            seconds_per_step=seconds,
            measures=dict(trainer.objective.measures()),
        )
    )


def _prepare(base: BaseModel, recipe: Optimised, tuner: Tuner) -> None:
    """Put what is trained in training mode, which gradient checkpointing asks for; its dropout is keyed by the step."""
    base.denoiser.train()
    if recipe.gradient_checkpointing:
        base.denoiser.enable_gradient_checkpointing()
    for encoder in base.text_encoders.values():
        # A frozen encoder must not drop anything: it is asked only once.
        encoder.train(tuner.trains_text_encoder)
        if recipe.gradient_checkpointing:
            encoder.gradient_checkpointing_enable()
