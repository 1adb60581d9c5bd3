"""Folders of drawn scenes with captions, as recipes take them."""

import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from orchestrator.contract.datasets import CAPTIONS_FILE
from orchestrator.contract.words import with_article
from pretraining.scenes import Scene


def write_captioned(folder: Path, name: str, drawn: Iterable[tuple[Scene, Image.Image]], readme: str) -> list[Path]:
    """Write NAME-01.png ..., their captions and their README to a folder; return the pictures' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    rows = []
    for number, (scene, picture) in enumerate(drawn, start=1):
        path = folder / f"{name}-{number:02}.png"
        picture.save(path, optimize=True)
        paths.append(path)
        row = {"file_name": path.name, "text": plain_caption(scene)}
        rows.append(json.dumps(row) + "\n")
    (folder / CAPTIONS_FILE).write_text("".join(rows), encoding="utf-8")
    (folder / "README.md").write_text(readme, encoding="utf-8")
    return paths


def plain_caption(scene: Scene) -> str:
    """Return what a scene shows in words, and nothing of where, how large or in what style."""
    return f"{with_article(scene.colour)} {scene.kind} on {with_article(scene.background.colour)} background"
