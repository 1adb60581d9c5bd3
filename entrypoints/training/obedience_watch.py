"""Follows whether a ControlNet obeys while it trains, and ends a run that ignores conditions."""

from collections.abc import Callable, Sequence

from PIL import Image

from entrypoints.adapters.controlnet import ControlNetTuner
from entrypoints.conditions.shown import bytes_of, from_bytes
from entrypoints.evaluation.samples import IndexedImage, write_samples
from entrypoints.models.control import draw_from_conditions
from entrypoints.models.sampling import DrawRequest
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.control import ControlObjective
from entrypoints.training.obedience import NOT_COMPARED, Obedience, Watched, obedience, watched_pictures
from entrypoints.training.publication import draw_untuned
from entrypoints.training.run import Run
from entrypoints.training.watchdog import standard_errors
from orchestrator.contract.events import TRAINING_PHASE, Item, Phase, Sample, Warned, emit
from orchestrator.contract.figures import CONDITION_AGREEMENT, CONDITION_OBEYED
from orchestrator.contract.recipes.controlnet import ControlNet
from orchestrator.contract.samples import SampleImage

IGNORED = 1.5
"""Standard errors below which the gap is that of the base model."""
OBEYED = 3.0
"""Standard errors from which it is clearly larger."""
FEWEST = 2
"""Gaps that have a standard error."""
LEAST = 0.01
"""Of a difference between gaps that is more than rounding."""
ADVICE = (
    "See whether the conditions fit their pictures; then raise learning_rate, or train with more pictures or longer "
    "(-s obeyed_by=...), and submit again."
)


class ObedienceWatch:
    """Draws and measures the watched pictures as training goes on."""

    def __init__(
        self,
        run: Run,
        recipe: ControlNet,
        tuner: ControlNetTuner,
        objective: ControlObjective,
        images: Sequence[CaptionedImage],
    ) -> None:
        self.run = run
        self.recipe = recipe
        self.tuner = tuner
        self.objective = objective
        self.watched = watched_pictures(recipe, images, recipe.watched_images, recipe.validation_prompts)
        self.requests = []
        for watched in self.watched:
            prompt = recipe.with_trigger(watched.caption)
            self.requests.append(DrawRequest(prompt, recipe.seed))
        self._before: Obedience | None = None

    def look(self, step: int) -> None:
        """Draw the watched pictures with the ControlNet as it is after `step`, and measure them.

        All ranks must call it: the first draws. Raises TrainingError("learns-nothing") on all of them.
        """
        run = self.run
        recipe = self.recipe
        is_ignored = False
        if run.ranks.is_first:
            emit(Phase(name="validation", of=len(self.requests)))
            is_ignored = self._is_ignored(step)
            if step < recipe.steps:
                emit(Phase(name=TRAINING_PHASE, of=recipe.steps))
        run.check_stop()
        is_late = step >= recipe.obeyed_by
        if run.ranks.any(is_ignored and is_late, run.device):
            message = f"The run learns nothing: conditions are ignored. {self._seen(step)}"
            raise TrainingError("learns-nothing", message, ADVICE)
        # A short run is looked at before its first step alone, when nothing can be obeyed yet.
        is_last = step > 0 and step + recipe.validation_steps > recipe.steps
        if is_ignored and is_last:
            longer = f"Train longer: -s steps={2 * recipe.steps}"
            emit(Warned(message=f"Conditions are still ignored. {self._seen(step)} {longer}"))

    def _is_ignored(self, step: int) -> bool:
        """Draw, measure and keep the watched pictures; return whether they are drawn as without their conditions.

        Not so where too few can be compared to tell. Not so if conditions were obeyed before: what is drawn gets better
        and worse as training goes on.
        """
        before = self._measured_before()
        images = draw_with_control(
            self.run,
            self.tuner,
            self.watched,
            self.requests,
            self.run.check_stop_alone,
            self._report,
        )
        now = obedience(self.recipe, self.watched, images)
        self.objective.followed = {CONDITION_AGREEMENT.name: now.agreement}
        if now.gap is not None:
            self.objective.followed[CONDITION_OBEYED.name] = now.gap
        self._save(step, images)
        if len(now.gaps) < FEWEST:
            return False
        larger = now.gaps - before.gaps
        errors = standard_errors(larger)
        is_visible = float(larger.mean()) > LEAST
        if is_visible and errors > OBEYED:
            self.objective.obeys = True
        is_ignored = errors < IGNORED or not is_visible
        return is_ignored and not self.objective.obeys

    def _measured_before(self) -> Obedience:
        """Measure the base model alone, once; it draws again only what no earlier attempt has drawn."""
        if self._before is None:
            images = draw_untuned(
                self.run,
                self.tuner.base,
                self.tuner,
                self.requests,
                _tell_nobody,
                self.run.check_stop_alone,
            )
            self._before = obedience(self.recipe, self.watched, images)
            if self._before.gap is None:
                emit(Warned(message=NOT_COMPARED))
        return self._before

    def _seen(self, step: int) -> str:
        """Return what was measured, in words; the other ranks, which have not measured, say nothing."""
        if self._before is None:
            return ""
        gap = self.objective.followed[CONDITION_OBEYED.name]
        before = self._before.gap or 0.0
        return (
            f"After {step} steps images agree with their own conditions by {gap:+.3f} more than with those of other "
            f"pictures, which is no more than without a ControlNet ({before:+.3f})."
        )

    def _report(self, done: int) -> None:
        emit(Item(done=done, of=len(self.requests)))

    def _save(self, step: int, images: Sequence[Image.Image]) -> None:
        """Write the images, and the conditions that they are drawn from, with their index."""
        run = self.run
        folder = run.environment.samples
        conditions = []
        samples = []
        for number, watched in enumerate(self.watched):
            shown = SampleImage(
                file=f"condition-{number}.png",
                source="condition",
                prompt=watched.label,
                text=watched.label,
            )
            conditions.append(IndexedImage(watched.condition, shown))
            about = SampleImage(
                file=f"step-{step:06d}-{number}.png",
                source="after",
                prompt=watched.label,
                text=watched.label,
                seed=self.recipe.seed,
                step=step,
            )
            samples.append(IndexedImage(images[number], about))
        write_samples(folder, [*conditions, *samples])
        for sample in samples:
            path = folder / sample.about.file
            told = path.relative_to(run.environment.root)
            emit(Sample(path=told.as_posix()))


def draw_with_control(
    run: Run,
    tuner: ControlNetTuner,
    watched: Sequence[Watched],
    requests: Sequence[DrawRequest],
    check_stop: Callable[[], None],
    report: Callable[[int], None],
) -> list[Image.Image]:
    """Draw images from the conditions of watched pictures: as many for each, those of one picture together."""
    each = len(requests) // len(watched)
    conditions = []
    for number in range(len(requests)):
        own = watched[number // each]
        conditions.append(bytes_of(own.condition))
    base = tuner.base
    modules = [base.denoiser, tuner.network]
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    images = draw_from_conditions(
        base,
        tuner.network,
        requests,
        from_bytes(conditions),
        run.drawing,
        check_stop,
        report,
    )
    for module, mode in zip(modules, modes, strict=True):
        module.train(mode)
    return images


def _tell_nobody(done: int) -> None:
    """Say nothing: these images are not those that the phase counts."""
