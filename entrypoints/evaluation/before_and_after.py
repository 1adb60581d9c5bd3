"""Before and after: the same prompts and seeds with the base model and with the tuned one, as pictures and figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from entrypoints.evaluation import metrics
from entrypoints.evaluation.contact_sheet import contact_sheet, sheet_layout
from entrypoints.evaluation.prompts import Question
from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import Wanted, draw
from entrypoints.runtime.pictures import CaptionedImage, crop_square, read_image
from entrypoints.training.run import Run
from orchestrator.contract.adapter import CONTACT_SHEET_FILE
from orchestrator.contract.contact_sheet import LAYOUT_KEY, SheetLayout, SheetRow
from orchestrator.contract.events import Item, Metrics, Phase, Warned, emit

DIGITS = 4  # of a figure: the rest is noise


@dataclass(frozen=True)
class Evaluation:
    """What is known of a finished adapter."""

    metrics: dict[str, float]
    sheet: Image.Image | None = None
    layout: SheetLayout | None = None

    def save_sheet(self, folder: Path) -> None:
        """Write the contact sheet, if one was drawn, and in it where its pictures are."""
        if self.sheet and self.layout:
            text = PngInfo()
            text.add_itxt(LAYOUT_KEY, self.layout.model_dump_json())
            self.sheet.save(folder / CONTACT_SHEET_FILE, format="PNG", pnginfo=text)


def evaluate(
    run: Run, tuned: BaseModel, questions: Sequence[Question], pictures: Sequence[CaptionedImage]
) -> Evaluation:
    """Draw every question with a pristine base model and with the tuned one, and compare with the real pictures."""
    if not questions:
        return Evaluation({})
    seeds = [run.recipe.seed + number for number in range(run.recipe.evaluation_seeds)]
    total = 2 * len(questions) * len(seeds)
    emit(Phase(name="contact sheet", of=total))
    pristine = run.load_base_model()
    before = _draw(run, pristine, [question.before for question in questions], seeds, 0, total)
    after = _draw(run, tuned, [question.after for question in questions], seeds, total // 2, total)
    real = [crop_square(read_image(picture.path), run.recipe.resolution) for picture in pictures]
    figures = measure(pristine, questions, real, before, after)
    if figures:
        emit(Metrics(values=figures))
    title = f"{run.recipe.recipe_name()}: {run.recipe.trigger}"
    rows = [SheetRow(prompt=question.after, text=question.text) for question in questions]
    layout = sheet_layout(title, rows, len(real), len(seeds))
    return Evaluation(figures, contact_sheet(layout, real, before, after), layout)


def _draw(
    run: Run, base: BaseModel, prompts: list[str], seeds: list[int], already: int, total: int
) -> list[Image.Image]:
    wanted = [Wanted(prompt, seed) for prompt in prompts for seed in seeds]
    return draw(run, base, wanted, lambda done: emit(Item(done=already + done, of=total)))


def measure(
    base: BaseModel,
    questions: Sequence[Question],
    real: Sequence[Image.Image],
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
) -> dict[str, float]:
    """Return the figures of docs/metrics.md; none, with a warning, when the base model brings no CLIP."""
    judge = metrics.judge_of(base)
    if judge is None:
        emit(Warned(message="The base model brings no CLIP (folder clip/), so nothing was measured; see the sheet."))
        return {}
    truth = judge.picture_embeddings(real)
    texts = judge.text_embeddings([question.text for question in questions])
    texts = texts.repeat_interleave(len(before) // len(questions), dim=0)
    figures = {"subject_similarity_ceiling": metrics.similarity_ceiling(truth)}
    for name, images in (("before", before), ("after", after)):
        drawn = judge.picture_embeddings(images)
        figures[f"subject_similarity_{name}"] = metrics.subject_similarity(drawn, truth)
        figures[f"prompt_fidelity_{name}"] = metrics.prompt_fidelity(drawn, texts)
    return {name: round(figure, DIGITS) for name, figure in sorted(figures.items())}


def draw_validation(run: Run, base: BaseModel, step: int) -> None:
    """Draw the recipe's validation prompts, if it has any, with the model as it is after `step`."""
    if not run.recipe.validation_prompts:
        return
    modules = (base.denoiser, *base.text_encoders.values())
    training = [module.training for module in modules]
    for module in modules:
        module.eval()
    emit(Phase(name="validation", of=len(run.recipe.validation_prompts)))
    images = draw(run, base, [Wanted(prompt, run.recipe.seed) for prompt in run.recipe.validation_prompts])
    for module, mode in zip(modules, training, strict=True):
        module.train(mode)
    for number, image in enumerate(images):
        run.write_sample(image, f"step-{step:06d}-{number}.png")
    emit(Phase(name="training", of=run.recipe.steps))
