"""ControlNet (arXiv 2302.05543): a network beside a frozen base model, which then follows edges, colours or any map."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from orchestrator.contract.conditions import CANNY, GIVEN, LEARNED, WEIGHT_FREE
from orchestrator.contract.datasets import CONDITION_PAIRS, DatasetKind
from orchestrator.contract.families import Family, require_steerable
from orchestrator.contract.footprint import KEPT_CONTROL, PASSES_FULL, Footprint, ModelSize
from orchestrator.contract.mixins import Captioned, Denoising
from orchestrator.contract.problem import did_you_mean
from orchestrator.contract.recipe import BUILTIN, FAMILY_CONTEXT, MAX_STEPS

_KINDS = (*WEIGHT_FREE, GIVEN)


class ControlNet(Captioned, Denoising):
    """Train a copy of the denoiser's first half that is shown a condition, and steers the denoiser by it."""

    summary: ClassVar[str] = "drawing that follows edges, colours or maps of your own (a ControlNet)"
    dataset: ClassVar[DatasetKind] = CONDITION_PAIRS

    conditions: tuple[str, ...] = Field((CANNY,), min_length=1, examples=[["canny", "blur"]])
    """What it is shown of each picture: canny, blur, palette or sketch, computed from it; or given, the picture of the
    same name in conditions/. Of several, each visit of a picture draws one, and the ControlNet learns all of them."""
    given_map: str | None = Field(None, examples=["canny"])
    """The kind of map that the given conditions are, by which is measured whether they are obeyed; by the likeness of
    drawn pictures to the training pictures when left out."""
    condition_dropout: float = Field(0.05, ge=0, lt=1)
    """Share of the visits that show black instead of the condition."""
    watched_images: int = Field(8, ge=3, le=32)
    """Training pictures that are drawn anew from their conditions every `validation_steps`, to see whether those are
    obeyed; with the `validation_prompts` if there are some, else with their own captions."""
    obeyed_by: int = Field(10_000, ge=1, le=MAX_STEPS)
    """End the run when conditions are still ignored after so many steps; large models follow them rather suddenly,
    mostly before 10,000 (sec. 3.3 and fig. 4)."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
        """Return rates that suit the size of the base model; half of the captions are left out (sec. 3.3)."""
        values = super().defaults(chosen, family)
        values["caption_dropout"] = 0.5
        if chosen.get("base_model", BUILTIN) == BUILTIN:
            values |= {"steps": 1000, "batch_size": 4, "learning_rate": 1e-3, "lr_schedule": "cosine"}
            values |= {"validation_steps": 100, "obeyed_by": 500}
        else:
            values |= {"steps": 15_000, "batch_size": 4, "learning_rate": 1e-5, "validation_steps": 500}
        return values

    @field_validator("base_model")
    @classmethod
    def _can_be_steered(cls, value: str, info: ValidationInfo) -> str:
        family = (info.context or {}).get(FAMILY_CONTEXT)
        if family is not None:
            require_steerable(family)
        return value

    @field_validator("conditions")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if kind in LEARNED:
                raise ValueError(
                    f"{kind} maps are computed by a network of their own; compute them first, put them into "
                    f"conditions/ beside the pictures, and write -s 'conditions=[\"{GIVEN}\"]'"
                )
            if kind not in _KINDS:
                raise ValueError(f'there is no condition "{kind}"; {did_you_mean(kind, _KINDS)}')
        if len(set(value)) < len(value):
            raise ValueError("names a kind twice; name each once")
        return value

    @field_validator("given_map")
    @classmethod
    def _can_be_computed(cls, value: str | None) -> str | None:
        if value is not None and value not in WEIGHT_FREE:
            known = ", ".join(WEIGHT_FREE)
            raise ValueError(f'"{value}" is none of {known}; leave it out where the conditions are something else')
        return value

    def footprint(self, size: ModelSize) -> Footprint:
        """Return what it trains: a network that comes on top of the model."""
        return Footprint(
            trained=size.control,
            added=size.control,
            samples=self.batch_size,
            kept=KEPT_CONTROL,
            passes=PASSES_FULL,
            text=False,
        )

    @property
    def reads_conditions(self) -> bool:
        """Where they are given."""
        return GIVEN in self.conditions

    @property
    def draws_meanwhile(self) -> bool:
        """Always: what is drawn shows whether conditions are obeyed."""
        return True

    @property
    def images_drawn(self) -> int:
        """The watched ones too: without a condition, with the untrained network, then at each validation."""
        moments = 2 + self.steps // self.validation_steps
        return self.images_judged + moments * self.watched_images

    def idle_settings(self) -> dict[str, str]:
        """Return also what is for given conditions alone."""
        idle = super().idle_settings()
        if not self.reads_conditions:
            idle["given_map"] = f'conditions has no "{GIVEN}"'
        return idle
