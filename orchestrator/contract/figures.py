"""What is measured on a finished adapter: the names and words that tables, contact sheets and docs/metrics.md share."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

BEFORE, AFTER, CEILING = "before", "after", "ceiling"


class Measure(NamedTuple):
    """One quality of an adapter; a figure of it is measured at several moments."""

    name: str
    """First part of the names of its figures."""
    label: str
    """As people read it."""
    term: str
    """As the papers call it."""
    higher_is_better: bool
    """Whether the adapter with the highest figure is the best."""
    meanings: Mapping[str, str]
    """What the figure is at each moment: BEFORE training, AFTER it, or the CEILING that it can reach."""

    def figure(self, moment: str) -> str:
        """Return the name of the figure of a moment."""
        return f"{self.name}_{moment}"


SUBJECT_FIDELITY = Measure(
    name="subject_fidelity",
    label="subject fidelity",
    term="CLIP-I",
    higher_is_better=True,
    meanings={
        BEFORE: "mean cosine between CLIP embeddings of generated images and training pictures, base model alone",
        AFTER: "the same with the adapter",
        CEILING: "mean cosine among the training pictures themselves: what perfect images of the subject would reach",
    },
)
PROMPT_FIDELITY = Measure(
    name="prompt_fidelity",
    label="prompt fidelity",
    term="CLIP-T",
    higher_is_better=True,
    meanings={
        BEFORE: "mean cosine between a generated image and its prompt, the rare token left out, base model alone",
        AFTER: "the same with the adapter: falls when the adapter ignores the rest of the prompt",
    },
)
CONDITION_AGREEMENT = Measure(
    name="condition_agreement",
    label="condition agreement",
    term="F1, SSIM",
    higher_is_better=True,
    meanings={
        BEFORE: "mean agreement of images with the condition of a training picture, base model without a ControlNet",
        AFTER: "the same of images that were shown that condition: F1 of lines, SSIM of blurs, likeness of colours",
    },
)
CONDITION_OBEYED = Measure(
    name="condition_obeyed",
    label="condition obeyed",
    term="gap",
    higher_is_better=True,
    meanings={
        BEFORE: "the same minus the agreement with the conditions of other pictures, base model: what captions do",
        AFTER: "the gap of images that were shown their condition: as before where it is ignored",
    },
)
CONTROL_MEASURES = (CONDITION_AGREEMENT, CONDITION_OBEYED)
"""What only ControlNets have; by their names alone they are followed while one trains."""
ROUND_MEASURES = ("reward", "reward_std", "diversity", "flat_groups", "kl", "clip_fraction")
"""What is followed of rounds of reinforcement learning by names that do not depend on the rewards."""
MEASURES = (SUBJECT_FIDELITY, PROMPT_FIDELITY)
"""What a training job measures when it ends."""
DIVERSITY = Measure(
    name="diversity",
    label="diversity",
    term="mean pairwise distance",
    higher_is_better=True,
    meanings={
        BEFORE: "mean of 1 - cosine between images of one prompt at different seeds, base model alone",
        AFTER: "the same with the adapter: falls when all images become one",
    },
)
DRIFT = Measure(
    name="drift",
    label="drift on unrelated prompts",
    term="drift",
    higher_is_better=False,
    meanings={
        BEFORE: "how far another seed moves an image of an unrelated prompt, base model alone: the scale of drift",
        AFTER: "mean of 1 - cosine between the images of an unrelated prompt with the adapter and without, at the same "
        "seed: 0 when the adapter leaves them alone",
    },
)
EVALUATED = (*MEASURES, DIVERSITY, DRIFT)
"""What an evaluation measures."""


def _figure_names(measures: Sequence[Measure]) -> tuple[str, ...]:
    names: list[str] = []
    for measure in measures:
        names += [measure.figure(moment) for moment in measure.meanings]
    return tuple(sorted(names))


FIGURES = _figure_names(MEASURES)
"""Names of the figures that every adapter has which draws."""
CONTROL_FIGURES = _figure_names(CONTROL_MEASURES)
"""Names of those that a ControlNet has too."""


def measures_in(figures: Collection[str]) -> list[Measure]:
    """Return the measures that a table of some figures shows: those of every adapter, and others that are there."""
    found = list(MEASURES)
    for measure in CONTROL_MEASURES:
        if any(measure.figure(moment) in figures for moment in measure.meanings):
            found.append(measure)
    return found
