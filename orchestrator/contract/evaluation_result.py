"""What an evaluation leaves: `evaluation.json`, with every figure, its interval, and what was skipped and why.

It lies beside the images that it is about (`samples/`) and a contact sheet, and lists the hash of each file as an
adapter's manifest does. Nothing in it depends on the clock.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.digest import FileDigest, hash_files

EVALUATE = "evaluate"
"""Name of the work, where a job that trains has the name of its recipe."""
EVALUATION_FILE = "evaluation.json"
FORMAT = 1
MOST_BYTES = 4 * 2**20
"""Of an `evaluation.json` that is read."""


class _Part(BaseModel):
    """Fields that a newer version added are ignored on reading."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


class Estimate(_Part):
    """A figure with its bootstrap interval, or without one where there is too little to estimate it from."""

    value: float
    """The figure itself, over all images."""
    low: float | None = None
    """Lower end of the interval; null without one."""
    high: float | None = None
    """Upper end of the interval; null without one."""
    no_interval: str = ""
    """Why there is no interval; empty with one."""

    def text(self, digits: int) -> str:
        """Return the figure with its interval: "0.712 [0.690, 0.731]"; "0.712 [no interval]" without one."""
        value = f"{self.value:.{digits}f}"
        if self.low is None or self.high is None:
            return f"{value} [no interval]"
        return f"{value} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    @property
    def differs(self) -> bool:
        """Whether a difference has an interval that leaves 0 out."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0


class Space(_Part):
    """A network whose features images are compared by."""

    name: str
    """"clip", "efficientnet" or "dino"."""
    label: str
    """As people read it."""
    sha256: str
    """Hash of its files; figures by different networks cannot be compared."""


class Figure(_Part):
    """One quality in one feature space: of the adapter, and beside it of the base model on the same seeds."""

    measure: str
    """What is measured: a name of the table above."""
    space: str
    """Name of the feature space."""
    images: int = Field(ge=1)
    """Images of the adapter that were measured; the base model has as many."""
    adapter: Estimate
    """Of the images with the adapter."""
    base: Estimate | None = None
    """Of the images of the base model alone."""
    difference: Estimate | None = None
    """Adapter minus base, image by image; an interval without 0 says that they differ."""
    ceiling: Estimate | None = None
    """Of the real pictures among one another, each with all others."""
    gap_closed: Estimate | None = None
    """(adapter - base) / (ceiling - base): 0 is the base model, 1 a real picture."""

    @property
    def no_interval(self) -> str:
        """Why some of its estimates have no interval; empty where all have one."""
        for estimate in (self.adapter, self.base, self.difference, self.ceiling, self.gap_closed):
            if estimate is not None and estimate.no_interval:
                return estimate.no_interval
        return ""


class ControlAgreement(_Part):
    """How far images have what a condition map shows, from 0 to 1: each picture's images against its own map.

    Intervals are over the pictures, each with the images of all its seeds.
    """

    shown: tuple[str, ...]
    """Kinds of the maps that the ControlNet was shown at once."""
    kind: str
    """Kind of the one that the images are compared with."""
    measured_by: str
    """How they are compared: lines by F1, blur and depth by SSIM, a palette by the likeness of its colours."""
    pictures: int = Field(ge=1)
    """Pictures that training did not use, which were drawn anew."""
    images: int = Field(ge=1)
    """Images of the ControlNet that were measured; the base model has as many."""
    own: Estimate
    """Of images that were shown their own map."""
    base: Estimate
    """Of the base model's images, with the same prompts and seeds and no map."""
    gain: Estimate
    """own - base."""
    shuffled: Estimate | None = None
    """Of images that were shown the map of another picture."""
    gap: Estimate | None = None
    """own - shuffled: an interval above 0 says that it is the map that images follow."""
    ceiling: Estimate
    """Of the pictures themselves, encoded and decoded by the base model's autoencoder."""
    times_base: Estimate | None = None
    """own / base; None where the base model's may be 0."""
    share_of_ceiling: Estimate | None = None
    """own / ceiling; None where that may be 0."""

    @property
    def label(self) -> str:
        """What is measured, in words: "canny", "given, by blur", "canny of canny and blur"."""
        label = self.kind
        if self.measured_by != self.kind:
            label = f"{label}, by {self.measured_by}"
        if len(self.shown) > 1:
            label = f"{label} of {' and '.join(self.shown)}"
        return label


class Skipped(_Part):
    """What was not measured."""

    what: str
    """The measure or the feature space."""
    why: str
    """What it lacks."""
    how: str
    """How to get it."""


class EvaluatedAdapter(_Part):
    """The adapter that was measured."""

    name: str
    """Its name, or that of its folder."""
    sha256: str
    """One hash over all its files."""
    recipe: str
    """Name of its recipe."""
    kind: str
    """What it is made of."""
    trigger: str | None = None
    """The words that call the result up; None when any do."""
    weight: float = 1.0
    """Strength that it was drawn with."""


class DrawnWith(_Part):
    """How the images were drawn."""

    steps: int
    """Denoising steps."""
    guidance: float
    """Scale of classifier-free guidance."""
    size: int
    """Side of the square images, pixels."""


class AskedPrompt(_Part):
    """A prompt that asks for what was learned, in the words that each of its readers knows."""

    base: str
    """As the base model was asked."""
    adapter: str
    """As the adapter was asked."""
    text: str
    """As CLIP read it: without the subject's own word."""


class EvaluationResult(_Part):
    """The whole of `evaluation.json`."""

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    """Version of this layout."""
    adapter: EvaluatedAdapter
    """What was measured."""
    base_model: BaseModelReference
    """What it was compared with."""
    prompts: tuple[AskedPrompt, ...]
    """Prompts that ask for what was learned."""
    prompts_are_captions: bool = False
    """Whether these are captions of pictures that the adapter was trained on."""
    unrelated: tuple[str, ...] = ()
    """Prompts that do not ask for it: where an adapter should change nothing."""
    seeds: tuple[int, ...]
    """Seeds of the images of each prompt, for the base model and the adapter alike."""
    drawn_with: DrawnWith
    """How the images were drawn."""
    real_pictures: int = Field(0, ge=0)
    """Real pictures that were compared with."""
    reference: str = ""
    """Where they come from, in words; empty without any."""
    spaces: tuple[Space, ...] = ()
    """Feature spaces that the figures are in."""
    figures: tuple[Figure, ...] = ()
    """What was measured."""
    control: tuple[ControlAgreement, ...] = ()
    """Whether a ControlNet is obeyed, for each kind of map, and for two at once; empty for other adapters."""
    skipped: tuple[Skipped, ...] = ()
    """What was not."""
    confidence: float = 0.95
    """Share of the resamples that each interval holds."""
    resamples: int = 0
    """Resamples of each bootstrap."""
    bundle_sha256: str
    """Hash of the code that measured."""
    libraries: dict[str, str]
    """Versions of torch, diffusers, peft, transformers."""
    files: dict[str, FileDigest] = {}
    """Every file of the folder by its relative path, this one excepted."""

    @property
    def title(self) -> str:
        """Heading for its pictures."""
        return f"evaluation of {self.adapter.name}"

    def write(self, folder: Path) -> "EvaluationResult":
        """Hash every file of `folder`, write `evaluation.json` last, and return the completed result."""
        files = hash_files(folder, leave_out=EVALUATION_FILE)
        complete = self.model_copy(update={"files": files})
        text = json.dumps(complete.model_dump(mode="json"), indent=2, ensure_ascii=False)
        (folder / EVALUATION_FILE).write_text(text + "\n", encoding="utf-8")
        return complete

    @classmethod
    def read(cls, folder: Path) -> "EvaluationResult":
        """Read `evaluation.json`; raises FileNotFoundError or pydantic's ValidationError."""
        return cls.model_validate_json((folder / EVALUATION_FILE).read_bytes())

    def damaged_files(self, folder: Path) -> list[str]:
        """Return the files that are missing or changed; an empty list means the folder is whole."""
        found = hash_files(folder, leave_out=EVALUATION_FILE)
        return [name for name, digest in sorted(self.files.items()) if found.get(name) != digest]
