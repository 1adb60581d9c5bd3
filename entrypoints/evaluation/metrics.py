"""How much a picture looks like the subject, and how much like its prompt, by the base model's own CLIP.

Subject similarity is DreamBooth's CLIP-I (arXiv 2208.12242, sec. 4.2): the mean cosine between the embeddings of a
generated picture and of the real ones. Its ceiling is the same figure among the real pictures. Prompt fidelity is
CLIP-T: the cosine between picture and prompt, without the subject's own word, which CLIP does not know.
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


class Judge:
    """A CLIP with its picture and text preprocessing."""

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer, colours: tuple[list[float], list[float]]) -> None:
        self.clip = clip
        self.tokenizer = tokenizer
        self.mean, self.deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in colours)

    @torch.no_grad()
    def picture_embeddings(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors of pictures, shape (pictures, width)."""
        side = self.clip.config.vision_config.image_size
        pixels = torch.cat([to_tensor(crop_square(image, side)) for image in images]) / 2 + 0.5
        batches = torch.split(((pixels - self.mean) / self.deviation).to(self.clip.device), BATCH)
        return _unit([self.clip.get_image_features(pixel_values=batch).pooler_output for batch in batches])

    @torch.no_grad()
    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors of texts, shape (texts, width)."""
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        return _unit([self.clip.get_text_features(input_ids=tokens.input_ids.to(self.clip.device)).pooler_output])


def _unit(batches: list[Tensor]) -> Tensor:
    return torch.nn.functional.normalize(torch.cat(batches).float().cpu(), dim=-1)


def judge_of(base: BaseModel) -> Judge | None:
    """Return the base model's CLIP, or None if it brings none."""
    if base.clip is None:
        return None
    return Judge(base.clip, base.tokenizers[0], vision_normalisation(base.folder))


def subject_similarity(pictures: Tensor, real: Tensor) -> float:
    """Return the mean cosine of every picture (n, width) with every real one (m, width)."""
    return float((pictures @ real.T).mean())


def similarity_ceiling(real: Tensor) -> float:
    """Return the mean cosine among the real pictures, each with the others; 1 when there is only one."""
    cosines = real @ real.T
    others = ~torch.eye(len(real), dtype=torch.bool)
    return float(cosines[others].mean()) if len(real) > 1 else 1.0


def prompt_fidelity(pictures: Tensor, texts: Tensor) -> float:
    """Return the mean cosine of each picture (n, width) with its own text (n, width)."""
    return float((pictures * texts).sum(dim=-1).mean())
