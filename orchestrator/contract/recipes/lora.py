"""LoRA on captioned pictures (arXiv 2106.09685): a style, a domain, or many concepts in one adapter."""

from collections.abc import Mapping
from typing import Any, ClassVar

from orchestrator.contract.datasets import CAPTIONED_SET, DatasetKind
from orchestrator.contract.families import Family
from orchestrator.contract.footprint import KEPT_LORA, PASSES_FROZEN, Footprint, ModelSize
from orchestrator.contract.mixins import Captioned, Denoising, LowRank
from orchestrator.contract.recipe import BUILTIN


class CaptionedLora(LowRank, Captioned, Denoising):
    """Train an adapter with which the model draws what the captions say as the pictures show it."""

    summary: ClassVar[str] = "a style, a domain or many concepts from captioned pictures (LoRA and its relatives)"
    dataset: ClassVar[DatasetKind] = CAPTIONED_SET

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return rates that suit the tuner and the size of the base model."""
        values = super().defaults(chosen, family)
        values["buckets"] = True
        if chosen.get("base_model", BUILTIN) == BUILTIN:
            values |= {
                "guidance_scale": 2.0,  # more bleaches a style before it bleaches a shape
                "steps": 400,
                "batch_size": 4,
                "learning_rate": 2e-3,
                "lr_schedule": "cosine",
            }
        else:
            # PEFT's comparison of methods trains LoKr, which has the fewest parameters, at ten times the rate.
            rate = 1e-3 if chosen.get("tuner") == "lokr" else 1e-4
            values |= {"steps": 2000, "learning_rate": rate}
        return values

    def footprint(self, size: ModelSize) -> Footprint:
        """Return what it trains."""
        trained = self.adapter_parameters(size)
        return Footprint(
            trained=trained,
            added=trained,
            samples=self.batch_size,
            kept=KEPT_LORA,
            passes=PASSES_FROZEN,
            text=self.train_text_encoder,
        )
