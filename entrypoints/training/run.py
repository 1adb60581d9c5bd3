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

from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.hub import fetch_pinned
from entrypoints.models.loading import load_base_model, settings_sha256
from entrypoints.models.sampling import Drawing
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.machine import Machine, library_versions, this_machine
from entrypoints.runtime.pictures import Picture, read_pictures
from entrypoints.runtime.ranks import Ranks
from entrypoints.runtime.stop import StopFlag, Stopped
from entrypoints.training.checkpoint import Identity, recorded_threads
from orchestrator.contract.adapter import AdapterManifest, title_of
from orchestrator.contract.bundle import BundleKind, bundle_files
from orchestrator.contract.digest import hash_file, hash_files, tree_sha256
from orchestrator.contract.environment import BASE_MODEL_CHANNEL, TRAINING_CHANNEL, Environment
from orchestrator.contract.events import Warned, emit
from orchestrator.contract.families import is_hub_id, native_resolution
from orchestrator.contract.recipe import Recipe, to_hyperparameters


@dataclass
class Run:
    """What a recipe's `train` is given beside the recipe."""

    environment: Environment
    recipe: Recipe
    stop: StopFlag = field(default_factory=StopFlag)
    ranks: Ranks = field(default_factory=Ranks)
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        """Choose the device, join the other ranks, and make arithmetic repeatable: resumed runs end in equal bytes."""
        self.device = _device_of(self.ranks)
        torch.set_num_threads(recorded_threads(self.environment.checkpoints) or torch.get_num_threads())
        torch.use_deterministic_algorithms(True, warn_only=self.device.type != "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.ranks.connect(self.device)

    def check_stop(self) -> None:
        """Raise Stopped, on all ranks at the same step, when one of them was asked to end."""
        if self.ranks.any(self.stop.asked, self.device):
            raise Stopped

    def check_stop_alone(self) -> None:
        """Raise Stopped where this rank does what the others wait for, unless there are others: they would be lost."""
        if self.ranks.ranks == 1:
            self.stop.check()

    @property
    def machine(self) -> Machine:
        """What it computes on."""
        return this_machine(self.device)

    @property
    def drawing(self) -> Drawing:
        """How the recipe wants its images drawn."""
        return Drawing(self.recipe.inference_steps, self.recipe.guidance_scale, self.recipe.resolution)

    @property
    def evaluation_seeds(self) -> list[int]:
        """Seeds of the images of each evaluation prompt."""
        first = self.recipe.seed
        return list(range(first, first + self.recipe.evaluation_seeds))

    @property
    def title(self) -> str:
        """Recipe and subject, the heading of the contact sheet."""
        return title_of(self.recipe.recipe_name(), self.recipe.trigger)

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
        return self._fetch_base_model()

    def _fetch_base_model(self) -> tuple[Path, str]:
        """Fetch the model from the Hub, once a host: the other processes find it in the cache, at the same commit."""
        if not self.ranks.is_first_of_host:
            self.ranks.barrier()
        found = fetch_pinned(self.recipe.base_model, self.recipe.base_revision, self.environment.checkpoints)
        if self.ranks.is_first_of_host:
            self.ranks.barrier()
        return found

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
            ranks=self.ranks.ranks,
        )

    def publish(
        self, tuner: Tuner, base: BaseModel, metrics: dict[str, float], extras: Callable[[Path], None]
    ) -> AdapterManifest:
        """Write the adapter beside the model folder and put it in place whole; `extras` adds its other files."""
        manifest = AdapterManifest(
            kind=tuner.kind,
            parts=tuner.parts,
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


def _device_of(ranks: Ranks) -> torch.device:
    """Return the GPU of this rank, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", ranks.local_rank)
    return torch.device("cpu")


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
