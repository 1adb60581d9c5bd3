"""The figures of an evaluation: the adapter beside its base model, in every feature space.

All figures are means of one value for each image, so that the images can be resampled (`bootstrap.py`). Images of the
base model and of the adapter come in pairs of one prompt and seed, and are resampled together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entrypoints.evaluation.bootstrap import LEAST, Bootstrap, Values, estimate, measured_once
from entrypoints.evaluation.metrics import ClipScorer
from entrypoints.evaluation.spaces import CLIP, Spaces
from orchestrator.contract.evaluation_result import Estimate, Figure, Skipped
from orchestrator.contract.figures import DIVERSITY, DRIFT, PROMPT_FIDELITY, SUBJECT_FIDELITY

_OF_REAL = 1
"""Tells the real pictures from the drawn ones, which are resampled apart."""
_LEAST_TO_COMPARE = 2
_PAIR = 2
_MOST_NEGATIVE = 0.025
"""Share of the resamples in which the base model may be nearer than real pictures are to one another."""

_SUBJECT_FIDELITY = "subject fidelity"
_DRIFT = "drift"
_OF_SUBJECTS = (_SUBJECT_FIDELITY, _DRIFT)
_NOT_OF_CONTROLNETS = (
    Skipped(
        what=_SUBJECT_FIDELITY,
        why="a ControlNet learns no subject",
        how="evaluate an adapter that does, such as one by dreambooth; for this one see control agreement",
    ),
    Skipped(
        what=_DRIFT,
        why="without a map a ControlNet changes nothing",
        how="see prompt fidelity and diversity, which say what following maps costs",
    ),
)


@dataclass(frozen=True)
class Drawn:
    """Images of some prompts, one for each seed, those of the first prompt first."""

    texts: Sequence[str]
    """The prompts, as CLIP reads them."""
    seeds: int
    """Images of each."""
    base: Sequence[Image.Image]
    """By the base model."""
    adapter: Sequence[Image.Image]
    """With the adapter, in the same order."""


@dataclass(frozen=True)
class Compared:
    """What was measured, and what could not be."""

    figures: list[Figure]
    skipped: list[Skipped]


def compare(
    spaces: Spaces,
    asked: Drawn,
    unrelated: Drawn,
    real: Sequence[Image.Image],
    bootstrap: Bootstrap,
) -> Compared:
    """Measure what was drawn in every feature space.

    Args:
        spaces: The networks that embed images, by name.
        asked: What was drawn of the evaluation prompts, with the adapter and without it.
        unrelated: The same of prompts that have nothing to do with what was trained.
        real: Pictures of the subject; none for an adapter that has no subject.
        bootstrap: Makes the intervals, over prompts.
    """
    found = Compared([], _skipped(asked, unrelated, real))
    for name, network in spaces.networks.items():
        base = network.embed_images(asked.base)
        adapter = network.embed_images(asked.adapter)
        if real:
            of_real = network.embed_images(real)
            figure = _subject_fidelity(name, base, adapter, of_real, bootstrap)
            found.figures.append(figure)
        if name == CLIP and spaces.clip is not None and all(asked.texts):
            figure = _prompt_fidelity(spaces.clip, asked, base, adapter, bootstrap)
            found.figures.append(figure)
        if asked.seeds >= _LEAST_TO_COMPARE:
            spread_of_base = _distances_of_seeds(base, asked.seeds)
            spread = _distances_of_seeds(adapter, asked.seeds)
            figure = _paired(DIVERSITY.name, name, spread_of_base, spread, len(adapter), bootstrap)
            found.figures.append(figure)
        if unrelated.texts:
            base = network.embed_images(unrelated.base)
            adapter = network.embed_images(unrelated.adapter)
            figure = _drift(name, base, adapter, unrelated.seeds, bootstrap)
            found.figures.append(figure)
    order = (SUBJECT_FIDELITY, PROMPT_FIDELITY, DIVERSITY, DRIFT)
    names = [measure.name for measure in order]
    found.figures.sort(key=lambda figure: names.index(figure.measure))
    return found


def compare_controlled(spaces: Spaces, asked: Drawn, bootstrap: Bootstrap) -> Compared:
    """Measure what a ControlNet drew, beside its agreement with maps: what that costs in fidelity and diversity."""
    unrelated = Drawn([], asked.seeds, [], [])
    compared = compare(spaces, asked, unrelated, [], bootstrap)
    skipped = []
    for one in compared.skipped:
        if one.what not in _OF_SUBJECTS:
            skipped.append(one)
    skipped += _NOT_OF_CONTROLNETS
    return Compared(compared.figures, skipped)


def _skipped(asked: Drawn, unrelated: Drawn, real: Sequence[Image.Image]) -> list[Skipped]:
    """Return what cannot be measured on these images."""
    skipped = []
    if not real:
        why = "there are no real pictures to compare with"
        how = "name a folder of some: --reference DIR"
        skipped.append(Skipped(what=_SUBJECT_FIDELITY, why=why, how=how))
    elif len(real) < _LEAST_TO_COMPARE:
        why = "one real picture has no other to compare it with"
        how = "add pictures: --reference DIR"
        skipped.append(Skipped(what="the ceiling of real pictures", why=why, how=how))
    if not all(asked.texts):
        why = "some pictures have no caption"
        how = "write captions beside them, or --prompts FILE"
        skipped.append(Skipped(what="prompt fidelity", why=why, how=how))
    if asked.seeds < _LEAST_TO_COMPARE:
        why = "each prompt has one image"
        how = "draw more: --seeds 4"
        skipped.append(Skipped(what="diversity", why=why, how=how))
    if not unrelated.texts:
        why = "no prompt is unrelated to what the adapter has learned"
        how = "name prompts that have less in common: --prompts FILE"
        skipped.append(Skipped(what=_DRIFT, why=why, how=how))
    return skipped


def _subject_fidelity(
    space: str,
    base: Tensor,
    adapter: Tensor,
    real: Tensor,
    bootstrap: Bootstrap,
) -> Figure:
    """Return the mean cosine of images with the real pictures, and how much of the way to these the adapter goes."""
    cosines_of_base = base @ real.T  # (images, real pictures)
    cosines_of_adapter = adapter @ real.T
    of_base = _numpy(cosines_of_base.mean(dim=1))
    of_adapter = _numpy(cosines_of_adapter.mean(dim=1))
    figure = _paired(SUBJECT_FIDELITY.name, space, of_base, of_adapter, len(adapter), bootstrap)
    if len(real) < _LEAST_TO_COMPARE:
        return figure
    of_real = _leave_one_out(real)
    ceiling = bootstrap.mean(of_real, _OF_REAL)
    gap = _gap_closed(of_base, of_adapter, of_real, bootstrap)
    return figure.model_copy(update={"ceiling": ceiling, "gap_closed": gap})


def _leave_one_out(real: Tensor) -> Values:
    """Return the mean cosine of each real picture with all others; that of two with one another is one value."""
    cosines = real @ real.T
    if len(real) == _PAIR:
        return _numpy(cosines[0, 1:])
    others = cosines.sum(dim=1) - cosines.diagonal()
    return _numpy(others / (len(real) - 1))


def _gap_closed(base: Values, adapter: Values, real: Values, bootstrap: Bootstrap) -> Estimate | None:
    """Return (adapter - base) / (ceiling - base); None where the base model is as near as real pictures are."""
    gap = real.mean() - base.mean()
    gaps = bootstrap.means(real, _OF_REAL) - bootstrap.means(base)
    if gap <= 0 or np.mean(gaps <= 0) > _MOST_NEGATIVE:
        return None
    closed = float((adapter - base).mean() / gap)
    if min(len(base), len(real)) < LEAST:
        return measured_once(closed)
    gains = bootstrap.means(adapter - base)
    usable = gaps > 0
    return estimate(closed, gains[usable] / gaps[usable])


def _prompt_fidelity(
    clip: ClipScorer,
    asked: Drawn,
    base: Tensor,
    adapter: Tensor,
    bootstrap: Bootstrap,
) -> Figure:
    """Return the mean cosine of each image with its own prompt."""
    of_prompts = clip.embed_texts(asked.texts)
    texts = of_prompts.repeat_interleave(asked.seeds, dim=0)
    products_of_base = base * texts
    products_of_adapter = adapter * texts
    of_base = _numpy(products_of_base.sum(dim=1))
    of_adapter = _numpy(products_of_adapter.sum(dim=1))
    return _paired(PROMPT_FIDELITY.name, CLIP, of_base, of_adapter, len(adapter), bootstrap)


def _drift(space: str, base: Tensor, adapter: Tensor, seeds: int, bootstrap: Bootstrap) -> Figure:
    """Return how far the adapter moves images of unrelated prompts, and beside it how far another seed does."""
    products = base * adapter
    cosines = products.sum(dim=1)
    moved = _numpy(1 - cosines)
    figure = Figure(measure=DRIFT.name, space=space, images=len(moved), adapter=bootstrap.mean(moved))
    if seeds < _LEAST_TO_COMPARE:
        return figure
    distances = _distances_of_seeds(base, seeds)
    scale = bootstrap.mean(distances)
    return figure.model_copy(update={"base": scale})


def _distances_of_seeds(vectors: Tensor, seeds: int) -> Values:
    """Return for each image the mean of 1 - cosine with the other images of its prompt.

    Two images have one distance: it is one value, and not one of each.
    """
    grouped = vectors.view(-1, seeds, vectors.shape[-1])  # (prompts, seeds, width)
    cosines = torch.einsum("psw,ptw->pst", grouped, grouped)
    if seeds == _PAIR:
        return _numpy(1 - cosines[:, 0, 1])
    own = cosines.diagonal(dim1=1, dim2=2)
    sum_of_others = cosines.sum(dim=2) - own
    mean_of_others = sum_of_others / (seeds - 1)
    return _numpy(1 - mean_of_others.flatten())


def _paired(
    measure: str,
    space: str,
    base: Values,
    adapter: Values,
    images: int,
    bootstrap: Bootstrap,
) -> Figure:
    """Return the figure of values that belong together one by one, of so many images of the adapter."""
    return Figure(
        measure=measure,
        space=space,
        images=images,
        adapter=bootstrap.mean(adapter),
        base=bootstrap.mean(base),
        difference=bootstrap.mean(adapter - base),
    )


def _numpy(values: Tensor) -> Values:
    return values.double().numpy()
