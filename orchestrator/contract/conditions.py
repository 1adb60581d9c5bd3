"""Condition maps: what a ControlNet is told of a picture (arXiv 2302.05543), their kinds and settings.

Lengths are shares of a picture's shorter side, so that maps of one picture at two sizes look alike.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CANNY = "canny"
BLUR = "blur"
PALETTE = "palette"
SKETCH = "sketch"
OPENPOSE = "openpose"
DEPTH = "depth"
HED = "hed"
LINEART = "lineart"
GIVEN = "given"
"""Maps of a kind of one's own, which are never computed."""


def as_typed(kind: str) -> str:
    """Return a kind as `--control` takes it: maps of one's own are never computed."""
    if kind == GIVEN:
        return f"map:{GIVEN}"
    return kind


class MapSettings(BaseModel):
    """How maps of a kind are computed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CannySettings(MapSettings):
    """Edges by hysteresis (Canny 1986): white lines of one pixel on black."""

    low: float = Field(100, ge=0, le=2000)
    """Gradient from which a pixel continues an edge; a step of one grey level has 4."""
    high: float = Field(200, ge=0, le=2000)
    """Gradient from which a pixel begins an edge."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}; low must not be above high")
        return self


class BlurSettings(MapSettings):
    """The picture without its details, by a Gaussian."""

    radius: float = Field(0.05, gt=0, le=0.5)
    """Standard deviation of the Gaussian, as a share of the shorter side."""


class PaletteSettings(MapSettings):
    """A few colours on a coarse grid."""

    cells: int = Field(8, ge=2, le=64)
    """Cells of the grid along the shorter side."""
    colours: int = Field(8, ge=2, le=256)
    """Most colours of a map."""


class SketchSettings(MapSettings):
    """Lines by differences of Gaussians (XDoG, Winnemoeller et al. 2012): white on black."""

    sigma: float = Field(0.002, gt=0, le=0.1)
    """Standard deviation of the narrower Gaussian, as a share of the shorter side; at least half a pixel."""
    tau: float = Field(0.98, ge=0, le=1)
    """Weight of the wider Gaussian; near 1, lines depend on contrast alone."""
    epsilon: float = Field(0.0, ge=-1, le=1)
    """Difference from which there is no line; grey values go from 0 to 1."""
    phi: float = Field(40.0, gt=0, le=1000)
    """Steepness of the step from line to ground."""


class LearnedSettings(MapSettings):
    """A map by a network with weights of its own."""

    resolution: int = Field(512, ge=64, le=2048, multiple_of=64)
    """Shorter side in pixels at which the network sees the picture."""


class MapKind(BaseModel):
    """One kind of condition map."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As a person types it."""
    summary: str
    """What it shows."""
    settings: type[MapSettings]
    """Class of its settings."""
    weights: tuple[str, ...] = ()
    """Files that have to be in a folder of weights; empty for a kind that needs none."""

    @property
    def needs_weights(self) -> bool:
        """Whether a network computes it."""
        return bool(self.weights)


_KINDS = (
    MapKind(name=CANNY, summary="edges, by OpenCV", settings=CannySettings),
    MapKind(name=BLUR, summary="the picture without details", settings=BlurSettings),
    MapKind(name=PALETTE, summary="a few colours on a coarse grid", settings=PaletteSettings),
    MapKind(name=SKETCH, summary="lines, by XDoG", settings=SketchSettings),
    MapKind(
        name=OPENPOSE,
        summary="skeletons of people",
        settings=LearnedSettings,
        weights=("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth"),
    ),
    MapKind(
        name=DEPTH,
        summary="how near things are, by MiDaS",
        settings=LearnedSettings,
        weights=("dpt_hybrid-midas-501f0c75.pt",),
    ),
    MapKind(name=HED, summary="soft edges", settings=LearnedSettings, weights=("ControlNetHED.pth",)),
    MapKind(
        name=LINEART,
        summary="lines of a drawing",
        settings=LearnedSettings,
        weights=("sk_model.pth", "sk_model2.pth"),
    ),
)
MAP_KINDS: Mapping[str, MapKind] = {kind.name: kind for kind in _KINDS}
"""Every kind by its name; weights have the names of the Hub's lllyasviel/Annotators, which controlnet-aux reads."""
WEIGHT_FREE = tuple(kind.name for kind in _KINDS if not kind.needs_weights)
"""Kinds that need nothing but the picture."""
LEARNED = tuple(kind.name for kind in _KINDS if kind.needs_weights)
"""Kinds that a network computes."""


def measured_by(kind: str, given_map: str | None) -> str:
    """Return the kind of map by which images that were shown one of a kind are compared.

    `given_map` says what the given maps of a ControlNet are. Where it says nothing, images are to be like the picture
    itself: as far as its blur is.
    """
    if kind != GIVEN:
        return kind
    return given_map or BLUR


def settings_of(kind: str, values: Mapping[str, Any]) -> MapSettings:
    """Return the settings of a kind, defaults for what `values` leaves out; raises pydantic's ValidationError."""
    return MAP_KINDS[kind].settings.model_validate(dict(values))
