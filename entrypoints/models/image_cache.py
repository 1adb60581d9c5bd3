"""Images that a model has drawn, kept by content: a second job, or the next job of a sweep, draws them once.

An image depends a little on the others of its batch, whose sums are rounded together. So images are kept by batches:
under a hash of everything they depend on, each in a file that appears by a rename. Two jobs at once, or a job that was
killed half-way, come by the same bytes.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from entrypoints.models.base import BaseModel
from entrypoints.models.loading import settings_sha256
from entrypoints.models.precision import Half
from entrypoints.models.sampling import Drawing, DrawRequest
from entrypoints.runtime.machine import Machine

KEY_CHARACTERS = 24


@dataclass(frozen=True)
class ImageCache:
    """The images of one base model as one machine draws them."""

    root: Path
    model: Mapping[str, object]
    """What the images depend on beside the requests."""
    drawing: Drawing

    @classmethod
    def of(
        cls,
        root: Path,
        base: BaseModel,
        machine: Machine,
        drawing: Drawing,
        half: Half | None = None,
    ) -> "ImageCache":
        """Return the cache of an untuned base model; another machine, precision or library rounds differently."""
        model: dict[str, object] = {
            "weights": base.reference.fingerprint,
            "settings": settings_sha256(base.folder),
            **machine.model_dump(),
        }
        if half is not None:
            model["half"] = [str(half.dtype), *half.parts]
        return cls(root, model, drawing)

    def with_adapter(self, sha256: str, weight: float) -> "ImageCache":
        """Return the cache of the model with an adapter put into it at some strength."""
        return replace(self, model={**self.model, "adapter": sha256, "weight": weight})

    def with_conditions(self, shown: Sequence[Tensor]) -> "ImageCache":
        """Return the cache of the model for a batch to which the adapter, a ControlNet, is shown these pictures."""
        pictures = [hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in shown]
        return replace(self, model={**self.model, "conditions": pictures})

    def paths(self, batch: Sequence[DrawRequest]) -> list[Path]:
        """Return where the images of a batch lie, or will lie."""
        facts = {
            "model": self.model,
            "drawing": asdict(self.drawing),
            "requests": [asdict(request) for request in batch],
        }
        text = json.dumps(facts, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:KEY_CHARACTERS]
        return [self.root / key / f"{number:03}.png" for number in range(len(batch))]

    def holds(self, batch: Sequence[DrawRequest]) -> bool:
        """Whether all images of a batch are kept."""
        return all(path.is_file() for path in self.paths(batch))

    def keep(self, batch: Sequence[DrawRequest], images: Sequence[Image.Image]) -> None:
        """Write the images of a batch."""
        process = os.getpid()
        for path, image in zip(self.paths(batch), images, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{process}")
            image.save(draft, format="PNG")
            draft.replace(path)

    def read_whole(self, batch: Sequence[DrawRequest]) -> list[Image.Image] | None:
        """Return the images of a batch; None unless all are kept and whole.

        With a job's checkpoints they are copied while they are written, and a copy may be cut off.
        """
        try:
            return self.read(batch)
        except (OSError, ValueError, SyntaxError):  # Pillow raises a SyntaxError for a broken PNG
            return None

    def read(self, batch: Sequence[DrawRequest]) -> list[Image.Image]:
        """Return the images of a batch, all of which are kept."""
        images = []
        for path in self.paths(batch):
            with Image.open(path) as image:
                images.append(image.convert("RGB"))
        return images
