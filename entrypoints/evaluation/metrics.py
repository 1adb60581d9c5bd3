"""How much an image looks like the subject, and how much like its prompt, by the base model's own CLIP or another.

Subject fidelity is DreamBooth's CLIP-I (arXiv 2208.12242, sec. 4.2): the mean cosine between the embeddings of
generated images and of the real ones. Its ceiling is the same figure among the real ones. Prompt fidelity is CLIP-T:
the cosine between image and prompt, without the subject's own word, which CLIP does not know.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_clip, vision_normalisation
from entrypoints.runtime.failures import TrainingError, failure_of
from entrypoints.runtime.pictures import crop_square, to_tensor
from orchestrator.contract.model_layout import CLIP_FOLDER
from orchestrator.contract.scorer import require_scorer, scorer_sha256

BATCH = 32
"""Images that CLIP embeds at once."""


class ClipScorer:
    """A CLIP with its image and text preprocessing."""

    def __init__(
        self,
        clip: CLIPModel,
        tokenizer: CLIPTokenizer,
        folder: Path,
    ) -> None:
        self.clip = clip
        self.tokenizer = tokenizer
        self.sha256 = scorer_sha256(folder)
        mean, deviation = vision_normalisation(folder)
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
            max_length=self.clip.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.clip.device)
        features = self.clip.get_text_features(input_ids=ids)
        return _unit(features.pooler_output)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float().cpu(), dim=-1)


def clip_scorer(base: BaseModel, folder: Path | None = None) -> ClipScorer | None:
    """Return a scorer with the CLIP in `folder`, or else with the base model's own; None if it brings none."""
    if folder is not None:
        return load_scorer(folder, base.device)
    if base.clip is None:
        return None
    # Of its own: the base model's may have learned a word.
    tokenizer = CLIPTokenizer.from_pretrained(base.folder / base.family.tokenizers[0], local_files_only=True)
    return ClipScorer(base.clip, tokenizer, base.folder / CLIP_FOLDER)


def load_scorer(folder: Path, device: torch.device) -> ClipScorer:
    """Return a scorer with the CLIP in `folder`; raises TrainingError("scorer") when it cannot be loaded."""
    try:
        require_scorer(folder)
        clip = load_clip(folder, device)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        return ClipScorer(clip, tokenizer, folder)
    except Exception as error:  # a library may raise anything at files that others wrote
        if failure_of(error):  # out of memory
            raise
        raise TrainingError(
            "scorer",
            f"The CLIP that measures the figures cannot be loaded: {type(error).__name__}: {error}",
            "Submit again with --scorer and the folder of a CLIP that transformers can load, or without --scorer.",
        ) from error


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
