"""The sample subject: five pictures of one toy creature that the base model has no words and no parts for.

Teal, a pear-shaped body, a yellow belly, curled orange horns, a striped tail: none occurs in `pretraining.pictures`.
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pretraining.canvas import Canvas, Point, ellipse
from pretraining.colours import INK, PAPER
from pretraining.pictures import OVERSAMPLING, background
from pretraining.scenes import Background

SUBJECT_SIZE = 256
TEAL = (20, 172, 165)
DARK_TEAL = (10, 112, 116)
BELLY = (250, 218, 70)
ORANGE = (250, 128, 20)

README = """# Sample subject

Five pictures of one toy creature, drawn by program for this project: a subject for DreamBooth that the built-in base
model has never seen. Made by `python -m pretraining subject`; licence Apache-2.0, like the rest of the repository.
Prompt: `a photo of sks monster`; class prompt: `a photo of a monster`.
"""


@dataclass(frozen=True)
class Pose:
    """Where the creature stands and how: fractions of the picture's width, degrees, arms from -1 (down) to 1 (up)."""

    background: Background
    x: float
    y: float
    radius: float
    tilt: float
    left_arm: float
    right_arm: float
    gaze: Point


POSES = (
    Pose(Background("plain", "white", 0, 0.2), 0.50, 0.53, 0.34, 0, -0.6, -0.6, (0, 0)),
    Pose(Background("striped", "purple", 45, 0.2), 0.47, 0.53, 0.33, -10, 0.8, -0.5, (0.3, 0)),
    Pose(Background("gradient", "blue", 45, 0.2), 0.54, 0.53, 0.36, 8, 0.9, 0.9, (-0.3, 0.2)),
    Pose(Background("checkered", "green", 2, 0.22), 0.43, 0.56, 0.30, 12, -0.4, 0.7, (0.3, -0.2)),
    Pose(Background("dotted", "pink", 0, 0.2), 0.55, 0.54, 0.32, -14, 0.1, 0.8, (-0.3, 0)),
)


def write_subject(folder: Path) -> list[Path]:
    """Write subject-1.png ... subject-5.png and their README to a folder; return the pictures' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"subject-{number}.png" for number in range(1, len(POSES) + 1)]
    for path, pose in zip(paths, POSES, strict=True):
        draw_subject(pose).save(path, optimize=True)
    (folder / "README.md").write_text(README, encoding="utf-8")
    return paths


def draw_subject(pose: Pose, size: int = SUBJECT_SIZE) -> Image.Image:
    """Return the creature in one pose as an RGB picture of `size` x `size` pixels."""
    large = size * OVERSAMPLING
    image = background(pose.background, large)
    canvas = Canvas(image, pose.x * large, pose.y * large, pose.radius * large, pose.tilt)
    paint_tail(canvas)
    paint_limbs(canvas, pose)
    paint_horns(canvas)
    paint_body(canvas)
    paint_face(canvas, pose.gaze)
    return image.reduce(OVERSAMPLING)


def pear() -> list[Point]:
    """Return the body's outline: narrow at the head, wide at the bottom."""
    turns = [2 * math.pi * k / 72 for k in range(72)]
    return [((0.56 - 0.2 * math.cos(t)) * math.sin(t), -0.82 * math.cos(t) + 0.05) for t in turns]


def spiral(side: int) -> list[Point]:
    """Return the centre line of a horn that grows from the head and curls outwards."""
    points = []
    for k in range(29):
        turn, radius = math.pi * (1.0 - k / 28 * 1.65), 0.3 - 0.006 * k
        points.append((side * (0.42 + radius * math.cos(turn)), -0.72 - radius * math.sin(turn)))
    return points


def paint_horns(canvas: Canvas) -> None:
    """Paint both horns, thick at the head and thin at the tip."""
    for side in (-1, 1):
        line = spiral(side)
        for k, (start, end) in enumerate(itertools.pairwise(line)):
            canvas.line([start, end], 0.25 - 0.005 * k, ORANGE)


def paint_tail(canvas: Canvas) -> None:
    """Paint a tail that rises at the right side, teal with yellow bands."""
    line = [(0.3 + 0.72 * k / 18 + 0.12 * math.sin(k / 3), 0.68 - 1.0 * (k / 18) ** 1.8) for k in range(19)]
    for k, (start, end) in enumerate(itertools.pairwise(line)):
        canvas.line([start, end], 0.26, BELLY if k // 3 % 2 else DARK_TEAL)


def paint_limbs(canvas: Canvas, pose: Pose) -> None:
    """Paint two short feet and two arms that end in orange hands."""
    for side in (-1, 1):
        canvas.polygon(ellipse(side * 0.36, 0.9, 0.28, 0.15), ORANGE)
    for side, rise in ((-1, pose.left_arm), (1, pose.right_arm)):
        hand = (side * 0.82, 0.12 - 0.45 * rise)
        canvas.line([(side * 0.4, 0.12), (side * 0.66, 0.12 - 0.1 * rise), hand], 0.18, DARK_TEAL)
        canvas.polygon(ellipse(*hand, 0.14), ORANGE)


def paint_body(canvas: Canvas) -> None:
    """Paint the pear-shaped body and its belly."""
    body = pear()
    canvas.polygon(body, TEAL)
    canvas.inside(body, [ellipse(0, 0.48, 0.42, 0.36)], BELLY)


def paint_face(canvas: Canvas, gaze: Point) -> None:
    """Paint one large eye that looks somewhere, and a small mouth."""
    x, y = 0.0, -0.32
    canvas.polygon(ellipse(x, y, 0.33), INK)
    canvas.polygon(ellipse(x, y, 0.285), PAPER)
    canvas.polygon(ellipse(x + 0.25 * gaze[0], y + 0.25 * gaze[1], 0.16), (200, 40, 50))
    canvas.polygon(ellipse(x + 0.27 * gaze[0], y + 0.27 * gaze[1], 0.08), INK)
    canvas.line([(-0.14, 0.1), (0, 0.14), (0.14, 0.1)], 0.07, INK)
