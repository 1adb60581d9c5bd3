"""The stages from nothing to the exported base model, in order; a stage that is finished is read back, not repeated."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPModel, CLIPTokenizer

from pretraining.autoencoder import build_autoencoder, train_autoencoder
from pretraining.clip import Learner, build_learner, train_picture_tower, train_text_tower
from pretraining.denoiser import Conditioned, build_denoiser, prepare, train_denoiser
from pretraining.export import export, text_tower
from pretraining.judge import Judge, train_judge
from pretraining.lessons import prepare_lessons, train_lessons
from pretraining.tokenizer import write_json, write_tokenizer
from pretraining.training import Progress, StageSettings, finished, part, progress_of

Network = TypeVar("Network", bound=torch.nn.Module)


AUTOENCODER = StageSettings("autoencoder", steps=8000, batch=32, learning_rate=1.5e-3, warm_up=200, save_every=250)
TEXT_TOWER = StageSettings(
    "text_tower", steps=300, batch=96, learning_rate=1e-3, warm_up=50, average=0.98, save_every=50
)
DENOISER = StageSettings(
    "denoiser", steps=12_000, batch=64, learning_rate=8e-4, warm_up=300, average=0.999, save_every=100
)
LESSONS = StageSettings("lessons", steps=4200, batch=64, learning_rate=4e-4, warm_up=50, average=0.998, save_every=100)
PICTURE_TOWER = StageSettings(
    "picture_tower", steps=1500, batch=64, learning_rate=1e-3, warm_up=50, average=0.99, save_every=100
)
JUDGE = StageSettings("judge", steps=5000, batch=64, learning_rate=1.5e-3, warm_up=100, average=0.995, save_every=250)


@dataclass(frozen=True)
class Scale:
    """How much of everything: by default what the published model took."""

    autoencoder: StageSettings = AUTOENCODER
    text_tower: StageSettings = TEXT_TOWER
    denoiser: StageSettings = DENOISER
    lessons: StageSettings = LESSONS
    picture_tower: StageSettings = PICTURE_TOWER
    judge: StageSettings = JUDGE
    diet: int = 12_000
    clip_photos: int = 3000
    drawn: int = 36_000
    photos: int = 1200
    taught: int = 12_000
    judge_pictures: int = 24_000

    @property
    def all_settings(self) -> dict[str, StageSettings]:
        """Return the settings of all trained stages by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, StageSettings)}


SHORT = {"steps": 2, "batch": 12, "save_every": 1, "warm_up": 1, "horizon": 0}
QUICK = Scale(
    **{name: replace(settings, **SHORT) for name, settings in Scale().all_settings.items()},
    diet=12,
    clip_photos=8,
    drawn=16,
    photos=4,
    taught=8,
    judge_pictures=16,
)
"""Shows in seconds that the stages fit together; what comes out is no model."""


class Stages:
    """The work folder of one pre-training, with one method per stage."""

    def __init__(self, work: Path, scale: Scale, seed: int = 0, kept_clip: Path | None = None) -> None:
        """Take the folder for states and intermediate data, the scale and the seed of everything.

        `kept_clip` is the folder of a trained CLIP whose two towers are used as they are.
        """
        self.work = work
        self.kept_clip = kept_clip
        self.scale = replace(
            scale, **{name: replace(settings, seed=seed) for name, settings in scale.all_settings.items()}
        )
        self.seed = seed
        work.mkdir(parents=True, exist_ok=True)

    def tokenizer(self) -> CLIPTokenizer:
        """Write the vocabulary and read it back."""
        return write_tokenizer(self.work / "tokenizer")

    def autoencoder(self) -> AutoencoderKL:
        """Train the autoencoder, or read it back."""
        settings, factor = self.scale.autoencoder, self.work / "scaling_factor.json"
        if self._finished(settings) and factor.exists():
            network = self._averaged(build_autoencoder(), settings)
            network.register_to_config(scaling_factor=json.loads(factor.read_text(encoding="utf-8")))
            return network
        network = train_autoencoder(settings, self.work, self.scale.diet)
        write_json(factor, network.config.scaling_factor)
        return network

    def text_tower(self) -> Learner:
        """Train the text tower, or read it back; from here on it stays as it is."""
        settings, tokenizer = self.scale.text_tower, self.tokenizer()
        if self.kept_clip is not None:
            return kept_learner(self.kept_clip, tokenizer)
        if self._finished(settings):
            return self._averaged(build_learner(tokenizer), settings)
        return train_text_tower(settings, self.work, tokenizer)

    def picture_tower(self) -> Learner:
        """Train the picture tower to match the text tower, or read the finished CLIP back."""
        settings, tokenizer = self.scale.picture_tower, self.tokenizer()
        if self.kept_clip is not None:
            return kept_learner(self.kept_clip, tokenizer)
        if self._finished(settings):
            return self._averaged(build_learner(tokenizer), settings)
        return train_picture_tower(settings, self.work, self.text_tower(), tokenizer, self.scale.clip_photos)

    def denoiser(self, assets: Path | None = None) -> UNet2DConditionModel:
        """Train the denoiser, or read it back; `assets` gets the model so far whenever the state is saved."""
        settings = self.scale.denoiser
        if self._finished(settings):
            return self._averaged(build_denoiser(), settings)
        return train_denoiser(settings, self.work, self._first_diet(), self._publisher(assets))

    def lessons(self, assets: Path | None = None) -> UNet2DConditionModel:
        """Train the denoiser's last lessons, or read it back; `assets` as for the denoiser."""
        settings = self.scale.lessons
        if self._finished(settings):
            return self._averaged(build_denoiser(), settings)
        denoiser = self.denoiser(assets)
        clip, autoencoder = self.text_tower().clip, self.autoencoder()
        count = self.scale.taught
        lessons = prepare_lessons(self.seed, count, self.work, text_tower(clip), self.tokenizer(), autoencoder)
        examples = (lessons, self._first_diet())
        return train_lessons(denoiser, settings, self.work, examples, self._publisher(assets))

    def judge(self) -> Judge:
        """Train the judge of prompt following, or read it back."""
        settings = self.scale.judge
        return (
            self._averaged(Judge(), settings).eval()
            if self._finished(settings)
            else train_judge(settings, self.work, self.scale.judge_pictures)
        )

    def export(self, assets: Path) -> int:
        """Train what is missing and write the base model; return the bytes of its weights."""
        return export(assets, self.picture_tower().clip, self.autoencoder(), self.lessons(), self.work / "tokenizer")

    def progress(self) -> dict[str, Progress]:
        """Return how far each finished stage came, in how many seconds and on which machines, by its name."""
        found = {}
        for name, settings in self.scale.all_settings.items():
            if self._finished(settings):
                found[name] = progress_of(self._state(settings))
        return found

    def _first_diet(self) -> Conditioned:
        clip, counts = self.text_tower().clip, (self.scale.drawn, self.scale.photos)
        return prepare(self.seed, counts, self.work, text_tower(clip), self.tokenizer(), self.autoencoder())

    def _publisher(self, assets: Path | None) -> Callable[[dict[str, torch.Tensor]], None] | None:
        """Return what writes the model so far to `assets`."""
        if assets is None:
            return None
        clip, autoencoder = self.text_tower().clip, self.autoencoder()

        def publish(weights: dict[str, torch.Tensor]) -> None:
            network = build_denoiser()
            network.load_state_dict(weights)
            export(assets, clip, autoencoder, network, self.work / "tokenizer")

        return publish

    def _state(self, settings: StageSettings) -> Path:
        return self.work / f"{settings.name}.safetensors"

    def _finished(self, settings: StageSettings) -> bool:
        return finished(self._state(settings), settings.steps)

    def _averaged(self, network: Network, settings: StageSettings) -> Network:
        with safe_open(self._state(settings), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith("average.")}  # noqa: SIM118
        network.load_state_dict(part(tensors, "average."))
        return network.eval()


def kept_learner(folder: Path, tokenizer: CLIPTokenizer) -> Learner:
    """Return a learner with the towers of a trained CLIP; its questions are untrained."""
    learner = build_learner(tokenizer)
    learner.clip.load_state_dict(CLIPModel.from_pretrained(folder).state_dict())
    return learner.eval()
