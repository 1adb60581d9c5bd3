"""One run of a recipe: where it reads and writes, on which device it computes, and whether it was asked to stop."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch

from entrypoints.adapters.tuner import Tuner
from entrypoints.evaluation.metrics import load_scorer
from entrypoints.models.base import BaseModel
from entrypoints.models.hub import fetch_pinned
from entrypoints.models.image_cache import ImageCache
from entrypoints.models.loading import load_base_model, settings_sha256
from entrypoints.models.precision import half_of
from entrypoints.models.sampling import Drawing, require_steps
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.folders import replace_folder
from entrypoints.runtime.machine import Machine, library_versions, this_machine
from entrypoints.runtime.pictures import CaptionedImage, list_images, require_masks
from entrypoints.runtime.ranks import Ranks
from entrypoints.runtime.stop import StopFlag, Stopped
from entrypoints.training.checkpoint import Identity, recorded_threads
from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest, title_of
from orchestrator.contract.bundle import BundleKind, bundle_files
from orchestrator.contract.digest import hash_file, hash_files, tree_sha256
from orchestrator.contract.environment import BASE_MODEL_CHANNEL, SCORER_CHANNEL, TRAINING_CHANNEL, Environment
from orchestrator.contract.events import Warned, emit
from orchestrator.contract.families import is_hub_id, native_resolution
from orchestrator.contract.mixins import Denoising, Rewarded
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
        """Choose the device, make arithmetic repeatable, and join the other ranks.

        Repeatable arithmetic is what lets a resumed run end in the same bytes.
        """
        self.device = device_of(self.ranks)
        threads = recorded_threads(self.environment.checkpoints)
        torch.set_num_threads(threads or torch.get_num_threads())
        # Some operations on a GPU have no deterministic version; the run must not end because of them.
        torch.use_deterministic_algorithms(True, warn_only=self.device.type != "cpu")
        # Deterministic mode fills new tensors with NaN, which costs time and only helps code that reads them unset.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.ranks.connect(self.device)

    def check_stop(self) -> None:
        """Raise Stopped when a rank was asked to end. All ranks must call it, and all raise at the same step."""
        if self.ranks.any(self.stop.asked, self.device):
            raise Stopped

    def check_stop_alone(self) -> None:
        """Raise Stopped when the process was asked to end and is the only rank.

        For work that one rank does while the others wait: if it ended, they would wait until they time out.
        """
        if self.ranks.ranks == 1:
            self.stop.check()

    @property
    def machine(self) -> Machine:
        """What this process computes on."""
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
        native = native_resolution(folder)
        resolution = self.recipe.resolution
        if native not in (None, resolution):
            message = (
                f"The base model draws {native}x{native} images and is trained at {resolution}x{resolution} here; "
                f"unless you mean it, submit again with -s resolution={native}."
            )
            emit(Warned(message=message))
        return folder, revision

    def _find_base_model(self) -> tuple[Path, str | None]:
        """Return the folder and commit of the model in the job's channel, or fetch it from the Hub."""
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
        ranks = self.ranks
        recipe = self.recipe
        # Others wait here until the first process of the host has fetched it and waits below.
        if not ranks.is_first_of_host:
            ranks.barrier()
        found = fetch_pinned(
            recipe.base_model,
            recipe.base_revision,
            self.environment.checkpoints,
        )
        if ranks.is_first_of_host:
            ranks.barrier()
        return found

    def load_base_model(self) -> BaseModel:
        """Load a new copy of the base model, without any training, which can draw what the recipe asks for."""
        folder, revision = self._base_model_source
        model_id = self.recipe.base_model
        base = load_base_model(
            folder,
            model_id,
            revision,
            self.device,
            with_clip=self._measures_by_its_clip,
            half=partial(half_of, self.recipe, device=self.device),
        )
        if self.recipe.draws_images:
            require_steps(base, self.recipe.inference_steps, "-s inference_steps=")
        return base

    @property
    def _measures_by_its_clip(self) -> bool:
        """Whether this process measures figures or rewards, and by the CLIP of the base model."""
        evaluates = self.recipe.evaluation_prompts > 0 and self.ranks.is_first
        return (evaluates or self._rewards_read_clip) and self.scorer_folder is None

    @property
    def _rewards_read_clip(self) -> bool:
        """Whether a reward needs a CLIP, which then is needed on every rank."""
        if not isinstance(self.recipe, Rewarded):
            return False
        return any(use.reads_clip for use in self.recipe.all_rewards)

    def image_cache(self, base: BaseModel) -> ImageCache:
        """Return where the images that the untuned base model draws are kept between jobs."""
        half = half_of(self.recipe, base.family, self.device)
        return ImageCache.of(self.environment.cache / "images", base, self.machine, self.drawing, half)

    @property
    def scorer_folder(self) -> Path | None:
        """Folder of the CLIP that measures the figures; None for the base model's own."""
        return self.environment.channel(SCORER_CHANNEL)

    def check_scorer(self) -> None:
        """Raise TrainingError("scorer") when the CLIP cannot be loaded: it is needed last, when all is paid for."""
        if self.scorer_folder is not None and self.ranks.is_first:
            load_scorer(self.scorer_folder, torch.device("cpu"))

    def training_images(self) -> list[CaptionedImage]:
        """List the images of the training channel with their captions, and their masks where they are needed."""
        folder = self.environment.channel(TRAINING_CHANNEL)
        images = list_images(folder)
        if isinstance(self.recipe, Denoising) and self.recipe.masked_loss:
            require_masks(images)
        return images

    @cached_property
    def dataset_sha256(self) -> str:
        """Hash of what is learned from: training pictures, or prompts."""
        channels = [*self.recipe.dataset.inputs.values(), TRAINING_CHANNEL]
        folder = self.environment.channel(channels[0])
        if folder is None:
            return tree_sha256({})
        return tree_sha256(hash_files(folder))

    @cached_property
    def bundle_sha256(self) -> str:
        """Hash of the code that runs: every module that a training bundle carries."""
        root = Path(__file__).parents[2]
        files = bundle_files(BundleKind.TRAINING, root / "orchestrator", root / "entrypoints")
        return tree_sha256({name: hash_file(path) for name, path in files.items()})

    def identity(self, base: BaseModel) -> Identity:
        """Return what a checkpoint must have in common with this run to be resumed from."""
        # Without the revision: a branch and the commit it was resolved to are the same model, and the model's own
        # fingerprint is in the identity.
        recipe = self.recipe.model_copy(update={"base_revision": None})
        values = to_hyperparameters(recipe)
        text = json.dumps(values, sort_keys=True)
        weights = base.reference.fingerprint
        settings = settings_sha256(base.folder)
        return Identity(
            recipe=hashlib.sha256(text.encode()).hexdigest(),
            dataset=self.dataset_sha256,
            bundle=self.bundle_sha256,
            base_model=f"{weights} {settings}",
            ranks=self.ranks.ranks,
        )

    def publish(
        self,
        tuner: Tuner,
        base: BaseModel,
        metrics: dict[str, float],
        extras: Callable[[Path], None] | None = None,
        scorer_sha256: str | None = None,
    ) -> AdapterManifest:
        """Write the adapter to a draft folder, move it into place whole, and return its manifest.

        `extras`, if given, is called with the draft folder and adds what belongs to the adapter beside its weights.
        `scorer_sha256` is the hash of the CLIP that measured the `metrics`.
        """
        model = self.environment.model
        images = captions = None
        if self.environment.channel(TRAINING_CHANNEL) is not None:
            found = self.training_images()
            images = len(found)
            captions = sum(image.caption is not None for image in found)
        manifest = AdapterManifest(
            kind=tuner.kind,
            parts=tuner.parts,
            recipe=self.recipe.recipe_name(),
            config=self.recipe.model_dump(mode="json"),
            base_model=base.reference,
            dataset_sha256=self.dataset_sha256,
            images=images,
            captions=captions,
            bundle_sha256=self.bundle_sha256,
            trigger=self.recipe.trigger,
            metrics=metrics,
            scorer_sha256=scorer_sha256,
            libraries=library_versions(),
        )
        draft = model.with_name(".model.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        tuner.save(draft, manifest.header())
        if extras is not None:
            extras(draft)
        complete = manifest.write(draft)
        replace_folder(draft, model, MANIFEST_FILE)
        return complete


def device_of(ranks: Ranks) -> torch.device:
    """Return the GPU of this rank, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", ranks.local_rank)
    return torch.device("cpu")
