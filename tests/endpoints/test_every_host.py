"""Every option of `generate`, and a batch, on every host and mode: the real server, by the same commands."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw
from sagemaker_simulator import Image as ContainerImage

from orchestrator.cli import cli
from orchestrator.contract.samples import CELL
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings
from tests.endpoints.made import publish_control, publish_embedding, publish_loras
from tests.endpoints.sagemaker.test_simulated import account

SERVER = ContainerImage(environment={"OMP_NUM_THREADS": "1"})
ASKED = ("--prompt", "a photo of sks monster", "--seed", "1", "--steps", "2", "--size", "64")
OPTIONS: dict[str, tuple[str, ...]] = {
    "the base model": (),
    "adapter": ("--adapter", "dog"),
    "weight": ("--adapter", "dog:0.5"),
    "two adapters": ("--adapter", "dog:0.5", "--adapter", "cat"),
    "embedding": ("--prompt", "a <word>", "--embedding", "word"),
    "control": ("--control", "canny=shown.png:0.8,net=edges,low=50"),
    "image": ("--image", "shown.png", "--strength", "0.6"),
    "mask": ("--image", "shown.png", "--mask", "white.png"),
    "scheduler": ("--scheduler", "euler"),
    "negative": ("--negative", "red", "--guidance", "4"),
    "guidance": ("--guidance", "2"),
}
"""Each draws something else than all others."""
ADAPTERS = "dog,cat,word,edges"
HOSTS = ("local", "realtime", "async", "components")


@pytest.fixture(params=HOSTS)
def host(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """An endpoint "mine" with two adapters, a learned word and a ControlNet, and pictures in an own folder."""
    publish_loras(settings.home, "dog", "cat")
    publish_embedding(settings.home, "word")
    publish_control(settings.home, "edges")
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(settings.home))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).rectangle((16, 16, 48, 48), fill="blue")
    picture.save("shown.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save("white.png")
    if request.param == "local":
        run("deploy", "mine", "--adapters", ADAPTERS)
        yield request.param
        LocalHost(settings).delete("mine")
        return
    with account(settings, monkeypatch, SERVER) as simulator:
        simulator.seconds_per_call["DescribeEndpoint"] = 30
        monkeypatch.setattr("orchestrator.endpoints.sagemaker.host.POLL_SECONDS", 0.05)
        words = ["deploy", "mine", "--host", "sagemaker", "--mode", request.param, "--instances", "1:1", "--yes"]
        adapters = ADAPTERS
        if request.param == "components":
            with pytest.raises(OrchestratorError, match="nothing was created") as refused:
                run(*words, "--adapters", adapters)
            assert "edges: is a ControlNet, which SageMaker does not take" in refused.value.render()
            adapters = adapters.removesuffix(",edges")
        run(*words, "--adapters", adapters)
        yield request.param


def run(*words: str) -> Any:
    """Give a command and return its exit code and what it prints; raises its error."""
    said = CliRunner().invoke(cli, [*words, "--json"], standalone_mode=False)
    if said.exception is not None:
        raise said.exception
    return said.return_value or 0, json.loads(said.stdout)


def test_every_option_of_generate_and_a_batch_work(host: str) -> None:
    drawn: dict[bytes, str] = {}
    for option, words in OPTIONS.items():
        if (host, option) == ("components", "control"):
            with pytest.raises(OrchestratorError, match="Nothing was drawn") as not_there:
                run("generate", "mine", *ASKED, *words, "-o", "no.png")
            assert "net=edges: the endpoint mine has no such ControlNet" in not_there.value.render()
            continue
        run("generate", "mine", *ASKED, *words, "-o", f"{option}.png")
        files = sorted(Path().glob(f"{option}*.png"))
        other = drawn.setdefault(files[-1].read_bytes(), option)
        assert other == option, f"on {host}, {option} draws what {other} does"

    _, said = run("generate", "mine", *ASKED, "-n", "2", "-o", "two.png")
    assert [image["seed"] for image in said["images"]] == [1, 2]
    assert pixels("two-1.png") == pixels("the base model.png") != pixels("two-2.png")

    run("generate", "mine", "--grid", *ASKED, "--adapter", "dog", "--adapter", "cat:0.5", "-o", "grid.png")
    with Image.open("grid.png") as grid:
        assert grid.width > 3 * CELL

    batch_is_drawn_once_whatever_happens()
    for words, why in (
        (("--adapter", "dgo"), 'did you mean "dog"'),
        (("--control", "canny=shown.png,net=dgo"), "has no such ControlNet"),
        (("--mask", "white.png"), "there is none to begin with"),
    ):
        with pytest.raises(OrchestratorError) as refused:
            run("generate", "mine", *ASKED, *words, "-o", "no.png")
        assert why in refused.value.render()
    assert not Path("no.png").exists()


def batch_is_drawn_once_whatever_happens() -> None:
    lines = [
        {"prompt": "a photo of sks monster", "seeds": [1, 2], "id": "plain"},
        {"prompt": "a photo of sks monster", "seed": 1, "adapters": ["dog:0.5"]},
        {"prompt": "a <word>", "seed": 1, "embeddings": ["word"]},
        {"prompt": "a <word>", "adapters": ["word:0.5"]},  # a learned word has no strength: the server refuses it
    ]
    Path("lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ("generate", "mine", "--batch", "lines.jsonl", "--steps", "2", "--size", "64", "-o", "batch")
    code, said = run(*words)
    assert (code, said["images"], said["new"]) == (9, 4, 4), said
    (missing,) = said["missing"]
    assert (missing["file"], "no strength other than 1" in missing["why"]) == ("00004.png", True)
    names = {path.name for path in Path("batch").glob("*.png")}
    assert names == {"plain-1.png", "plain-2.png", "00002.png", "00003.png"}
    near(Path("batch/plain-1.png"), Path("the base model.png"))
    near(Path("batch/00002.png"), Path("weight.png"))

    Path("lines.jsonl").write_text("\n".join(map(json.dumps, lines[:3])))
    kept = Path("batch/00002.png").stat().st_mtime_ns
    Path("batch/plain-2.png").unlink()
    code, said = run(*words)
    assert (code, said["images"], said["new"]) == (0, 4, 1)
    assert Path("batch/00002.png").stat().st_mtime_ns == kept


def near(one: Path, other: Path) -> None:
    """Require two images whose batches may have been others: sums are rounded in another order."""
    with Image.open(one) as first, Image.open(other) as second:
        pairs = zip(first.convert("RGB").tobytes(), second.convert("RGB").tobytes(), strict=True)
        assert max(abs(a - b) for a, b in pairs) <= 1


def pixels(file: str) -> bytes:
    with Image.open(file) as image:
        return image.convert("RGB").tobytes()
