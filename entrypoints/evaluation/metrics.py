"""How much an image looks like the subject, and how much like its prompt, by the base model's own CLIP.

Subject fidelity is DreamBooth's CLIP-I (arXiv 2208.12242, sec. 4.2): the mean cosine between the embeddings of
generated images and of the real ones. Its ceiling is the same figure among the real ones. Prompt fidelity is CLIP-T:
the cosine between image and prompt, without the subject's own word, which CLIP does not know.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from entrypoints.models.base import BaseModel
from entrypoints.models.loading import vision_normalisation
from entrypoints.runtime.pictures import crop_square, to_tensor

BATCH = 32
"""Images that CLIP embeds at once."""


class ClipScorer:
    """A CLIP with its image and text preprocessing."""

    def __init__(
        self,
        clip: CLIPModel,
        tokenizer: CLIPTokenizer,
        colours: tuple[list[float], list[float]],
    ) -> None:
        self.clip = clip
        self.tokenizer = tokenizer
        mean, deviation = colours
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.deviation = torch.tensor(deviation).view(1, 3, 1, 1)

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors of images, shape (images, width)."""
        side = self.clip.config.vision_config.image_size
        squares = [to_tensor(crop_square(image, side)) for image in images]
        pixels = torch.cat(squares) / 2 + 0.5  # from [-1, 1] to [0, 1]
        normalised = (pixels - self.mean) / self.deviation
        vectors = []
        for batch in torch.split(normalised.to(self.clip.device), BATCH):
            features = self.clip.get_image_features(pixel_values=batch)
            vectors.append(features.pooler_output)
        return _unit(torch.cat(vectors))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors of texts, shape (texts, width)."""
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.clip.device)
        features = self.clip.get_text_features(input_ids=ids)
        return _unit(features.pooler_output)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float().cpu(), dim=-1)


def clip_scorer(base: BaseModel) -> ClipScorer | None:
    """Return a scorer with the base model's CLIP, or None if it brings none."""
    if base.clip is None:
        return None
    colours = vision_normalisation(base.folder)
    return ClipScorer(base.clip, base.tokenizers[0], colours)


def subject_fidelity(images: Tensor, real: Tensor) -> float:
    """Return the mean cosine of every image (n, width) with every real one (m, width)."""
    return float((images @ real.T).mean())


def subject_fidelity_ceiling(real: Tensor) -> float:
    """Return the mean cosine among the real images, each with the others; 1 when there is only one."""
    if len(real) == 1:
        return 1.0
    cosines = real @ real.T
    others = ~torch.eye(len(real), dtype=torch.bool)
    return float(cosines[others].mean())


def prompt_fidelity(images: Tensor, texts: Tensor) -> float:
    """Return the mean cosine of each image (n, width) with its own text (n, width)."""
    return float((images * texts).sum(dim=-1).mean())
