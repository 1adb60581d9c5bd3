"""What a picture shows, as values: a plain shape or a toy monster before a coloured background.

A scene is drawn at random from `(seed, index)` alone, so any picture of the training set can be drawn again by itself.
Some combinations of (kind, colour, background colour) are held out by a hash and never used in training.
"""

import hashlib
import random
from dataclasses import dataclass

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (250, 135, 20),
    "yellow": (250, 225, 45),
    "green": (40, 165, 65),
    "blue": (40, 85, 220),
    "purple": (130, 45, 170),
    "pink": (252, 155, 195),
    "white": (248, 248, 248),
    "black": (22, 22, 26),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
MONSTER = "monster"
KINDS = (*SHAPES, MONSTER)
PATTERNS = ("plain", "striped", "dotted", "checkered", "gradient")
POSITIONS = ("centre", "left", "right", "top", "bottom")
SIZES = ("small", "medium", "large")
BODIES = ("round", "tall", "wide", "square")
TOPS = ("bald", "horns", "ears", "antennae")
ARMS = ("none", "down", "up")
SKINS = ("plain", "spots", "stripes")
MOUTHS = ("smile", "teeth", "open")

HELD_OUT_ONE_IN = 8


@dataclass(frozen=True)
class Background:
    """A coloured ground; `angle` (degrees) and `pitch` (fraction of the width) place its pattern."""

    pattern: str
    colour: str
    angle: float
    pitch: float


@dataclass(frozen=True)
class Monster:
    """The looks of one toy monster; every field but `mood` can be named by a caption."""

    body: str
    eyes: int
    top: str
    top_count: int
    top_colour: str
    arms: str
    legs: int
    skin: str
    skin_colour: str
    mouth: str


@dataclass(frozen=True)
class Scene:
    """One object before one background; `x`, `y` and `radius` fractions of the width, `tilt` in degrees."""

    kind: str
    colour: str
    background: Background
    size: str
    position: str
    x: float
    y: float
    radius: float
    tilt: float
    shade: tuple[float, float]
    monster: Monster | None = None


def generator(*key: object) -> random.Random:
    """Return the random generator that belongs to a key; equal keys give equal streams on every machine."""
    return random.Random("/".join(map(str, key)))  # noqa: S311 - pictures, not secrets


def chance(rng: random.Random, share: float) -> bool:
    """Say yes with the given probability."""
    return rng.random() < share


def held_out(kind: str, colour: str, background: str) -> bool:
    """Say whether training never sees this combination; about one in `HELD_OUT_ONE_IN` is set aside."""
    digest = hashlib.sha256(f"{kind} {colour} {background}".encode()).digest()
    return digest[0] % HELD_OUT_ONE_IN == 0


def held_out_combinations() -> list[tuple[str, str, str]]:
    """Return all held-out (kind, colour, background colour) triples in a fixed order."""
    triples = [(k, c, b) for k in KINDS for c in COLOURS for b in COLOURS if c != b]
    return [triple for triple in triples if held_out(*triple)]


@dataclass(frozen=True)
class Mix:
    """How often things are drawn; sizes are weighted in the order of `SIZES`."""

    monsters: float
    """The share of monsters among all objects."""
    shape_sizes: tuple[float, float, float]
    monster_sizes: tuple[float, float, float]


EVEN_MIX = Mix(monsters=0.38, shape_sizes=(1, 2, 1), monster_sizes=(1, 2, 1))
"""What the CLIP learns from, and what the figures are measured on."""
HARD_MIX = Mix(monsters=0.5, shape_sizes=(2, 1.2, 0.8), monster_sizes=(1, 2, 2))
"""What autoencoder and denoiser learn from: more of what is hard to draw, twice as many small shapes and more monsters,
larger ones, because the parts of a small monster are two pixels wide."""


def draw_scene(rng: random.Random, mix: Mix = EVEN_MIX, *, unseen: bool = False) -> Scene:
    """Draw a scene: of training's combinations, or (`unseen`) of those held out from it."""
    while True:
        kind = MONSTER if chance(rng, mix.monsters) else rng.choice(SHAPES)
        colour, ground = rng.sample(tuple(COLOURS), 2)
        if held_out(kind, colour, ground) == unseen:
            return place(rng, kind, colour, draw_background(rng, ground), mix)


RADII = {"small": (0.15, 0.2), "medium": (0.23, 0.31), "large": (0.35, 0.41)}
MONSTER_RADII = {"small": (0.24, 0.27), "medium": (0.29, 0.35), "large": (0.37, 0.41)}
OFFSETS = {"centre": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}


def place(rng: random.Random, kind: str, colour: str, background: Background, mix: Mix = EVEN_MIX) -> Scene:
    """Choose size, position, tilt and shade for an object; large objects stay in the centre."""
    size = rng.choices(SIZES, mix.monster_sizes if kind == MONSTER else mix.shape_sizes)[0]
    radius = rng.uniform(*(MONSTER_RADII if kind == MONSTER else RADII)[size])
    position = "centre" if size == "large" else rng.choices(POSITIONS, (6, 1, 1, 1, 1))[0]
    reach = 0.46 - radius
    dx, dy = OFFSETS[position]
    return Scene(
        kind=kind,
        colour=colour,
        background=background,
        size=size,
        position=position,
        x=0.5 + dx * reach + rng.uniform(-0.03, 0.03),
        y=0.5 + dy * reach + rng.uniform(-0.03, 0.03),
        radius=radius,
        tilt=rng.uniform(-12, 12),
        shade=(rng.uniform(-1, 1), rng.uniform(-1, 1)),
        monster=draw_monster(rng, colour, background.colour) if kind == MONSTER else None,
    )


def draw_background(rng: random.Random, colour: str) -> Background:
    """Draw a background of the named colour; half of them are plain."""
    pattern = rng.choices(PATTERNS, (5, 1.5, 1.5, 1.2, 1))[0]
    angle = rng.choice((0, 45, 90, 135)) + rng.uniform(-4, 4)
    return Background(pattern, colour, angle, rng.uniform(0.16, 0.26))


def draw_monster(rng: random.Random, colour: str, ground: str) -> Monster:
    """Draw a monster's looks; its second colours differ from its body's colour and from the background's."""
    others = [name for name in COLOURS if name not in {colour, ground}]
    return Monster(
        body=rng.choice(BODIES),
        eyes=rng.choices((1, 2, 3), (2, 3, 2))[0],
        top=rng.choice(TOPS),
        top_count=rng.choice((1, 2, 3)),
        top_colour=rng.choice(others),
        arms=rng.choice(ARMS),
        legs=rng.choice((0, 2, 3)),
        skin=rng.choice(SKINS),
        skin_colour=rng.choice(others),
        mouth=rng.choice(MOUTHS),
    )
