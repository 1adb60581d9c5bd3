"""Feature spaces: networks whose features images are compared by, and those that are not at hand.

Two at least, trained apart: an adapter that suits the one by accident, or because it was chosen by it, does not suit
the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image
from torch import Tensor

from entrypoints.evaluation.dino import load_dino
from entrypoints.evaluation.efficientnet import load_efficientnet
from entrypoints.evaluation.metrics import ClipScorer, clip_scorer
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.evaluation_result import Skipped, Space

CLIP = "clip"
EFFICIENTNET = "efficientnet"
DINO = "dino"
_NO_CLIP = Skipped(
    what="CLIP-I and CLIP-T",
    why="the base model brings no CLIP (folder clip/)",
    how="name the folder of one: --scorer FOLDER",
)
_NO_DINO = Skipped(
    what="DINO",
    why="its weights are in no package",
    how="download a DINO, DINOv2 or ViT of transformers, such as facebook/dinov2-small, and name it: --dino FOLDER",
)
_NO_LPIPS = Skipped(
    what="diversity by LPIPS",
    why="the package lpips has its linear heads alone, and needs AlexNet's weights, which are in no package",
    how="there is no way yet; diversity is the mean pairwise distance in the feature spaces that are at hand",
)


class Embeds(Protocol):
    """Turns images into vectors."""

    sha256: str
    """Hash of its files."""

    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors of images, shape (images, width)."""
        ...


@dataclass(frozen=True)
class Spaces:
    """The feature spaces of an evaluation."""

    networks: dict[str, Embeds] = field(default_factory=dict)
    """Name of a space to its network."""
    labels: dict[str, str] = field(default_factory=dict)
    """The same names to what people call them."""
    skipped: list[Skipped] = field(default_factory=list)
    """What is not at hand, with the way to get it."""
    clip: ClipScorer | None = None
    """The one that reads texts too."""

    def add(self, name: str, label: str, network: Embeds) -> None:
        """Add a network."""
        self.networks[name] = network
        self.labels[name] = label

    @property
    def described(self) -> tuple[Space, ...]:
        """The spaces, as the result names them."""
        found = []
        for name, network in self.networks.items():
            found.append(Space(name=name, label=self.labels[name], sha256=network.sha256))
        return tuple(found)


def load_spaces(base: BaseModel, scorer: Path | None, dino: Path | None) -> Spaces:
    """Load every network that is at hand; raises TrainingError for one that was named and cannot be loaded."""
    clip = clip_scorer(base, scorer)
    spaces = Spaces(clip=clip)
    if clip is None:
        spaces.skipped.append(_NO_CLIP)
    else:
        spaces.add(CLIP, "CLIP", clip)
    try:
        spaces.add(EFFICIENTNET, "EfficientNet-Lite0", load_efficientnet(base.device))
    except ModuleNotFoundError:
        spaces.skipped.append(_no_efficientnet("it is not installed"))
    except TrainingError as error:
        spaces.skipped.append(_no_efficientnet(error.message))
    if dino is None:
        spaces.skipped.append(_NO_DINO)
    else:
        spaces.add(DINO, "DINO", load_dino(dino, base.device))
    spaces.skipped.append(_NO_LPIPS)
    return spaces


def _no_efficientnet(why: str) -> Skipped:
    return Skipped(
        what="the feature space of EfficientNet-Lite0",
        why=why,
        how="pip install 'orchestrator[evaluation]'",
    )
