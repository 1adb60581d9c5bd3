"""Base models and adapters to measure with, made once in a folder of their own."""

import sys
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "entrypoints")]  # entrypoints and the tests' models: never installed

import tiny  # noqa: E402
from made_adapters import disturb, fresh, write_lora  # noqa: E402

from orchestrator.contract.adapter import LORA, LORA_FILE, AdapterManifest  # noqa: E402
from orchestrator.resources import BUILTIN_MODEL  # noqa: E402

__all__ = ["Materials", "Model", "disturb", "fresh", "tiny", "write_lora"]
RANK = 8
"""Of the adapters; they change all layers that the built-in model's recipes train: `targets=all`."""
_CHANGE = 0.02
"""Standard deviation of B."""


class Model(NamedTuple):
    """A base model, and what it is asked for."""

    name: str
    folder: Path
    size: int
    """Side of the images, pixels."""
    steps: int
    guidance: float


class Materials:
    """What rows need; everything is made when it is first asked for."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.root = folder / "served"
        """Below which servers find their adapters."""
        self.root.mkdir()
        self.quick = quick
        """Whether small numbers will do: to try a row out, or to test it."""
        self.closing = ExitStack()
        """Ends what rows share."""
        self._made: dict[str, list[Path]] = {}
        self._manifests: dict[str, AdapterManifest] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()

    def number(self, full: int, quick: int) -> int:
        """Return how many of something a row takes."""
        return quick if self.quick else full

    @cached_property
    def smallest(self) -> Model:
        """Random weights, a U-Net of two levels."""
        folder = tiny.write_base_model(self.folder / "smallest", prediction_type="epsilon")
        return Model("smallest", folder, tiny.SIDE, 4, 5.0)

    @cached_property
    def sdxl(self) -> Model:
        """The smallest SDXL."""
        return Model("smallest SDXL", tiny.write_sdxl(self.folder / "sdxl"), tiny.SIDE, 4, 5.0)

    @cached_property
    def builtin(self) -> Model:
        """The built-in model with its defaults; the smallest one when trying out."""
        if self.quick:
            return self.smallest
        return Model("built-in", BUILTIN_MODEL, 64, 12, 4.0)

    @property
    def measured(self) -> list[Model]:
        """The models that times are measured with."""
        return [self.smallest] if self.quick else [self.builtin, self.smallest]

    def adapters(self, model: Model, count: int) -> list[Path]:
        """Return folders of so many different adapters, each with its manifest."""
        made = self._made.setdefault(model.name, [])
        if not made:
            made.append(self._first(model))
        with safe_open(made[0] / LORA_FILE, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = file.metadata()
        while len(made) < count:
            random = torch.Generator().manual_seed(len(made))
            other = {}
            for name, tensor in tensors.items():
                other[name] = torch.randn(tensor.shape, generator=random) * tensor.std()
            folder = made[0].with_name(f"{len(made)}")
            folder.mkdir()
            save_file(other, folder / LORA_FILE, metadata)
            self._manifests[model.name].write(folder)
            made.append(folder)
        return made[:count]

    def _first(self, model: Model) -> Path:
        """Make the adapter whose layers and sizes all others have."""
        folder = self.root / f"adapters of {model.name}" / "0"
        folder.parent.mkdir()
        write_lora(folder, model.folder, 0, text=False, targets="all", rank=RANK)
        path = folder / LORA_FILE
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = file.metadata()
        random = torch.Generator().manual_seed(0)
        for name, tensor in tensors.items():
            scale = _CHANGE if ".lora_B." in name or ".up." in name else float(tensor.std())
            tensors[name] = torch.randn(tensor.shape, generator=random) * scale
        save_file(tensors, path, metadata)
        manifest = AdapterManifest(
            kind=LORA,
            parts=("unet",),
            recipe="dreambooth",
            config={},
            base_model=fresh(model.folder).reference,
            dataset_sha256="",
            bundle_sha256="",
            libraries={},
        )
        self._manifests[model.name] = manifest
        manifest.write(folder)
        return folder
