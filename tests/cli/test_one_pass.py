"""A photo is read and decoded once, however many jobs of a command learn from it."""

import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.settings import Settings

ONCE = {"one.jpg": 1, "two.jpg": 1}


@pytest.mark.parametrize("target", ["local", "sagemaker"])
@pytest.mark.parametrize("words", [("submit", "dreambooth"), ("sweep", "dreambooth", "-s", "rank=4,8")], ids=str)
def test_a_dry_run_decodes_each_photo_once(
    settings: Settings,
    turned_photos: Path,
    decodes: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    words: tuple[str, ...],
) -> None:
    photos = ("--images", str(turned_photos), "--prompt", "a photo of sks dog")
    monkeypatch.setattr(sys, "argv", ["orchestrator", *words, *photos, "--target", target, "--dry-run"])
    assert main() == 0
    assert decodes == ONCE


@pytest.mark.parametrize(
    ("words", "start"),
    [(("submit", "dreambooth"), "begin"), (("sweep", "dreambooth", "-s", "rank=4,8"), "_run")],
    ids=["submit", "sweep"],
)
def test_what_a_job_of_this_machine_reads_is_stored_from_the_same_pass(
    settings: Settings,
    turned_photos: Path,
    decodes: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    start: str,
) -> None:
    command = import_module(f"orchestrator.cli.{words[0]}")
    monkeypatch.setattr(command, start, lambda *_words: 0)  # all but the jobs themselves
    photos = ("--images", str(turned_photos), "--prompt", "a photo of sks dog")
    monkeypatch.setattr(sys, "argv", ["orchestrator", *words, *photos])
    assert main() == 0
    assert decodes == ONCE
    stored = sorted(path.name for path in (settings.store / "data").rglob("*.png"))
    assert stored == ["00001.png", "00002.png"]
