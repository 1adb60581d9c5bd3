"""From an adapter to a picture out of an endpoint of this machine, as the real commands do it."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.contract.samples import CELL
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.settings import Settings
from tests.cli.run_here import Run, run_here
from tests.endpoints.made import publish_control, publish_loras

PROMPT = "a photo of sks monster"
ASKED = ("--prompt", PROMPT)
DRAWING = ("--seed", "1", "--steps", "4", "--guidance", "4", "--size", "64")
REFUSED = [
    ((), "--prompt: "),
    ((*ASKED, "--steps", "0"), "--steps: "),
    ((*ASKED, "--size", "65"), "--size: "),
    ((*ASKED, "--width", "65"), "--width: "),
    ((*ASKED, "--guidance", "nan"), "--guidance: "),
    ((*ASKED, "--seed", "-1"), "--seed: "),
    ((*ASKED, "-n", "0"), "-n: "),
    ((*ASKED, *ASKED, "-n", "33"), "66 images are asked for"),
    ((*ASKED, "--scheduler", "fast"), "--scheduler: "),
    ((*ASKED, "--adapter", "dgo:0.5"), 'did you mean "dog"?'),
    ((*ASKED, "--adapter", "dog:99"), "--adapter: "),
    ((*ASKED, "--adapter", "dog:strong"), "--adapter: 'strong' is no weight"),
    ((*ASKED, "--embedding", "cat"), "has no such adapter"),
    ((*ASKED, "--control", "canny=gone.png,net=dog"), "is not there"),
    ((*ASKED, "--control", "canny=gone.png"), "names no ControlNet"),
    ((*ASKED, "--image", "gone.png"), "--image gone.png: is not there"),
    ((*ASKED, "--mask", "mask.png"), "--mask mask.png: "),
    ((*ASKED, "--strength", "2"), "--strength: "),
    ((*ASKED, "-o", "out.jpg"), "is not a PNG file"),
    (("--grid", *ASKED), "--grid compares adapters"),
    (("--batch", "gone.jsonl"), "gone.jsonl cannot be read"),
    (("--batch", "x.jsonl", *ASKED), "--prompt goes with no file"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with two adapters and a ControlNet, and an empty folder to work in; endpoints end with the test."""
    home = tmp_path / "a home, #1 é"
    work = tmp_path / "work"
    work.mkdir()
    publish_loras(home, "dog", "cat")
    publish_control(home, "edges")
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(home))
    monkeypatch.chdir(work)
    yield home
    host = LocalHost(Settings(home=home))
    for name in host.names():
        host.delete(name)


def commanded(*words: str) -> str:
    """Run a command as a program of its own, and return what it printed."""
    command = [sys.executable, "-m", "orchestrator", *words]
    said = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout


def check_refusal(run: Run, words: tuple[str, ...], why: str) -> None:
    """Check that what cannot be drawn is one error, before anything is drawn."""
    said = run("generate", "mine", *words)
    assert said.code != 0, words
    assert why in said.errors
    assert said.errors.count("Next: ") == 1
    assert not list(Path.cwd().glob("*.png"))


def differ_by(one: str, other: str) -> int:
    """Return the largest difference of two images, in levels of 255."""
    with Image.open(one) as first, Image.open(other) as second:
        pairs = zip(first.convert("RGB").tobytes(), second.convert("RGB").tobytes(), strict=True)
        return max(abs(a - b) for a, b in pairs)


def check_wide(said: Callable[..., str]) -> None:
    """Check that an image that is not square is the same from the endpoint as on this machine."""
    wide = (*DRAWING, "--width", "96", "--height", "64")
    said("generate", "mine", *ASKED, "--adapter", "dog", *wide, "-o", "wide.png")
    commanded("adapters", "draw", "dog", PROMPT, *wide, "-o", "wide-here.png")
    with Image.open("wide.png") as image:
        assert image.size == (96, 64)
    assert differ_by("wide.png", "wide-here.png") <= 1


def test_an_adapter_is_deployed_drawn_with_exchanged_and_the_endpoint_deleted(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = json.loads(commanded("deploy", "mine", "--adapters", "dog,edges", "--json"))
    assert (first["status"], first["adapters"]) == ("InService", ["dog", "edges"])
    run = run_here(monkeypatch, capsys)

    def said(*words: str) -> str:
        outcome = run(*words)
        assert outcome.code == 0, outcome.errors
        return outcome.output

    for words, why in REFUSED:
        check_refusal(run, words, why)

    said("generate", "mine", *ASKED, "--adapter", "dog:0.8", *DRAWING, "-n", "2", "-o", "out.png")
    commanded("adapters", "draw", "dog", PROMPT, "--weight", "0.8", *DRAWING, "-n", "2", "-o", "here.png")
    said("generate", "mine", *ASKED, *DRAWING, "-o", "base.png")
    assert differ_by("out-1.png", "here-1.png") <= 1
    assert differ_by("out-2.png", "here-2.png") <= 1
    assert differ_by("out-1.png", "base.png") > 1

    check_wide(said)

    followed = ("--control", "canny=here-2.png:0.8,net=edges,low=50,end=0.9")
    said("generate", "mine", *ASKED, "--adapter", "dog", *DRAWING, *followed, "-o", "followed.png")
    commanded("adapters", "draw", "dog", PROMPT, *DRAWING, *followed, "-o", "followed-here.png")
    said("generate", "mine", *ASKED, "--adapter", "dog", *DRAWING, "-o", "free.png")
    assert differ_by("followed.png", "followed-here.png") <= 1
    assert differ_by("followed.png", "free.png") > 1
    said("generate", "mine", *ASKED, *DRAWING, "--image", "here-2.png", "--strength", "0.3", "-o", "near.png")
    assert differ_by("near.png", "base.png") > 1

    said("endpoints", "update", "mine", "--add", "cat", "--remove", "dog,edges")
    shown = json.loads(said("endpoints", "show", "mine", "--json"))
    assert (shown["adapters"], shown["url"]) == (["cat"], first["url"])  # the same server
    refused = run("generate", "mine", *ASKED, "--adapter", "dog")
    assert "has no such adapter (choose from: cat)" in refused.errors

    grid = ("--grid", "--adapter", "cat", "--adapter", "cat:0.5", *ASKED, "--prompt", "a red monster")
    said("generate", "mine", *grid, "--steps", "2", "-o", "grid.png")
    with Image.open("grid.png") as image:
        assert image.width > 3 * CELL

    lines = [{"prompt": PROMPT, "adapters": ["cat:0.5"], "seed": seed, "steps": 2} for seed in (1, 2, 3)]
    Path("prompts.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    batch = ("generate", "mine", "--batch", "prompts.jsonl", "-o", "batch")
    said(*batch)
    images = sorted(Path("batch").glob("*.png"))
    images[0].unlink()  # as if it had been killed before
    kept = images[1].stat().st_mtime_ns
    assert json.loads(said(*batch, "--json"))["new"] == 1
    assert sorted(Path("batch").glob("*.png")) == images
    assert images[1].stat().st_mtime_ns == kept
    assert len(json.loads(Path("batch/index.json").read_text())["images"]) == len(images) == len(lines)

    assert "server (process" in commanded("endpoints", "delete", "mine")
    assert list((home / "endpoints").iterdir()) == []
    with socket.socket() as caller:
        assert caller.connect_ex(("127.0.0.1", int(first["url"].rpartition(":")[2]))) != 0
