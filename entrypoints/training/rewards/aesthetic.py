"""The aesthetic reward of DDPO (arXiv 2305.13301, sec. 5.1): a linear head on CLIP's embedding of the image."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from entrypoints.evaluation.metrics import ClipScorer
from orchestrator.contract.linear_head import require_head
from orchestrator.contract.rewards import AESTHETIC


class Aesthetic:
    """What the head in a file makes of unit vectors of images."""

    name = AESTHETIC.name

    def __init__(self, scorer: ClipScorer, path: Path) -> None:
        """Read the head; raises ValueError for one that does not fit the CLIP."""
        self.scorer = scorer
        width = scorer.clip.config.projection_dim
        tensors = load_file(path)
        self.layers: list[tuple[Tensor, Tensor | None]] = []
        for layer in require_head(path, width):
            weight = tensors[layer.weight].float()
            bias = None
            if layer.bias is not None:
                bias = tensors[layer.bias].float()
            self.layers.append((weight, bias))

    def scores(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],  # noqa: ARG002 - of the protocol
        groups: Sequence[int],  # noqa: ARG002 - of the protocol
    ) -> list[float | None]:
        """Return the score of each image."""
        embeddings = self.scorer.embed_images(images)
        return [*self.judge(embeddings).tolist()]

    @torch.no_grad()
    def judge(self, embeddings: Tensor) -> Tensor:
        """Return the scores of unit vectors: (images, width) to (images,)."""
        values = embeddings
        for weight, bias in self.layers:
            values = nn.functional.linear(values, weight, bias)
        return values.squeeze(dim=-1)
