"""Pivotal tuning: embedding rows of a new word and low-rank adapters of the denoiser, trained in one run.

The idea is that of GAN inversion (arXiv 2106.05744): first find the point from which the model has to change least,
then change the model around it. The point is the embedding (textual inversion, arXiv 2208.01618), the change LoRA.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from entrypoints.adapters import embedding, lora
from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.lora import Lora
from entrypoints.models.base import BaseModel
from orchestrator.contract.adapter import PIVOTAL, AdapterManifest


class Pivotal:
    """A new word and an adapter of the denoiser."""

    kind = PIVOTAL
    trains_text_encoder = True  # its input

    def __init__(self, word: Embedding, adapter: Lora) -> None:
        self.word = word
        self.adapter = adapter
        self.parts = (*adapter.parts, *word.parts)
        self.parameters = {**adapter.parameters, **word.parameters}

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write the files of both."""
        self.adapter.save(folder, header)
        self.word.save(folder, header)

    @contextmanager
    def untuned(self, load: Callable[[], BaseModel]) -> Iterator[BaseModel]:
        """Turn the adapter off and read prompts as before."""
        with self.word.untuned(load), self.adapter.untuned(load) as base:
            yield base

    def fuse(self) -> None:
        """Add the adapter to the denoiser's weights."""
        self.adapter.fuse()


def load(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
    weight: float,
) -> None:
    """Put both into the pipeline; `weight` is that of the adapter, and the word is used as it is."""
    denoiser = (base.family.denoiser,)
    lora.load(base, folder, manifest.model_copy(update={"parts": denoiser}), weight)
    embedding.load(base, folder, manifest, 1)
