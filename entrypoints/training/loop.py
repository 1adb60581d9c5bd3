"""The training loop that all recipes share: from an objective and a tuner to trained weights.

A run may be interrupted at any time. Resumed from its newest checkpoint it ends in the same bytes, because everything
random is keyed by the step and everything else is in the checkpoint.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from functools import partial

import torch
from torch import Tensor, nn

from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.precision import PRECISIONS
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.history import History
from entrypoints.runtime.machine import Machine
from entrypoints.runtime.randomness import keyed_seed
from entrypoints.runtime.stop import Stopped
from entrypoints.training import checkpoint
from entrypoints.training.averages import Average
from entrypoints.training.compilation import CompiledForward
from entrypoints.training.objective import Objective
from entrypoints.training.optimizers import SavedOptimizer, SecondRate
from entrypoints.training.run import Run
from entrypoints.training.trackers import Trackers, tracking
from entrypoints.training.watchdog import Watchdog
from orchestrator.contract.digest import FileDigest
from orchestrator.contract.events import TRAINING_PHASE, Checkpoint, Phase, Resumed, Step, Warned, emit, warnings_told
from orchestrator.contract.mixins import Optimised

NOT_YET = FileDigest(sha256="", size=0)

# Kinds of tensors in a checkpoint, beside the optimizer's own names ("step", "exp_avg", "exp_avg_sq" of AdamW).
WEIGHT = "weight"
OBJECTIVE = "objective"
AVERAGE = "average"

Validate = Callable[[int], None]
"""Draws images with the model as it is after a step."""


class NotFiniteError(Exception):
    """A step gave no finite number, and the weights are as they were before it."""


def learning_rate(recipe: Optimised, step: int) -> float:
    """Return the rate of a step, counted from 0.

    It rises in a line during the warm-up. Then it is constant, or falls along a line or half a cosine towards 0.
    """
    peak = recipe.learning_rate
    warmup = recipe.warmup_steps
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / (recipe.steps - warmup)
    if recipe.lr_schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    if recipe.lr_schedule == "linear":
        return peak * (1 - done)
    return peak


class Trainer:
    """The optimizer, the gradient scaler, and how many steps they have done."""

    def __init__(
        self,
        run: Run,
        recipe: Optimised,
        parameters: dict[str, nn.Parameter],
        objective: Objective,
        second: SecondRate | None = None,
    ) -> None:
        self.run = run
        self.recipe = recipe
        self.parameters = parameters
        self.objective = objective
        self.done = 0
        self.norm = 0.0
        """Of the latest step's gradients."""
        self.saved_optimizer = SavedOptimizer(recipe, parameters, second)
        self.optimizer = self.saved_optimizer.optimizer
        self.average: Average | None = None
        if recipe.ema_decay is not None:
            self.average = Average(parameters, recipe.ema_decay)
        # Without half precision there is nothing to scale: a disabled scaler passes everything through.
        self.scaler = torch.amp.GradScaler(
            run.device.type,
            enabled=recipe.mixed_precision == "fp16",
        )

    def take_step(self) -> float:
        """Do one optimizer step and return its loss.

        Loss and gradients are those of all ranks together, so that all come to the same decision. Raises NotFiniteError
        before the weights are touched.
        """
        recipe = self.recipe
        ranks = self.run.ranks
        step = self.done
        # Dropout draws from the global generator, so it is seeded for each step, and differently on each rank.
        torch.manual_seed(keyed_seed(recipe.seed, "dropout", ranks.rank, step))

        losses = self.objective.losses(step, ranks)
        own_loss = self._backward(losses)
        loss = ranks.mean(own_loss)
        ranks.average_gradients(self.parameters.values())
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(
            self.parameters.values(),
            recipe.max_grad_norm,
        )
        # Both figures in one transfer: the only time in a step that the CPU waits for the GPU.
        loss_value, norm_value = torch.stack([loss, norm]).tolist()
        self.norm = norm_value
        self._require_finite(loss_value, norm_value)

        self.saved_optimizer.set_rate(learning_rate(recipe, step), step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        if self.average is not None:
            self.average.update(step)
        return float(loss_value)

    def _backward(self, losses: Iterator[Tensor]) -> Tensor:
        """Accumulate gradients over the forward passes and return their mean loss."""
        device = self.run.device
        precision = PRECISIONS[self.recipe.mixed_precision]
        autocast = torch.autocast(
            device.type,
            precision,
            enabled=precision != torch.float32,
        )
        passes = self.recipe.gradient_accumulation
        mean_loss = torch.zeros((), device=device)
        for _ in range(passes):
            with autocast:
                loss = next(losses) / passes
            scaled = self.scaler.scale(loss)
            torch.autograd.backward(scaled)
            mean_loss += loss.detach()
        return mean_loss

    def _require_finite(self, loss: float, norm: float) -> None:
        """Raise NotFiniteError unless a step's loss and the norm of its gradients are finite.

        Infinite gradients are allowed where the scaler's factor may be the cause: the scaler then skips the step and
        halves the factor. Without scaling, or with a factor that is below 1 already, they are infinite by themselves.
        """
        if not math.isfinite(loss):
            raise NotFiniteError("loss is not a finite number")
        if math.isfinite(norm):
            return
        scaler_can_skip = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        if not scaler_can_skip:
            raise NotFiniteError("gradients are not finite numbers")

    def is_finite(self) -> bool:
        """Whether all weights are finite numbers."""
        return all(bool(parameter.isfinite().all()) for parameter in self.parameters.values())

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights, their average, the optimizer's state of each, and the objective's, as "kind/name"."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            found[f"{WEIGHT}/{name}"] = parameter.data
        if self.average is not None:
            for name, value in self.average.weights.items():
                found[f"{AVERAGE}/{name}"] = value
        for kind, name, value in self.saved_optimizer.tensors():
            found[f"{kind}/{name}"] = value
        for name, value in self.objective.state().items():
            found[f"{OBJECTIVE}/{name}"] = value
        return found

    @torch.no_grad()
    def restore(self, manifest: checkpoint.Manifest, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take over everything that `tensors` returned when the checkpoint was written."""
        objective_state: dict[str, Tensor] = {}
        for key, tensor in tensors:
            kind, _, name = key.partition("/")
            if kind == OBJECTIVE:
                objective_state[name] = tensor
            elif kind == WEIGHT:
                self.parameters[name].copy_(tensor)
            elif kind == AVERAGE and self.average is not None:
                self.average.weights[name] = tensor
            else:
                self.saved_optimizer.restore_tensor(kind, name, tensor)
        self.saved_optimizer.restore_numbers(manifest.optimizer)
        self.objective.restore(objective_state)
        if manifest.scaler:
            scaler_state = dict(manifest.scaler)
            self.scaler.load_state_dict(scaler_state)
        self.done = manifest.step


class Saver:
    """Writes checkpoints every few minutes, every few steps, and on demand; the first rank writes for all."""

    def __init__(
        self,
        run: Run,
        identity: checkpoint.Identity,
        trainer: Trainer,
    ) -> None:
        self.run = run
        self.root = run.environment.checkpoints
        self.identity = identity
        self.trainer = trainer
        self.history = History(self.root, trainer.recipe.steps)
        self.saved_step = 0
        self.saved_at = time.monotonic()  # seconds

    def resume(self) -> None:
        """Restore the newest valid checkpoint, if there is one.

        Raises TrainingError("resume") when it belongs to another run, or when the ranks do not agree on data, code or
        checkpoint: they would train different things under one name.
        """
        self._require_agreement(self.identity.number, "do not hold the same data, base model and code")
        folder, manifest, complaints = checkpoint.find(self.root, self.identity)
        for complaint in complaints:
            emit(Warned(message=complaint))
        step = manifest.step if manifest else 0
        self._require_agreement(step, f"hold different checkpoints (this one's is of step {step})")
        if folder and manifest:
            tensors = checkpoint.read_tensors(folder, self.run.device)
            self.trainer.restore(manifest, tensors)
            self.saved_step = step
            self.history = History(self.root, self.trainer.recipe.steps, step)
            emit(Resumed(step=step))
            self._warn_of_differences(manifest.machine)

    def _require_agreement(self, number: int, difference: str) -> None:
        """Raise TrainingError("resume") unless all ranks hold the same number."""
        if not self.run.ranks.agree(number, self.run.device):
            raise TrainingError(
                "resume",
                f"The processes of this job {difference}, and would train different things.",
                "Submit the job again with --restart.",
            )

    def _warn_of_differences(self, then: Machine) -> None:
        """Warn when the run began on a machine that rounds differently."""
        differences = then.differences(self.run.machine)
        if differences:
            changes = ", ".join(differences)
            message = (
                f"The run resumes on another machine than it began on: {changes}. "
                "Its bytes may differ from those of an uninterrupted run."
            )
            emit(Warned(message=message))

    def due(self) -> bool:
        """Whether it is time for a checkpoint, by the recipe's steps or minutes."""
        recipe = self.run.recipe
        every = recipe.checkpoint_steps
        if every is not None and self.trainer.done % every == 0:
            return True
        elapsed = time.monotonic() - self.saved_at
        return elapsed >= recipe.checkpoint_minutes * 60

    def save(self) -> None:
        """Write a checkpoint of this step, unless there is one."""
        run = self.run
        trainer = self.trainer
        if self.saved_step == trainer.done:
            return
        if run.ranks.is_first:
            self.history.save(warnings_told())
            manifest = checkpoint.Manifest(
                step=trainer.done,
                identity=self.identity,
                machine=run.machine,
                scaler=trainer.scaler.state_dict(),
                optimizer=trainer.saved_optimizer.numbers(),
                tensors=NOT_YET,
            )
            checkpoint.save(
                self.root,
                manifest,
                trainer.tensors(),
                keep=run.recipe.keep_checkpoints,
            )
        self.saved_step = trainer.done
        self.saved_at = time.monotonic()
        emit(Checkpoint(step=trainer.done))

    def save_history(self) -> None:
        """Write the steps so far, also where no checkpoint is: the report of a run that fails shows where it went."""
        if self.run.ranks.is_first:
            with suppress(OSError):  # the run ends by an error of its own, or has saved a checkpoint
                self.history.save(warnings_told())


def fit(
    run: Run,
    base: BaseModel,
    recipe: Optimised,
    tuner: Tuner,
    objective: Objective,
    validate: Validate | None = None,
    second: SecondRate | None = None,
) -> None:
    """Train to the recipe's last step, starting from the newest checkpoint.

    `validate` draws images every `validation_steps`; all ranks call it. Raises Stopped when the process was asked to
    end, and TrainingError("nan-loss"), both after saving.
    """
    _warn_of_slow_precision(run, recipe)
    _prepare(base, recipe, tuner)
    compiled = CompiledForward(base.denoiser, enabled=recipe.compile)
    trainer = Trainer(run, recipe, tuner.parameters, objective, second)
    if validate is not None:
        validate = partial(_validate, trainer, compiled, validate)
    saver = Saver(run, run.identity(base), trainer)
    saver.resume()
    emit(Phase(name=TRAINING_PHASE, of=recipe.steps))
    try:
        with tracking(run, trainer.done) as trackers:
            _take_steps(trainer, saver, trackers, validate)
    except Stopped:
        saver.save()
        run.ranks.barrier()  # torchrun ends the others soon after the first, and one of them is still saving
        raise
    except NotFiniteError as error:
        if trainer.is_finite():
            saver.save()
        run.ranks.barrier()
        raise _nan_loss(trainer, saver, error) from error
    finally:
        saver.save_history()
    saver.save()
    run.ranks.barrier()  # a host that is done tidies up its checkpoints, which may lie in one folder with the first's
    compiled.remove()
    if trainer.average is not None:
        trainer.average.publish()
    base.denoiser.eval()
    for encoder in base.text_encoders.values():
        encoder.eval()


def _validate(
    trainer: Trainer,
    compiled: CompiledForward,
    validate: Validate,
    step: int,
) -> None:
    """Draw validation images with the weights that would be published now."""
    published = nullcontext() if trainer.average is None else trainer.average.published()
    with compiled.paused(), published:
        validate(step)


def _take_steps(
    trainer: Trainer,
    saver: Saver,
    trackers: Trackers,
    validate: Validate | None,
) -> None:
    """Train to the last step, with events, checkpoints and validation images on the way."""
    run = trainer.run
    recipe = trainer.recipe
    first = trainer.done
    # What the base draws, at step 0. Later, the run may have been interrupted between the checkpoint and these images;
    # drawing them twice does no harm.
    if validate and first % recipe.validation_steps == 0:
        validate(first)
    watchdog = Watchdog(trainer.parameters, trainer.objective, recipe.steps) if first == 0 else None
    if watchdog is not None:
        watchdog.before_training()
    began = time.monotonic()
    while trainer.done < recipe.steps:
        loss = trainer.take_step()
        if watchdog is not None:
            watchdog.after_step(trainer.done, trainer.norm)
        elapsed = time.monotonic() - began
        event = announce(trainer, loss, elapsed / (trainer.done - first))
        saver.history.add(event, elapsed)
        trackers.log(event)
        if saver.due():
            saver.save()
        run.check_stop()
        if validate and trainer.done % recipe.validation_steps == 0:
            paused = time.monotonic()
            validate(trainer.done)
            trackers.show(run.environment.samples, trainer.done)
            began += time.monotonic() - paused  # images are no steps


def _nan_loss(trainer: Trainer, saver: Saver, error: NotFiniteError) -> TrainingError:
    """Return an error that says at which step the run ended, what is left, and what to change."""
    kept = "there is no checkpoint"
    if saver.saved_step:
        kept = f"the checkpoint at step {saver.saved_step} is kept"
    lower_rate = trainer.recipe.learning_rate / 10
    advice = f"Submit again with a lower rate: -s learning_rate={lower_rate:g}"
    if trainer.done == 0:
        advice = "Check the base model: nothing was trained yet"
    if trainer.scaler.is_enabled():
        advice += ", or with another precision: -s mixed_precision=bf16"
    return TrainingError(
        "nan-loss",
        f"The {error} at step {trainer.done + 1}; {kept}.",
        f"{advice}.",
    )


def announce(trainer: Trainer, loss: float, seconds: float) -> Step:
    """Report that a step is done, and return what was said; `seconds` is the mean duration of this process's steps."""
    recipe = trainer.recipe
    step = trainer.done  # as people count, from 1
    event = Step(
        step=step,
        of=recipe.steps,
        loss=loss,
        learning_rate=learning_rate(recipe, step - 1),
        seconds_per_step=seconds,
        measures=dict(trainer.objective.measures()),
    )
    emit(event)
    return event


def _warn_of_slow_precision(run: Run, recipe: Optimised) -> None:
    """Warn of half precision without a GPU: most CPUs have no arithmetic for it and convert each number."""
    precision = recipe.mixed_precision
    if run.device.type == "cpu" and precision != "no":
        message = (
            f"mixed_precision={precision} is for GPUs: on a CPU it saves no time, and steps often take several times "
            "as long; to train in float32, submit again with -s mixed_precision=no."
        )
        emit(Warned(message=message))


def _prepare(base: BaseModel, recipe: Optimised, tuner: Tuner) -> None:
    """Put what is trained in training mode: gradient checkpointing requires it, and dropout is keyed by the step."""
    base.denoiser.train()
    if recipe.gradient_checkpointing:
        base.denoiser.enable_gradient_checkpointing()
    for encoder in base.text_encoders.values():
        # A frozen encoder runs without dropout: each prompt is encoded only once, for all steps.
        encoder.train(tuner.trains_text_encoder)
        if recipe.gradient_checkpointing:
            encoder.gradient_checkpointing_enable()
