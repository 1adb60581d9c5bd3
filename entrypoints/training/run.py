"""One run of a recipe: where it reads and writes, on what it computes, and whether it was asked to stop."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image

from entrypoints.adapters.tuner import Tuner
from entrypoints.models.hub import fetch_pinned
from entrypoints.models.stable_diffusion import BaseModel, load_base_model, settings_sha256
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.machine import Machine, library_versions, this_machine
from entrypoints.runtime.pictures import Picture, read_pictures
from entrypoints.runtime.stop import StopFlag
from entrypoints.training.checkpoint import Identity, recorded_threads
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.bundle import BundleKind, bundle_files
from orchestrator.contract.digest import hash_file, hash_files, tree_sha256
from orchestrator.contract.environment import BASE_MODEL_CHANNEL, TRAINING_CHANNEL, Environment
from orchestrator.contract.events import Sample, Warned, emit
from orchestrator.contract.families import is_hub_id, native_resolution
from orchestrator.contract.recipe import Recipe, to_hyperparameters


@dataclass
class Run:
    """What a recipe's `train` is given beside the recipe."""

    environment: Environment
    recipe: Recipe
    stop: StopFlag = field(default_factory=StopFlag)
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        """Make arithmetic repeatable: a resumed run must end in the same bytes."""
        torch.set_num_threads(recorded_threads(self.environment.checkpoints) or torch.get_num_threads())
        torch.use_deterministic_algorithms(True, warn_only=self.device.type != "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    @property
    def machine(self) -> Machine:
        """What it computes on."""
        return this_machine(self.device)

    @cached_property
    def _base_model_source(self) -> tuple[Path, str | None]:
        """Folder of the base model and its commit on the Hub, if it is from there."""
        folder, revision = self._find_base_model()
        native, resolution = native_resolution(folder), self.recipe.resolution
        if native not in (None, resolution):
            message = (
                f"The base model draws {native}x{native} pictures and is trained at {resolution}x{resolution} here"
            )
            emit(Warned(message=f"{message}; unless you mean it, submit again with -s resolution={native}."))
        return folder, revision

    def _find_base_model(self) -> tuple[Path, str | None]:
        folder = self.environment.channel(BASE_MODEL_CHANNEL)
        if folder is not None:
            return folder, self.recipe.base_revision
        if not is_hub_id(self.recipe.base_model):
            raise TrainingError(
                "base-model",
                f'The base model "{self.recipe.base_model}" did not reach the job (no channel {BASE_MODEL_CHANNEL}).',
                "Check that the folder exists on the machine you submit from, then submit again.",
            )
        return fetch_pinned(self.recipe.base_model, self.recipe.base_revision, self.environment.checkpoints)

    def load_base_model(self) -> BaseModel:
        """Load a pristine copy of the base model."""
        folder, revision = self._base_model_source
        return load_base_model(folder, self.recipe.base_model, revision, self.device)

    def pictures(self) -> list[Picture]:
        """List the training pictures."""
        return read_pictures(self.environment.channel(TRAINING_CHANNEL))

    @cached_property
    def dataset_sha256(self) -> str:
        """Hash of the training channel."""
        folder = self.environment.channel(TRAINING_CHANNEL)
        return tree_sha256(hash_files(folder) if folder else {})

    @cached_property
    def bundle_sha256(self) -> str:
        """Hash of the code that runs: every module that a training bundle carries."""
        root = Path(__file__).parents[2]
        files = bundle_files(BundleKind.TRAINING, root / "orchestrator", root / "entrypoints")
        return tree_sha256({name: hash_file(path) for name, path in files.items()})

    def identity(self, base: BaseModel) -> Identity:
        """Return what a checkpoint of this run must agree on."""
        # What a branch was resolved to, and where, does not matter: the model itself is in the identity.
        values = to_hyperparameters(self.recipe.model_copy(update={"base_revision": None}))
        recipe = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        return Identity(
            recipe=recipe,
            dataset=self.dataset_sha256,
            bundle=self.bundle_sha256,
            base_model=f"{base.reference.fingerprint} {settings_sha256(base.folder)}",
        )

    def write_sample(self, image: Image.Image, name: str) -> None:
        """Keep a picture that was drawn on the way, and say so."""
        path = self.environment.samples / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, format="PNG")
        emit(Sample(path=path.relative_to(self.environment.root).as_posix()))

    def publish(
        self, tuner: Tuner, base: BaseModel, metrics: dict[str, float], extras: Callable[[Path], None]
    ) -> AdapterManifest:
        """Write the adapter beside the model folder and put it in place whole; `extras` adds its other files."""
        manifest = AdapterManifest(
            recipe=self.recipe.recipe_name(),
            config=self.recipe.model_dump(mode="json"),
            base_model=base.reference,
            dataset_sha256=self.dataset_sha256,
            bundle_sha256=self.bundle_sha256,
            trigger=self.recipe.trigger,
            metrics=metrics,
            libraries=library_versions(),
        )
        draft = _empty_folder(self.environment.model.with_name(".model.draft"))
        tuner.save(draft, manifest.header())
        extras(draft)
        complete = manifest.write(draft)
        _replace(draft, self.environment.model)
        return complete


def _empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _replace(draft: Path, final: Path) -> None:
    """Put a finished folder in its place: one rename, unless the service mounted `final` and it can only be filled."""
    if not os.path.ismount(final):
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        return
    for path in sorted(draft.iterdir(), key=lambda path: path.name == "adapter.json"):
        shutil.move(path, final / path.name)
    draft.rmdir()
