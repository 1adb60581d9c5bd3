"""What a recipe learns from: the folders a person names, and the channels they become."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.environment import PROMPTS_CHANNEL, TRAINING_CHANNEL

CAPTIONS_FILE = "metadata.jsonl"
"""Captions beside the pictures, a JSON object a line: {"file_name": "00001.png", "text": "a photo of sks dog"}.

A picture that counts as several has their number under "repeats"; one that was scaled down for training has its
original size under "width" and "height", which the denoiser of SDXL is told.
"""
CONDITIONS_FOLDER = "conditions"
"""Folder beside the pictures with what a ControlNet is shown of each: conditions/1.png belongs to 1.jpg."""
MOST_REPEATS = 1000
MASK_ENDING = "-masklabel"
"""Ends the name, before the extension, of the mask of an image: `dog-masklabel.png` is that of `dog.jpg`."""
IMAGES = "images"
"""The input that holds training pictures."""
PROMPTS = "prompts"
"""The input that is a file of prompts, or a folder of pairs of pictures."""


class Fewest(BaseModel):
    """How many images a kind of data set should have, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    """Fewer than these are warned of."""
    otherwise: str
    """What training does with fewer."""
    advice: str
    """What to do about it."""


class DatasetKind(BaseModel):
    """One kind of data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """What people call it."""
    inputs: Mapping[str, str]
    """Name of each input, as a job file has it, to the channel its files arrive by."""
    sample: str = "sample"
    """Folder of the packaged assets that is trained on when a person names no images."""
    needs_captions: bool = False
    """Whether every picture needs a caption."""
    has_preferences: bool = False
    """Whether the pictures are pairs, of which PREFERENCES_FILE tells the better one."""
    has_conditions: bool = False
    """Whether a picture may have a condition picture in CONDITIONS_FOLDER."""
    fewest: Fewest | None = None
    """How many images it should have; None where none are learned from, or others say it."""


SUBJECT_PHOTOS = DatasetKind(
    name="subject photos",
    inputs={IMAGES: TRAINING_CHANNEL},
    fewest=Fewest(
        images=3,  # DreamBooth's authors use 3 to 5, https://arxiv.org/abs/2208.12242
        otherwise="training learns the background and the pose too",
        advice="add some that show the same subject elsewhere; 4 to 20 are common",
    ),
)
"""A handful of pictures of one subject, captioned or not."""
CAPTIONED_SET = DatasetKind(
    name="captioned images",
    inputs={IMAGES: TRAINING_CHANNEL},
    sample="style",
    needs_captions=True,
    fewest=Fewest(
        images=5,
        otherwise="the adapter learns them by heart, and draws them whatever the prompt says",
        advice="add others of the same style or domain; 20 to some hundred are common",
    ),
)
"""Pictures of a style, a domain or many concepts, each with a caption."""
CONDITION_PAIRS = DatasetKind(
    name="images and conditions",
    inputs={IMAGES: TRAINING_CHANNEL},
    sample="layouts",
    has_conditions=True,
)
"""Pictures with captions, each with a condition picture of its own or one that is computed from it."""
PROMPTS_ALONE = DatasetKind(name="prompts", inputs={PROMPTS: PROMPTS_CHANNEL}, sample="prompts")
"""Prompts without pictures: the model draws them itself."""
PREFERENCE_PAIRS = DatasetKind(name="pairs of pictures", inputs={IMAGES: TRAINING_CHANNEL}, has_preferences=True)
"""Pictures, and which of two is better."""
NOTHING = DatasetKind(name="nothing", inputs={})
"""No files at all: the recipe's own prompts are all it needs."""
