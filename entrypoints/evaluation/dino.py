"""DINO's feature space, DreamBooth's second measure of subject fidelity (arXiv 2208.12242, sec. 4.2).

Any ViT of transformers will do that has a class token: DINO (`vit`), DINOv2, DINOv3. Its weights are not ours to ship.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel

from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from entrypoints.runtime.pictures import crop_square, to_tensor
from orchestrator.contract.digest import hash_files, tree_sha256
from orchestrator.contract.model_file import read_object

BATCH = 32
_SIDE = 224
"""Of the squares that most of them were trained on, pixels."""
# The usual ones of ImageNet, red, green and blue.
_MEAN = [0.485, 0.456, 0.406]
_DEVIATION = [0.229, 0.224, 0.225]


class Dino:
    """A vision transformer with its preprocessing."""

    def __init__(self, model: Any, folder: Path) -> None:  # whichever class the configuration names
        self.model = model
        self.sha256 = tree_sha256(hash_files(folder))
        path = folder / "preprocessor_config.json"
        config = read_object(path) if path.is_file() else {}
        self.side = _side_of(config)
        self.mean = torch.tensor(config.get("image_mean", _MEAN)).view(1, 3, 1, 1)
        self.deviation = torch.tensor(config.get("image_std", _DEVIATION)).view(1, 3, 1, 1)

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors of images, shape (images, width): the class token of the last layer."""
        squares = [to_tensor(crop_square(image, self.side)) for image in images]
        pixels = torch.cat(squares) / 2 + 0.5  # from [-1, 1] to [0, 1]
        normalised = (pixels - self.mean) / self.deviation
        found = []
        for batch in torch.split(normalised.to(self.model.device), BATCH):
            states = self.model(pixel_values=batch).last_hidden_state
            found.append(states[:, 0])
        return nn.functional.normalize(torch.cat(found).float().cpu(), dim=-1)


def load_frozen(folder: Path, device: torch.device) -> Any:  # whichever class the configuration names
    """Load a model of transformers to compute with, in float32, safetensors only and no code of its own.

    Raises ValueError when weights are missing, other than those of a pooler, which is not read.
    """
    model: Any
    model, found = AutoModel.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
    )
    lacking = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
    if lacking:  # transformers puts random weights in their place
        raise ValueError(f"its weights lack {lacking[0]}")
    model.requires_grad_(requires_grad=False)
    return model.eval().to(device)


def load_dino(folder: Path, device: torch.device) -> Dino:
    """Load the model in `folder`, safetensors only and no code of its own; raises TrainingError("scorer")."""
    try:
        dino = Dino(load_frozen(folder, device), folder)
        blank = Image.new("RGB", (dino.side, dino.side))
        dino.embed_images([blank])  # what does not suit images says so now, before anything is drawn
    except Exception as error:  # a library may raise anything at files that others wrote
        if failure_of(error):  # out of memory
            raise
        raise TrainingError(
            "scorer",
            f"The model that --dino names cannot be used: {type(error).__name__}: {first_line(error)}",
            "Name the folder of a ViT, DINO or DINOv2 that transformers can load, or leave --dino out.",
        ) from error
    return dino


def _side_of(config: dict[str, Any]) -> int:
    """Return the side of the squares that a preprocessor makes, pixels."""
    size = config.get("crop_size", config.get("size", _SIDE))
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge", _SIDE))
    return int(size)
