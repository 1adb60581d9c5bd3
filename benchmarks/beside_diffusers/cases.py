"""What is compared: each recipe with the script that does the same, and the settings that make the two equal.

Both get the same steps, pictures in a step, rate with its schedule, weight decay, seed and resolution, and save a
checkpoint halfway. What one side alone has is said on the page.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from orchestrator.contract.adapter import CONTROLNET_FILE, EMBEDDINGS_FILE, LORA_FILE
from orchestrator.contract.recipe import MAX_STEPS
from orchestrator.resources import ASSETS

Settings = Mapping[str, object]
NONE: Settings = MappingProxyType({})

RESOLUTION = 64
"""That of the built-in model, and of all pictures but those of a camera."""
CLASS_IMAGES = 30
SCRIPT_STEPS, SCRIPT_GUIDANCE = 50, 7.5
"""How the script draws class pictures: it has no option for either."""
PROMPT, CLASS_PROMPT = "a photo of sks monster", "a photo of a monster"
PHOTOS, PREPARED, LAYOUTS = "photos", "prepared", "layouts"
"""Folders of pictures."""
SUBJECT_PICTURES = len(list((ASSETS / "sample").glob("*.png")))
LAYOUT_PICTURES = len(list((ASSETS / "layouts").glob("*.png")))
RANK, VECTORS = 8, 4
UNTRAINED = "untrained"
"""Folder of a ControlNet that changes nothing yet."""
TRIED_PICTURES = 3
"""Training pictures that our ControlNet draws anew before its first step: no setting makes it fewer."""


class Budget(NamedTuple):
    """What both sides are given."""

    steps: int
    batch: int
    """Pictures in a step. Of five pictures the script makes batches of four and of one, so that it is five there."""
    rate: float
    """Learning rate at its highest."""
    schedule: str
    """How the rate goes on."""

    @property
    def checkpoint_steps(self) -> int:
        """Steps between two checkpoints, so that there is one halfway."""
        return max(1, self.steps // 2)


class Case(NamedTuple):
    """What both sides train on, and how."""

    name: str
    pictures: str
    """Folder of the pictures."""
    ours: Settings = NONE
    """Settings of this case alone."""
    theirs: Settings = NONE
    """Options of the script for this case alone; True is a flag."""
    by_default: bool = False
    """Ours with its own settings instead, evaluation included; the script has nothing of the kind to run beside."""
    is_judged: bool = False
    """Whether what the results draw is measured."""
    is_killed: bool = False
    """Whether the training is also killed and resumed."""


class Comparison(NamedTuple):
    """A recipe and the script that does the same."""

    recipe: str
    script: str
    """Its path below `examples/` of diffusers."""
    weights: str
    """Name of the file that both save."""
    budget: Budget
    pictures: int
    """Pictures that are trained on."""
    pictures_option: str
    """The script's option for their folder."""
    ours: Settings
    theirs: Settings
    cases: Sequence[Case]
    repeats: int = 1
    """How often the script counts each picture in a pass."""
    start_option: str = ""
    """The script's option for a network to start from; empty where it has none."""
    asked_as: str = ""
    """What the script's prompts have where ours have the placeholder; empty where it is the same."""

    @property
    def script_name(self) -> str:
        """Name of the script's file."""
        return Path(self.script).name

    @property
    def pass_steps(self) -> int:
        """Steps in which the script goes through all pictures once."""
        return self.pictures * self.repeats // self.budget.batch

    def with_steps(self, steps: int) -> "Comparison":
        """Return the comparison of another length."""
        return self._replace(budget=self.budget._replace(steps=steps))


DREAMBOOTH = Comparison(
    recipe="dreambooth",
    script="dreambooth/train_dreambooth_lora.py",
    weights=LORA_FILE,
    budget=Budget(steps=250, batch=5, rate=1e-3, schedule="cosine"),
    pictures=SUBJECT_PICTURES,
    pictures_option="instance_data_dir",
    ours={
        "instance_prompt": PROMPT,
        "rank": RANK,
        "targets": "attention",  # the script has no other
        "prior_preservation": False,
    },
    theirs={"instance_prompt": PROMPT, "rank": RANK},
    cases=(
        Case("photos of a camera", PHOTOS),
        Case("prepared pictures", PREPARED, is_judged=True, is_killed=True),
        Case(
            "prepared, class pictures",
            PREPARED,
            ours={
                "prior_preservation": True,
                "class_prompt": CLASS_PROMPT,
                "class_images": CLASS_IMAGES,
                "inference_steps": SCRIPT_STEPS,
                "guidance_scale": SCRIPT_GUIDANCE,
            },
            theirs={
                "with_prior_preservation": True,
                "class_data_dir": "class",
                "class_prompt": CLASS_PROMPT,
                "num_class_images": CLASS_IMAGES,
            },
            is_killed=True,
        ),
        Case("prepared, our defaults", PREPARED, by_default=True),
    ),
)
WORD: Settings = {"placeholder_token": "<subject>", "initializer_token": "monster"}
TEXTUAL_INVERSION = Comparison(
    recipe="textual-inversion",
    script="textual_inversion/textual_inversion.py",
    weights=EMBEDDINGS_FILE,
    budget=Budget(steps=300, batch=4, rate=2e-2, schedule="constant"),
    pictures=SUBJECT_PICTURES,
    pictures_option="train_data_dir",
    repeats=100,
    ours={**WORD, "vectors": VECTORS, "hold_initializer": False, "weight_decay": 0.0},  # the script trains every vector
    theirs={**WORD, "num_vectors": VECTORS, "adam_weight_decay": 0.0},
    asked_as="a <subject>",  # most of its prompts have an article
    cases=(
        Case("prepared pictures", PREPARED, is_judged=True, is_killed=True),
        Case("prepared, our defaults", PREPARED, by_default=True, is_judged=True),
    ),
)
CONTROLNET = Comparison(
    recipe="controlnet",
    script="controlnet/train_controlnet.py",
    weights=CONTROLNET_FILE,
    budget=Budget(steps=1000, batch=4, rate=1e-3, schedule="cosine"),
    pictures=LAYOUT_PICTURES,
    pictures_option="train_data_dir",
    ours={
        "conditions": ["given"],
        "given_map": "canny",
        "caption_dropout": 0.5,
        "condition_dropout": 0.0,
        # Nothing is drawn on the way, but once at the start.
        "validation_steps": MAX_STEPS,
        "obeyed_by": MAX_STEPS,
        "watched_images": TRIED_PICTURES,
    },
    theirs={"proportion_empty_prompts": 0.5, "cache_dir": "cache"},
    start_option="controlnet_model_name_or_path",
    cases=(
        Case("layouts with their edges", LAYOUTS, is_judged=True, is_killed=True),
        Case("layouts, our defaults", LAYOUTS, by_default=True),
    ),
)
COMPARISONS: Mapping[str, Comparison] = {one.recipe: one for one in (DREAMBOOTH, TEXTUAL_INVERSION, CONTROLNET)}
