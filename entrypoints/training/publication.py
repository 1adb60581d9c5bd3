"""The end of a run: what it learned is drawn, measured and published, by the first rank alone."""

import gc
from collections.abc import Callable, Sequence
from functools import partial

from PIL import Image

from entrypoints.adapters.tuner import Tuner
from entrypoints.evaluation.before_and_after import Controlled, DrawAll, evaluate
from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import DrawRequest, batches, draw, draw_batch
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.run import Run
from orchestrator.contract.prompts import EvaluationPrompt


def evaluate_and_publish(
    run: Run,
    base: BaseModel,
    tuner: Tuner,
    images: Sequence[CaptionedImage],
    prompts: Sequence[EvaluationPrompt],
    controlled: Controlled | None = None,
) -> None:
    """Compare the tuned model with what it was before, and publish the adapter with figures, samples and contact sheet.

    `images` are those it was trained on. What is `controlled` is drawn from conditions after training. Raises Stopped
    when the process was asked to end.
    """
    if not run.ranks.is_first:
        return
    draw_after: DrawAll = partial(draw_tuned, run, base, tuner)
    if controlled is not None:
        draw_after = controlled.draw
    evaluation = evaluate(
        draw_before=partial(draw_untuned, run, base, tuner),
        draw_after=draw_after,
        base=base,
        prompts=prompts,
        size=run.drawing.size,
        seeds=run.evaluation_seeds,
        pictures=images,
        scorer_folder=run.scorer_folder,
        controlled=controlled,
    )
    save = partial(evaluation.save, title=run.title)
    run.publish(tuner, base, evaluation.metrics, save, evaluation.scorer_sha256)


def draw_untuned(
    run: Run,
    base: BaseModel,
    tuner: Tuner,
    requests: Sequence[DrawRequest],
    report: Callable[[int], None],
    check_stop: Callable[[], None] | None = None,
) -> list[Image.Image]:
    """Return the images of the base model as it was before it was tuned; only those that no job has drawn are drawn.

    Raises Stopped when the process was asked to end, or what `check_stop` raises instead.
    """
    check_stop = check_stop or run.stop.check
    cache = run.image_cache(base)
    parts = batches(base, requests, run.drawing)
    if not all(cache.holds(batch) for batch in parts):
        done = 0
        with tuner.untuned(run.load_base_model) as untuned:
            for batch in parts:
                if not cache.holds(batch):
                    cache.keep(batch, draw_batch(untuned, batch, run.drawing, check_stop))
                done += len(batch)
                report(done)
        del untuned
        gc.collect()  # it may have been a second copy
    images: list[Image.Image] = []
    for batch in parts:
        images += cache.read(batch)
    return images


def draw_tuned(
    run: Run,
    base: BaseModel,
    tuner: Tuner,
    requests: Sequence[DrawRequest],
    report: Callable[[int], None],
) -> list[Image.Image]:
    """Return the images of the tuned model, which is not trained any further."""
    tuner.fuse()
    return draw(base, requests, run.drawing, run.stop.check, report)
