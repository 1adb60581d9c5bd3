"""What is trained of a base model, and the files it becomes.

A tuner changes the model in place when it is made; `parameters` are then the only ones with gradients. Each kind of
adapter is one module with a tuner that saves it and a function `load` that puts it into a base model again.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from torch import nn

from entrypoints.models.base import BaseModel


class Tuner(Protocol):
    """What the training loop and the adapter need to know of a way to tune."""

    kind: str
    """Kind of the adapter it makes, `kind` in the manifest."""
    parts: tuple[str, ...]
    """Parts of the base model that the adapter changes, by the names of their folders."""
    parameters: dict[str, nn.Parameter]
    """What is trained, by a name that is the same in every run: checkpoints are keyed by it."""
    trains_text_encoder: bool
    """Whether prompt embeddings change during training, so that they cannot be cached."""

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write the adapter's files into an existing folder; `header` goes into the safetensors' metadata."""
        ...

    def untuned(self, load: Callable[[], BaseModel]) -> AbstractContextManager[BaseModel]:
        """Return a context with the base model as it was before it was tuned; the tuned one is not used meanwhile.

        `load` loads it anew, which takes its memory a second time: only for what cannot be undone otherwise.
        """
        ...

    def fuse(self) -> None:
        """Put what was learned into the model's own weights, so that it draws as fast as the base; training is over."""
        ...


def trainable(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the parameters that have gradients, named by part and by their name within it.

    They become float32: PEFT makes adapters in the precision of the weights that they change.
    """
    found: dict[str, nn.Parameter] = {}
    for part, module in modules.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                found[f"{part}.{name}"] = parameter
    return found
