"""The end of a run: what it learned is drawn, measured and published, by the first rank alone."""

from collections.abc import Sequence
from functools import partial

from entrypoints.adapters.tuner import Tuner
from entrypoints.evaluation.before_and_after import evaluate
from entrypoints.models.base import BaseModel
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.run import Run
from orchestrator.contract.prompts import EvaluationPrompt


def evaluate_and_publish(
    run: Run,
    base: BaseModel,
    tuner: Tuner,
    images: Sequence[CaptionedImage],
    prompts: Sequence[EvaluationPrompt],
) -> None:
    """Compare the tuned model with what it was before, and publish the adapter with figures, samples and contact sheet.

    `images` are those it was trained on. Raises Stopped when the process was asked to end.
    """
    if not run.ranks.is_first:
        return
    evaluation = evaluate(
        untuned=partial(tuner.untuned, run.load_base_model),
        tuned=base,
        prompts=prompts,
        drawing=run.drawing,
        seeds=run.evaluation_seeds,
        pictures=images,
        check_stop=run.stop.check,
        scorer_folder=run.scorer_folder,
    )
    save = partial(evaluation.save, title=run.title)
    run.publish(tuner, base, evaluation.metrics, save, evaluation.scorer_sha256)
