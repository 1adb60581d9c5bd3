"""What a scene can be asked: every attribute as a question with numbered answers.

The text tower and the picture tower of the CLIP learn to answer them, which teaches both in minutes what contrast alone
teaches in hours: colours are told apart at once, shapes and parts much later.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from pretraining.scenes import (
    ARMS,
    BODIES,
    COLOURS,
    KINDS,
    MOUTHS,
    PATTERNS,
    POSITIONS,
    SIZES,
    SKINS,
    TOPS,
    Scene,
)

ABSENT = "absent"  # the answer about a monster's parts where there is no monster
SCENE_QUESTIONS: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "colour": tuple(COLOURS),
    "ground": tuple(COLOURS),
    "pattern": PATTERNS,
    "size": SIZES,
    "position": POSITIONS,
}
MONSTER_QUESTIONS: dict[str, tuple[str, ...]] = {
    "body": (ABSENT, *BODIES),
    "eyes": (ABSENT, "1", "2", "3"),
    "top": (ABSENT, *TOPS),
    "top_count": (ABSENT, "1", "2", "3"),
    "top_colour": (ABSENT, *COLOURS),
    "arms": (ABSENT, *ARMS),
    "legs": (ABSENT, "0", "2", "3"),
    "skin": (ABSENT, *SKINS),
    "skin_colour": (ABSENT, *COLOURS),
    "mouth": (ABSENT, *MOUTHS),
}
QUESTIONS = SCENE_QUESTIONS | MONSTER_QUESTIONS


def answers(scene: Scene) -> list[int]:
    """Return the number of the right answer to each of `QUESTIONS` about a scene."""
    ground = scene.background
    facts = {
        "kind": scene.kind,
        "colour": scene.colour,
        "ground": ground.colour,
        "pattern": ground.pattern,
        "size": scene.size,
        "position": scene.position,
    }
    for name in MONSTER_QUESTIONS:
        facts[name] = str(getattr(scene.monster, name)) if scene.monster else ABSENT
    return [choices.index(facts[name]) for name, choices in QUESTIONS.items()]


class Questions(nn.Module):
    """One linear layer per question, on the embedding that both towers share; not part of the exported model."""

    def __init__(self, width: int) -> None:
        """Build untrained layers for embeddings of a width."""
        super().__init__()
        self.sizes = [len(choices) for choices in QUESTIONS.values()]
        self.layer = nn.Linear(width, sum(self.sizes))

    def loss(self, embeddings: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
        """Return the mean cross-entropy of all questions about scenes, from their embeddings (count, width).

        A caption leaves much out: then the best answer is how often things occur, which costs nothing else.
        """
        truth = torch.tensor([answers(scene) for scene in scenes], device=embeddings.device)
        parts = self.layer(embeddings).split(self.sizes, dim=1)
        losses = [functional.cross_entropy(part, truth[:, k]) for k, part in enumerate(parts)]
        return torch.stack(losses).mean()

    def right(self, embeddings: torch.Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
        """Return how often each question is answered rightly."""
        truth = torch.tensor([answers(scene) for scene in scenes], device=embeddings.device)
        parts = self.layer(embeddings).split(self.sizes, dim=1)
        return {
            name: (part.argmax(1) == truth[:, k]).float().mean().item()
            for k, (name, part) in enumerate(zip(QUESTIONS, parts, strict=True))
        }
