"""The stages from nothing to the exported base model, in order; a stage that is finished is read back, not repeated."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTokenizer

from pretraining.autoencoder import build_autoencoder, train_autoencoder
from pretraining.clip import Learner, build_learner, train_picture_tower, train_text_tower
from pretraining.denoiser import build_denoiser, prepare, train_denoiser
from pretraining.export import export, text_tower
from pretraining.judge import Judge, train_judge
from pretraining.tokenizer import write_json, write_tokenizer
from pretraining.training import Plan, finished, part, seconds_spent

Network = TypeVar("Network", bound=torch.nn.Module)


AUTOENCODER = Plan("autoencoder", steps=3000, batch=16, learning_rate=2e-3, warm_up=100, save_every=300, horizon=3800)
TEXT_TOWER = Plan("text_tower", steps=300, batch=96, learning_rate=1e-3, warm_up=50, average=0.98, save_every=50)
DENOISER = Plan("denoiser", steps=8500, batch=64, learning_rate=1e-3, warm_up=200, average=0.999, save_every=250)
PICTURE_TOWER = Plan(
    "picture_tower", steps=1500, batch=64, learning_rate=1e-3, warm_up=50, average=0.99, save_every=100
)
JUDGE = Plan("judge", steps=3000, batch=64, learning_rate=2e-3, warm_up=50, average=0.99, save_every=100)


@dataclass(frozen=True)
class Budget:
    """How much of everything: by default what the published model took."""

    autoencoder: Plan = AUTOENCODER
    text_tower: Plan = TEXT_TOWER
    denoiser: Plan = DENOISER
    picture_tower: Plan = PICTURE_TOWER
    judge: Plan = JUDGE
    diet: int = 12_000
    clip_photos: int = 3000
    drawn: int = 20_000
    photos: int = 1200
    judge_pictures: int = 24_000

    @property
    def plans(self) -> dict[str, Plan]:
        """Return the plans of all trained stages by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Plan)}


SHORT = {"steps": 2, "batch": 12, "save_every": 1, "warm_up": 1, "horizon": 0}
QUICK = Budget(
    **{name: replace(plan, **SHORT) for name, plan in Budget().plans.items()},
    diet=12,
    clip_photos=8,
    drawn=16,
    photos=4,
    judge_pictures=16,
)
"""Shows in seconds that the stages fit together; what comes out is no model."""


class Stages:
    """The work folder of one pre-training, with one method per stage."""

    def __init__(self, work: Path, budget: Budget, seed: int = 0) -> None:
        """Take the folder for states and intermediate data, the budget and the seed of everything."""
        self.work = work
        self.budget = replace(budget, **{name: replace(plan, seed=seed) for name, plan in budget.plans.items()})
        self.seed = seed
        work.mkdir(parents=True, exist_ok=True)

    def tokenizer(self) -> CLIPTokenizer:
        """Write the vocabulary and read it back."""
        return write_tokenizer(self.work / "tokenizer")

    def autoencoder(self) -> AutoencoderKL:
        """Train the autoencoder, or read it back."""
        plan, factor = self.budget.autoencoder, self.work / "scaling_factor.json"
        if self._finished(plan) and factor.exists():
            network = self._averaged(build_autoencoder(), plan)
            network.register_to_config(scaling_factor=json.loads(factor.read_text(encoding="utf-8")))
            return network
        network = train_autoencoder(plan, self.work, self.budget.diet)
        write_json(factor, network.config.scaling_factor)
        return network

    def text_tower(self) -> Learner:
        """Train the text tower, or read it back; from here on it stays as it is."""
        plan, tokenizer = self.budget.text_tower, self.tokenizer()
        if self._finished(plan):
            return self._averaged(build_learner(tokenizer), plan)
        return train_text_tower(plan, self.work, tokenizer)

    def picture_tower(self) -> Learner:
        """Train the picture tower to match the text tower, or read the finished CLIP back."""
        plan, tokenizer = self.budget.picture_tower, self.tokenizer()
        if self._finished(plan):
            return self._averaged(build_learner(tokenizer), plan)
        return train_picture_tower(plan, self.work, self.text_tower(), tokenizer, self.budget.clip_photos)

    def denoiser(self, assets: Path | None = None) -> UNet2DConditionModel:
        """Train the denoiser, or read it back; `assets` gets the model so far whenever the state is saved."""
        plan = self.budget.denoiser
        if self._finished(plan):
            return self._averaged(build_denoiser(), plan)
        clip, autoencoder = self.text_tower().clip, self.autoencoder()
        counts = (self.budget.drawn, self.budget.photos)
        examples = prepare(self.seed, counts, self.work, text_tower(clip), self.tokenizer(), autoencoder)

        def publish(weights: dict[str, torch.Tensor]) -> None:
            if assets is not None:
                network = build_denoiser()
                network.load_state_dict(weights)
                export(assets, clip, autoencoder, network, self.work / "tokenizer")

        return train_denoiser(plan, self.work, examples, publish)

    def judge(self) -> Judge:
        """Train the judge of prompt following, or read it back."""
        plan = self.budget.judge
        return (
            self._averaged(Judge(), plan).eval()
            if self._finished(plan)
            else train_judge(plan, self.work, self.budget.judge_pictures)
        )

    def export(self, assets: Path) -> int:
        """Train what is missing and write the base model; return the bytes of its weights."""
        return export(assets, self.picture_tower().clip, self.autoencoder(), self.denoiser(), self.work / "tokenizer")

    def seconds(self) -> dict[str, float]:
        """Return the seconds that each finished stage took, as its state file records them."""
        plans = self.budget.plans.values()
        return {plan.name: seconds_spent(self._state(plan)) for plan in plans if self._finished(plan)}

    def _state(self, plan: Plan) -> Path:
        return self.work / f"{plan.name}.safetensors"

    def _finished(self, plan: Plan) -> bool:
        return finished(self._state(plan), plan.steps)

    def _averaged(self, network: Network, plan: Plan) -> Network:
        with safe_open(self._state(plan), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith("average.")}  # noqa: SIM118
        network.load_state_dict(part(tensors, "average."))
        return network.eval()
