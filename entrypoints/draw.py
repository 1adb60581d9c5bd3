"""Draw with a finished adapter, without a job: a `DrawOrder` on stdin becomes PNG files in `ORCHESTRATOR_ML_ROOT`.

Progress and failures go to stdout as events, as those of a job do.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from entrypoints import train
from entrypoints.runtime import process
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.environment import Environment
from orchestrator.contract.events import Item, Phase, Warned, emit
from orchestrator.contract.text_length import length_problems
from orchestrator.contract.words import NewWord, with_word

if TYPE_CHECKING:
    from entrypoints.models.base import BaseModel


def main() -> int:
    """Carry out the order on stdin and return the exit status."""
    train.apply_settings()
    order = DrawOrder.model_validate_json(sys.stdin.buffer.read())
    environment = Environment.from_variables()
    return train.exit_status(environment, lambda: draw_order(order, environment.root))


def draw_order(order: DrawOrder, folder: Path) -> None:
    """Draw the images of an order, each from the generator of its seed, and write them into `folder`.

    Raises TrainingError when the base model cannot be loaded or is not the adapter's, or the adapter is damaged.
    """
    emit(Phase(name="loading"))
    # Imported here because they import torch: it takes seconds, and must come after the settings.
    import torch

    from entrypoints.adapters.loading import load_adapter
    from entrypoints.models.hub import fetch_from_hub
    from entrypoints.models.loading import load_base_model
    from entrypoints.models.sampling import Drawing, DrawRequest, draw, require_steps

    train.quieten()
    process.resume_collector()
    base_folder, revision = order.base_folder, order.base_revision
    if base_folder is None:
        base_folder, revision = fetch_from_hub(order.base_model, revision)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = load_base_model(base_folder, order.base_model, revision, device, with_clip=False)
    require_steps(base, order.steps, "--steps ")
    prompt = order.prompt
    if order.word is not None:  # only in its own spelling does a new word stand for all its vectors
        prompt = with_word(prompt, order.word)
    check_length(base, prompt, order.word)
    load_adapter(base, order.adapter, order.weight)
    emit(Phase(name="drawing", of=order.count))
    requests = [DrawRequest(prompt, seed) for seed in order.seeds]
    drawing = Drawing(order.steps, order.guidance, order.size)
    images = draw(base, requests, drawing, _go_on, lambda done: emit(Item(done=done, of=order.count)))
    for seed, image in zip(order.seeds, images, strict=True):
        image.save(folder / order.file(seed), format="PNG")


def check_length(base: "BaseModel", prompt: str, word: NewWord | None) -> None:
    """Warn of words that the text encoder does not read; raises TrainingError when the new word is among them."""
    from entrypoints.models.tokens import tokenizers_of
    from entrypoints.runtime.failures import TrainingError

    found = length_problems(tokenizers_of(base), [("the prompt", prompt)], word)
    for problem in found.refused:
        raise TrainingError("prompt", f"{problem.where} {problem.what}. Nothing was drawn.", problem.fix)
    for problem in found.warnings:
        emit(Warned(message=problem.render()))


def _go_on() -> None:
    """Let the drawing go on: whoever ordered it ends this process."""


if __name__ == "__main__":
    process.run(main)
