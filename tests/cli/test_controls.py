"""`--control`: what may be typed, and one message for each thing that is wrong with it."""

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.__main__ import main
from orchestrator.adapters.registry import Registry
from orchestrator.cli.controls import take_apart
from orchestrator.cli.drawing import draw_images
from orchestrator.contract.adapter import CONTROLNET, LORA, AdapterManifest, BaseModelReference
from orchestrator.errors import OrchestratorError
from orchestrator.storage import FolderStore


def write_adapter(folder: Path, kind: str, **config: Any) -> Path:
    """Write an adapter without weights, which are looked at only when something is drawn."""
    folder.mkdir(parents=True)
    AdapterManifest(
        kind=kind,
        recipe="none",
        config={"resolution": 64, **config},
        base_model=BaseModelReference(id="builtin", fingerprint="0", family="sd"),
        dataset_sha256="",
        bundle_sha256="",
        libraries={},
    ).write(folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ControlNet, another adapter, a picture, and what is neither."""
    monkeypatch.chdir(tmp_path)
    write_adapter(tmp_path / "adapters" / "edges" / "edges-0123456789" / "output" / "model", CONTROLNET)
    write_adapter(tmp_path / "dog", LORA)
    write_adapter(tmp_path / "control", CONTROLNET)
    Image.new("RGB", (64, 64), "red").save("p.png")
    Image.new("RGB", (4, 4), "red").save("small.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def refusal(adapter: str, *controls: str, **given: Any) -> OrchestratorError:
    with pytest.raises(OrchestratorError) as raised:
        draw_images(
            adapter,
            Registry([FolderStore(Path.cwd())]),
            {"prompt": "a dog", "control": controls, **given},
            "out.png",
            force=False,
            as_json=True,
        )
    assert raised.value.next_step
    assert not Path("out.png").exists()
    return raised.value


WORDS = {
    "canny=p.png": ("canny", False, "p.png", {}),
    "canny=p.png:0.8": ("canny", False, "p.png", {"scale": "0.8"}),
    "map:depth=d.png:1,net=./sd,end=0.5": ("depth", True, "d.png", {"scale": "1", "net": "./sd", "end": "0.5"}),
    "canny=C:\\photos\\p.png": ("canny", False, "C:\\photos\\p.png", {}),
    "canny=a, b.png:0.5,mask=m, n.png": ("canny", False, "a, b.png", {"scale": "0.5", "mask": "m, n.png"}),
    "canny=p:0.8.png": ("canny", False, "p:0.8.png", {}),
    "canny=p=q.png": ("canny", False, "p=q.png", {}),
}


@pytest.mark.parametrize("text", WORDS)
def test_a_control_is_taken_apart_whatever_its_files_are_called(text: str) -> None:
    words = take_apart(text)
    assert (words.kind, words.is_map, words.picture, words.options) == WORDS[text]


REFUSED = {
    "canny": "names no file",
    "canny=": "names no file",
    "canny=no.png": 'the picture "no.png" is not there',
    "canny=folder.png": 'the picture "folder.png" is a folder, not a picture',
    "canny=/dev/null": 'the picture "/dev/null" is no file',
    "canny=~nobody-of-this-name/p.png": "knows no home folder",
    "canny=p.png,mask=folder.png": 'the mask "folder.png" is a folder, not a picture',
    f"canny={'x' * 300}": "a name of 300 bytes; a file's has at most 255",
    "canny=" + "x/" * 3000: "cannot be read: File name too long",
    "canny=text.png": 'the picture "text.png" is damaged',
    "canny=small.png": 'the picture "small.png" is 4x4, too small to steer images of 64x64 (use one of 8 pixels',
    "cany=p.png": 'there are no "cany" maps; did you mean "canny"?',
    "=p.png": 'there are no "" maps',
    "given=p.png": "never computed",
    "canny=p.png:3": "scale: ",
    "canny=p.png:-1": "scale: ",
    "canny=p.png:nan": "scale: ",
    "canny=p.png,scale=much": "scale: ",
    "canny=p.png,start=0.5,end=0.5": "start must be before end",
    "canny=p.png,start=1": "start: ",
    "canny=p.png,end=2": "end: ",
    "canny=p.png,mask=no.png": 'the mask "no.png" is not there',
    "canny=p.png,mask=": "names no file",
    "canny=p.png,strength=1": 'canny has no option "strength"',
    "canny=p.png,lo=50": 'did you mean "low"?',
    "canny=p.png,low=300": "low must not be above high",
    "canny=p.png,low=much": "low: should be a number",
    "map:canny=p.png,low=50": "a map already",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_wrong_with_a_control_is_said_once(here: Path, text: str) -> None:
    error = refusal("./control", text)
    assert REFUSED[text] in error.render()
    assert len(error.problems) == 1, error.render()
    assert error.problems[0].where == f"--control {text}"
    assert "job: " not in error.render()


@pytest.mark.parametrize("prompt", ["", "p" * 3000])
def test_what_is_wrong_with_a_prompt_is_said_once(here: Path, prompt: str) -> None:
    (problem,) = refusal("./control", "canny=p.png", prompt=prompt).problems
    assert problem.where == "PROMPT"


def test_too_many_controls_are_counted_and_not_printed(here: Path) -> None:
    (problem,) = refusal("./control", *["canny=p.png"] * 9).problems
    assert problem.render() == "--control: should have at most 8 items, not 9"


LONG = "x" * 5000
LONG_NAMES = {
    "the picture": ("./control", "--control", f"canny={LONG}"),
    "the mask": ("./control", "--control", f"canny=p.png,mask={LONG}"),
    "the kind": ("./control", "--control", f"{LONG}=p.png"),
    "the ControlNet": ("./control", "--control", f"canny=p.png,net={LONG}"),
    "an option": ("./control", "--control", f"canny=p.png,{LONG}=1"),
    "the scale": ("./control", "--control", f"canny=p.png,scale={LONG}"),
    "the scheduler": ("./control", "--scheduler", LONG),
    "a learned word": ("./control", "--embedding", LONG),
    "the adapter": (LONG,),
    "the adapter's folder": (f"./{LONG}",),
    "the base model": ("./control", "--base-model", LONG),
}


@pytest.mark.parametrize("what", LONG_NAMES)
def test_a_name_of_thousands_of_letters_is_refused_and_not_printed_in_full(
    here: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(here / "home"))
    adapter, *words = LONG_NAMES[what]
    monkeypatch.setattr(sys, "argv", ["orchestrator", "adapters", "draw", adapter, "a dog", *words])
    assert main() != 0
    told = capsys.readouterr().err
    assert len(told) < 1000
    assert "Next: " in told
    assert "operating system" not in told


def test_everything_that_is_wrong_with_all_controls_is_said_at_once(here: Path) -> None:
    error = refusal("./control", "canny=no.png:7", "cany=p.png", "canny=p.png", size=65, scheduler="best", count=0)
    places = [problem.where for problem in error.problems]
    assert sorted(set(places)) == ["--control canny=no.png:7", "--control cany=p.png", "--scheduler", "--size", "-n"]


def test_a_control_has_to_say_by_which_controlnet(here: Path) -> None:
    assert "names no ControlNet, and dog is an adapter of another kind" in refusal("./dog", "canny=p.png").render()
    assert "There is no adapter" in refusal("./dog", "canny=p.png,net=edgy").render()
    assert "There is no folder" in refusal("./dog", "canny=p.png,net=./nothing").render()


def test_a_controlnet_is_not_drawn_with_as_if_it_were_another_adapter(here: Path) -> None:
    alone = refusal("./control")
    assert "control is a ControlNet, and no picture is named for it to follow" in alone.render()
    weighted = refusal("./control", "canny=p.png", weight=0.5)
    assert "--weight: control is a ControlNet" in weighted.render()


KINDS = {
    ("blur",): "add --control blur=PICTURE",
    ("sketch", "palette"): "add --control sketch=PICTURE or --control palette=PICTURE",
    ("given",): "add --control map:given=PICTURE",
    (): "add --control KIND=PICTURE",
}


@pytest.mark.parametrize("kinds", KINDS)
def test_hints_name_the_kinds_of_maps_that_a_controlnet_was_trained_on(here: Path, kinds: tuple[str, ...]) -> None:
    config = {"conditions": list(kinds)} if kinds else {}
    write_adapter(here / "taught", CONTROLNET, **config)
    alone = refusal("./taught", weight=0.5)
    assert f"({KINDS[kinds]})" in alone.render()
    first = KINDS[kinds].removeprefix("add ").split(" or ")[0]
    assert f"(give it a scale instead: {first}:0.8)" in alone.render()
    assert "canny" not in alone.render()
