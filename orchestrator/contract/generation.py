"""What a generation asks for: prompts, seeds, settings, adapters, controls; here and on an endpoint."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from orchestrator.contract.buckets import Size
from orchestrator.contract.conditions import GIVEN, MAP_KINDS, settings_of
from orchestrator.contract.problem import did_you_mean, problems_of

MOST_IMAGES = 64
"""Images of one request."""
MOST_ADAPTERS = 8
MOST_CONTROLS = 8
MAX_SEED = 2**32 - 1
MAX_SIZE = 2048
MAX_SCALE = 2
"""Of what a ControlNet adds."""
MOST_PICTURE_BYTES = 2**24
"""Of an encoded picture: more than a PNG of MAX_SIZE has unless it is noise."""

SchedulerName = Literal["ddim", "dpm++", "euler", "euler-ancestral", "heun", "pndm", "unipc"]
SCHEDULERS: Mapping[SchedulerName, str] = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Class in diffusers of each scheduler."""
Name = Annotated[str, Field(min_length=1, max_length=1024)]
Prompt = Annotated[str, Field(min_length=1, max_length=2500)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Side = Annotated[int, Field(ge=32, le=MAX_SIZE, multiple_of=8)]
"""Pixels; an autoencoder makes one latent of 8 by 8."""
Picture = Annotated[Base64Bytes, Field(min_length=1, max_length=MOST_PICTURE_BYTES)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AdapterUse(_Part):
    """A finished adapter, and how strong it is."""

    name: Name
    """Its name."""
    weight: float = Field(1.0, ge=-10, le=10)
    """Strength: 0 is the base model, 1 the adapter as it was trained."""


class Control(_Part):
    """A picture that a ControlNet makes the images follow (arXiv 2302.05543)."""

    network: Name
    """Name of the ControlNet."""
    kind: str
    """What the ControlNet is shown of the picture: canny, blur, palette, sketch, openpose, depth, hed or lineart."""
    is_map: bool = False
    """Whether the picture is such a map already; otherwise one is computed of it."""
    settings: Mapping[str, Any] = {}
    """Settings of the map, such as `low` and `high` of canny; those left out have their defaults."""
    picture: Picture
    """PNG, JPEG or WebP, in base64; its middle is taken where it has not the shape of the images."""
    scale: float = Field(1.0, ge=0, le=MAX_SCALE)
    """What the ControlNet adds is multiplied by it."""
    start: float = Field(0.0, ge=0, lt=1)
    """Share of the steps after which it begins to act."""
    end: float = Field(1.0, gt=0, le=1)
    """Share of the steps after which it acts no more."""
    mask: Picture | None = None
    """Where it acts: a picture of the shape of `picture`, white where it does and black where it does not."""

    @field_validator("kind")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in MAP_KINDS and value != GIVEN:
            fix = did_you_mean(value, MAP_KINDS)
            raise ValueError(f'there are no "{value}" maps; {fix}'.removesuffix("; "))
        return value

    @field_validator("settings")
    @classmethod
    def _are_of_the_kind(cls, value: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        """Return the settings that were given as the numbers that they are."""
        kind: str = info.data.get("kind", "")
        if not value or kind not in MAP_KINDS:
            return value
        if info.data.get("is_map"):
            names = ", ".join(value)
            raise ValueError(f"the picture is a map already, and nothing is computed of it with {names}")
        try:
            return settings_of(kind, value).model_dump(exclude_unset=True)
        except ValidationError as error:
            problems = problems_of(error, MAP_KINDS[kind].settings.model_fields, whole="")
            raise ValueError("; ".join(problem.render() for problem in problems)) from error

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == GIVEN and not self.is_map:
            raise ValueError(f"{GIVEN} maps are never computed; the picture has to be the map itself")
        if self.start >= self.end:
            raise ValueError(f"start is {self.start:g} and end is {self.end:g}; start must be before end")
        return self


class Generation(_Part):
    """Images to draw: each prompt with each seed."""

    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=MOST_IMAGES)
    """What to draw."""
    negative_prompt: str | None = Field(None, max_length=2500)
    """What not to draw; the base model's own idea of nothing when left out."""
    seeds: tuple[Seed, ...] = Field(min_length=1, max_length=MOST_IMAGES)
    """Seeds: with the same seed, the same request draws the same image."""
    steps: int = Field(ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(ge=1, le=100)
    """Scale of classifier-free guidance."""
    size: Side | None = None
    """Side of square images, pixels; and what is taken for a width or a height that is left out."""
    width: Side | None = None
    """Of the images, pixels."""
    height: Side | None = None
    """Of the images, pixels."""
    scheduler: SchedulerName | None = None
    """How steps are taken; the base model's own way when left out."""
    adapters: tuple[AdapterUse, ...] = Field((), max_length=MOST_ADAPTERS)
    """Finished adapters to draw with."""
    embeddings: tuple[Name, ...] = Field((), max_length=MOST_ADAPTERS)
    """Names of learned words that the prompts use."""
    controls: tuple[Control, ...] = Field((), max_length=MOST_CONTROLS)
    """Pictures that the images follow; what several ControlNets add is summed."""
    image: Picture | None = None
    """A picture that the images begin with (image to image, arXiv 2108.01073), PNG, JPEG or WebP in base64."""
    strength: float = Field(0.8, gt=0, le=1)
    """How far the images go away from the picture: the share of the steps that are taken."""
    mask: Picture | None = None
    """Where the picture is drawn anew: a picture of its shape, white there and black where it stays."""

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        count = len(self.prompts) * len(self.seeds)
        if count > MOST_IMAGES:
            raise ValueError(f"{count} images are asked for, prompts times seeds; at most {MOST_IMAGES} at once")
        return self

    @model_validator(mode="after")
    def _check_mask(self) -> Self:
        if self.mask is not None and self.image is None:
            raise ValueError("a mask says where an image is drawn anew, and there is none to begin with")
        return self

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if self.size is None and (self.width is None or self.height is None):
            raise ValueError("the images have no size; give one, or a width and a height")
        return self

    @property
    def shape(self) -> Size:
        """Width and height of the images."""
        size = self.size or 0  # which is there where one of the two is not
        return Size(self.width or size, self.height or size)

    @property
    def images(self) -> list["ImageAsked"]:
        """Prompt and seed of each image."""
        asked = []
        for prompt in self.prompts:
            for seed in self.seeds:
                asked.append(ImageAsked(prompt, seed))
        return asked


class ImageAsked(NamedTuple):
    """One image of a request."""

    prompt: str
    seed: int
