"""Draw with a finished adapter, without a job: a `DrawOrder` on stdin becomes PNG files in `ORCHESTRATOR_ML_ROOT`.

Progress and failures go to stdout as events, as those of a job do.
"""

import sys
from pathlib import Path

from entrypoints import train
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.environment import Environment
from orchestrator.contract.events import Item, Phase, emit


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
    from entrypoints.models.sampling import Drawing, DrawRequest, draw

    train.quieten()
    base_folder, revision = order.base_folder, order.base_revision
    if base_folder is None:
        base_folder, revision = fetch_from_hub(order.base_model, revision)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = load_base_model(base_folder, order.base_model, revision, device)
    load_adapter(base, order.adapter, order.weight)
    emit(Phase(name="drawing", of=order.count))
    requests = [DrawRequest(order.prompt, seed) for seed in order.seeds]
    drawing = Drawing(order.steps, order.guidance, order.size)
    images = draw(base, requests, drawing, _go_on, lambda done: emit(Item(done=done, of=order.count)))
    for seed, image in zip(order.seeds, images, strict=True):
        image.save(folder / order.file(seed), format="PNG")


def _go_on() -> None:
    """Let the drawing go on: whoever ordered it ends this process."""


if __name__ == "__main__":
    sys.exit(main())
