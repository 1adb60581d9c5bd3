"""From a recipe's settings to the adapter that it trains."""

from entrypoints.adapters.lora import Lora
from entrypoints.adapters.peft_layout import PeftLayout
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from orchestrator.contract.mixins import LowRank


def low_rank_tuner(recipe: LowRank, base: BaseModel) -> Tuner:
    """Return LoRA or the relative of it that the recipe names, in a diffusers LoRA file where that can hold it."""
    in_diffusers_file = recipe.tuner == "lora" or (recipe.tuner == "dora" and not recipe.train_text_encoder)
    if not in_diffusers_file:
        return PeftLayout(
            base,
            recipe.tuner,
            rank=recipe.rank,
            alpha=recipe.lora_alpha,
            text_encoder=recipe.train_text_encoder,
            seed=recipe.seed,
            targets=recipe.targets,
        )
    return Lora(
        base,
        rank=recipe.rank,
        alpha=recipe.lora_alpha,
        text_encoder=recipe.train_text_encoder,
        seed=recipe.seed,
        targets=recipe.targets,
        dora=recipe.tuner == "dora",
    )
