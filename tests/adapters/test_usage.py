"""How a finished adapter is used: the program that draws with it, and the word that its prompts hold."""

import ast
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.usage import drawing_settings, example_controls, example_prompt, own_word, snippet
from orchestrator.contract.adapter import CONTROLNET, EMBEDDING, FULL, LORA, AdapterManifest
from orchestrator.contract.words import holds_word
from orchestrator.resources import BUILTIN_MODEL

HOSTILE = "'); import os; os.abort()  # \\ \n\u202e"


def manifest(**changes: Any) -> AdapterManifest:
    values: dict[str, Any] = {
        "kind": LORA,
        "parts": ("unet",),
        "recipe": "dreambooth",
        "config": {"instance_prompt": "a photo of sks dog", "inference_steps": 20, "resolution": 64, "seed": 3},
        "base_model": {"id": "builtin", "fingerprint": "f", "family": "sd"},
        "dataset_sha256": "d",
        "bundle_sha256": "b",
        "trigger": "a photo of sks dog",
        "libraries": {},
    }
    return AdapterManifest.model_validate({**values, **changes})


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("kind", [LORA, FULL, EMBEDDING, CONTROLNET])
def test_every_kind_of_adapter_has_a_program_that_is_python_whatever_its_manifest_holds(kind: str, family: str) -> None:
    for word in ("<my-dog>", HOSTILE):
        base = {"id": word.strip() or "x", "fingerprint": "f", "family": family, "revision": word}
        config = {"inference_steps": word, "guidance_scale": [], "resolution": True, "seed": float("nan")}
        adapter = manifest(kind=kind, trigger=word, base_model=base, config=config)
        program = "\n".join(snippet(adapter, f"/home/{word}"))
        tree = ast.parse(program)
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert "pipe" in called
        assert not any(name.startswith("os.") for name in called)
        assert all(line.isprintable() for line in program.splitlines())


def test_a_program_names_the_base_model_by_its_path_or_its_commit_on_the_hub() -> None:
    here = "\n".join(snippet(manifest(), "/a"))
    assert f"from_pretrained({str(BUILTIN_MODEL)!r}, " in here
    base = {"id": "org/model", "fingerprint": "f", "family": "sdxl", "revision": "0123abc"}
    hub = "\n".join(snippet(manifest(base_model=base), "/a"))
    assert "StableDiffusionXLPipeline.from_pretrained('org/model', revision='0123abc', " in hub


@pytest.mark.parametrize("parts", [("unet",), ("vae", "text_encoder"), ("unet", "vae", "text_encoder")])
@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_program_names_the_variant_of_weights_that_are_there_in_no_other(
    tmp_path: Path,
    variant: str,
    parts: tuple[str, ...],
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUILTIN_MODEL, folder)
    base = {"id": str(folder), "fingerprint": "f", "family": "sd"}
    plain = "\n".join(snippet(manifest(base_model=base), "/a"))
    assert "variant" not in plain
    for part in parts:
        for path in (folder / part).glob("*.safetensors"):
            path.rename(path.with_suffix(f".{variant}.safetensors"))
    program = "\n".join(snippet(manifest(base_model=base), "/a"))
    assert f"from_pretrained({str(folder)!r}, variant='{variant}', use_safetensors=True, " in program


@pytest.mark.parametrize("name", ["./sd15", "./", "../sd15", "sd15", "~/sd15", "/nowhere/sd15", "x" * 5000, HOSTILE])
def test_a_program_does_not_guess_where_the_folder_of_a_base_model_is(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "sd15").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")  # what lies here under that name is another model
    base = {"id": name, "fingerprint": "f", "family": "sd"}
    unknown = snippet(manifest(base_model=base), "/a")
    assert f'model = "FOLDER"  # write where the base model {name!r} is on this machine' in unknown
    assert any("from_pretrained(model, use_safetensors=True, " in line for line in unknown)
    known = "\n".join(snippet(manifest(base_model=base), "/a", BUILTIN_MODEL))
    assert f"from_pretrained({str(BUILTIN_MODEL)!r}, use_safetensors=True, " in known


def test_what_is_not_known_here_has_no_program() -> None:
    assert snippet(manifest(kind="newer"), "/a") == []
    assert snippet(manifest(base_model={"id": "builtin", "fingerprint": "f", "family": "newer"}), "/a") == []


def test_a_controlnet_is_shown_a_picture_of_a_kind_that_it_knows() -> None:
    def controls(**config: Any) -> list[str]:
        return example_controls(manifest(kind=CONTROLNET, trigger=None, config=config))

    assert controls(conditions=["given", "canny"]) == ["--control", "map:given=picture.png"]
    assert controls(conditions=["blur", "canny"]) == ["--control", "blur=picture.png"]
    for conditions in (None, [], "canny", [HOSTILE], [["canny"]]):
        assert controls(conditions=conditions) == ["--control", "canny=picture.png"]
    assert example_controls(manifest()) == []


def test_settings_are_those_of_the_recipe_and_numbers_in_any_case() -> None:
    assert drawing_settings(manifest())[:] == (20, 7.5, 64, 3)
    assert drawing_settings(manifest(config={"inference_steps": "x", "resolution": None}))[:] == (25, 7.5, 512, 0)
    for number in (10**400, float("inf"), float("nan"), True):
        assert drawing_settings(manifest(config={"seed": number, "guidance_scale": number}))[1::2] == (7.5, 0)


@pytest.mark.parametrize(
    ("changes", "prompt", "lacks"),
    [
        ({}, "SKS dog on the beach", False),
        ({}, "a dog on the beach", True),
        ({}, "asksa dog", True),
        ({"config": {}}, "sks dog", True),  # only the whole prompt is known
        ({"recipe": "newer", "trigger": None}, "anything", False),
        ({"recipe": "textual-inversion", "config": {}, "trigger": "<dog>"}, "a photo of <dog>", False),
        ({"recipe": "textual-inversion", "config": {}, "trigger": "<dog>"}, "a photo of dog", True),
    ],
    ids=str,
)
def test_a_prompt_without_the_learned_word_is_noticed(changes: dict[str, Any], prompt: str, lacks: bool) -> None:
    word = own_word(manifest(**changes))
    assert (word is not None and not holds_word(prompt, word.text)) is lacks


def test_an_example_prompt_holds_the_words_that_call_the_result_up() -> None:
    assert example_prompt(manifest()) == "a photo of sks dog"
    assert example_prompt(manifest(trigger="<dog>")) == "a photo of <dog>"
    assert example_prompt(manifest(trigger=None)) == "a photo"
