"""Layouts that no ControlNet was trained on: the same kind of scenes as the packaged ones, with other numbers."""

import json
from pathlib import Path

from pretraining.layouts import COUNT, SIDE, caption_of, layout
from pretraining.pictures import draw

PICTURES = 12


def write_held_out(folder: Path) -> Path:
    """Write pictures and their captions to a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(COUNT + 1, COUNT + 1 + PICTURES):
        scene = layout(number)
        path = folder / f"held-out-{number}.png"
        draw(scene, SIDE).save(path)
        row = {"file_name": path.name, "text": caption_of(scene)}
        rows.append(json.dumps(row) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows), encoding="utf-8")
    return folder
