"""One combination of adapters after another in a base model: which is loaded anew only where it has to be."""

from collections.abc import Callable, Sequence
from pathlib import Path

from entrypoints.adapters import lora
from entrypoints.adapters.loading import load_adapter, load_embedding, load_one_of_several, manifest_of
from entrypoints.models.base import BaseModel
from orchestrator.contract.adapter import EMBEDDING, LORA, PIVOTAL
from orchestrator.contract.batch_result import SampleAdapter


class Combining:
    """A base model with the adapters that the next images are drawn with."""

    def __init__(self, load: Callable[[], BaseModel], folder: Path | None) -> None:
        self.load = load
        """Loads the base model."""
        self.folder = folder
        """Holds the folder of each adapter, by its hash; None where all images are of the base model alone."""
        self._base: BaseModel | None = None
        self._adapters: Sequence[SampleAdapter] = ()
        self._kinds: set[str] = set()

    def base_with(self, adapters: Sequence[SampleAdapter]) -> BaseModel:
        """Return the base model with some adapters, whose changes add up.

        Raises TrainingError("adapter") as `load_adapter` does.
        """
        if self._base is None or self._adapters != adapters:
            self._base = self._pristine()
            self._adapters = ()
            self._kinds = set()
            self._put(self._base, adapters)
            self._adapters = adapters
        return self._base

    def _pristine(self) -> BaseModel:
        """Return the base model without adapters. LoRA weights stand beside its own, and are taken away again."""
        base = self._base
        if base is not None and self._kinds <= {LORA}:
            if self._kinds:
                base.pipeline.unload_lora_weights()
                base.adapters.clear()
            return base
        self._base = None  # two at once may be more than the memory holds
        return self.load()

    def _put(self, base: BaseModel, adapters: Sequence[SampleAdapter]) -> None:
        """Put adapters into a base model that has none."""
        if len(adapters) == 1:
            alone = adapters[0]
            manifest = load_adapter(base, self._of(alone), alone.weight)
            self._kinds.add(manifest.kind)
            return
        names = []
        weights = []
        words = []
        for adapter in adapters:
            folder = self._of(adapter)
            manifest = manifest_of(folder)
            self._kinds.add(manifest.kind)
            if manifest.kind == EMBEDDING:
                words.append(folder)
                continue
            load_one_of_several(base, folder, manifest, adapter.weight)
            if manifest.kind in (LORA, PIVOTAL):
                names.append(lora.name_of(manifest))
                weights.append(adapter.weight)
        if names:
            base.pipeline.set_adapters(names, adapter_weights=weights)
        for folder in words:  # last: full weights have the rows of their own vocabulary alone
            load_embedding(base, folder)

    def _of(self, adapter: SampleAdapter) -> Path:
        """Return the folder of an adapter."""
        if self.folder is None:
            raise ValueError("there are adapters and no folder of them")
        return self.folder / adapter.sha256
