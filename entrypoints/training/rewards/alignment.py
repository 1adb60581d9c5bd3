"""How much an image shows its prompt, by CLIP: the cosine of their embeddings (CLIPScore, arXiv 2104.08718).

It is not scaled, so it is the figure that evaluations call prompt fidelity.
"""

from collections.abc import Sequence

from PIL import Image

from entrypoints.evaluation.metrics import ClipScorer
from orchestrator.contract.rewards import PROMPT_ALIGNMENT


class ClipAlignment:
    """The cosine of image and prompt."""

    name = PROMPT_ALIGNMENT.name

    def __init__(self, scorer: ClipScorer) -> None:
        self.scorer = scorer

    def scores(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        groups: Sequence[int],  # noqa: ARG002 - of the protocol
    ) -> list[float | None]:
        """Return the cosine of each image with its prompt."""
        of_images = self.scorer.embed_images(images)
        distinct = list(dict.fromkeys(prompts))
        of_texts = self.scorer.embed_texts(distinct)
        places = [distinct.index(prompt) for prompt in prompts]
        cosines = (of_images * of_texts[places]).sum(dim=-1)
        return [*cosines.tolist()]
