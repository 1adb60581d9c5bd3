"""Draw with a finished adapter, without a job: a `DrawOrder` on stdin becomes PNG files in `ORCHESTRATOR_ML_ROOT`.

Progress and failures go to stdout as events, as those of a job do.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from entrypoints import train
from entrypoints.runtime import libraries, process
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.environment import Environment
from orchestrator.contract.events import Item, Phase, Warned, emit
from orchestrator.contract.text_length import length_problems
from orchestrator.contract.words import NewWord, with_word

if TYPE_CHECKING:
    from PIL import Image

    from entrypoints.models.base import BaseModel
    from entrypoints.models.control import Control


def main() -> int:
    """Carry out the order on stdin and return the exit status."""
    libraries.apply_settings()
    order = DrawOrder.model_validate_json(sys.stdin.buffer.read())
    environment = Environment.from_variables()
    return train.exit_status(environment, lambda: draw_order(order, environment.root))


def draw_order(order: DrawOrder, folder: Path) -> None:
    """Draw the images of an order, each from the generator of its seed, and write them into `folder`.

    Raises TrainingError when the base model cannot be loaded or is not the adapter's, or something that the order names
    is damaged or does not fit.
    """
    emit(Phase(name="loading"))
    # Imported here because they import torch: it takes seconds, and must come after the settings.
    import torch

    from entrypoints.adapters.controls import load_controls, require_controls, shown_by
    from entrypoints.adapters.loading import load_adapter, load_embedding
    from entrypoints.models.hub import fetch_from_hub
    from entrypoints.models.loading import load_base_model
    from entrypoints.models.sampling import require_steps, use_scheduler

    libraries.quieten()
    process.resume_collector()
    wanted = order.generation
    base_folder, revision = order.base_folder, order.base_revision
    if base_folder is None:
        base_folder, revision = fetch_from_hub(order.base_model, revision)
    require_controls(wanted.controls, order.folders, base_folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shown = shown_by(wanted, order.map_weights, device)  # before the base model: it takes long to load
    base = load_base_model(base_folder, order.base_model, revision, device, with_clip=False)
    if wanted.scheduler is not None:
        use_scheduler(base, wanted.scheduler)
    require_steps(base, wanted.steps, "--steps ")
    for prompt in wanted.prompts:
        check_length(base, _in_own_spelling(prompt, order.words), order.words)
    for adapter in wanted.adapters:
        load_adapter(base, order.folders[adapter.name], adapter.weight)
    for name in wanted.embeddings:
        load_embedding(base, order.folders[name])
    controls = load_controls(base, wanted.controls, shown, order.folders)
    emit(Phase(name="drawing", of=len(wanted.images)))
    for number, image in enumerate(_drawn(base, order, controls)):
        image.save(folder / order.file(number), format="PNG")


def _drawn(base: "BaseModel", order: DrawOrder, controls: "list[Control]") -> "list[Image.Image]":
    """Draw the images of an order by a base model that is ready."""
    from entrypoints.models.control import draw_controlled
    from entrypoints.models.sampling import Drawing, DrawRequest, draw

    wanted = order.generation
    requests = []
    for asked in wanted.images:
        prompt = _in_own_spelling(asked.prompt, order.words)
        requests.append(DrawRequest(prompt, asked.seed))
    width, height = wanted.shape
    drawing = Drawing(
        wanted.steps,
        wanted.guidance,
        width,
        wanted.negative_prompt,
        height=height,
    )

    def report(done: int) -> None:
        emit(Item(done=done, of=len(requests)))

    if controls:
        return draw_controlled(base, requests, drawing, controls, _go_on, report)
    return draw(base, requests, drawing, _go_on, report)


def _in_own_spelling(prompt: str, words: Sequence[NewWord]) -> str:
    """Return a prompt with the new words as they are spelled, in which alone they stand for all their vectors."""
    for word in words:
        prompt = with_word(prompt, word)
    return prompt


def check_length(base: "BaseModel", prompt: str, words: Sequence[NewWord]) -> None:
    """Warn of words that the text encoder does not read; raises TrainingError when a new word is among them."""
    from entrypoints.models.tokens import tokenizers_of
    from entrypoints.runtime.failures import TrainingError

    warned = set()
    for word in words or (None,):
        found = length_problems(tokenizers_of(base), [("the prompt", prompt)], word)
        for problem in found.refused:
            raise TrainingError("prompt", f"{problem.where} {problem.what}. Nothing was drawn.", problem.fix)
        warned |= {problem.render() for problem in found.warnings}
    for message in sorted(warned):
        emit(Warned(message=message))


def _go_on() -> None:
    """Let the drawing go on: whoever ordered it ends this process."""


if __name__ == "__main__":
    process.run(main)
