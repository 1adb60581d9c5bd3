import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.contract.adapter import AdapterManifest, BaseModelReference
from orchestrator.contract.digest import FileDigest


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    (tmp_path / "weights.safetensors").write_bytes(bytes(range(256)))
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    return tmp_path


def manifest(**changes: object) -> AdapterManifest:
    base = BaseModelReference(id="builtin", fingerprint="f", family="sd")
    fields = {"recipe": "dreambooth", "config": {"steps": 3}, "base_model": base, "dataset_sha256": "d"}
    return AdapterManifest.model_validate(
        {**fields, "bundle_sha256": "b", "trigger": "sks dog", "libraries": {"torch": "2"}, **changes}
    )


def test_an_untouched_adapter_is_whole(adapter: Path) -> None:
    manifest().write(adapter)
    assert AdapterManifest.read(adapter).damaged_files(adapter) == []


@pytest.mark.parametrize("position", [0, 100, 255])
def test_one_flipped_byte_is_found(adapter: Path, position: int) -> None:
    complete = manifest().write(adapter)
    content = bytearray((adapter / "weights.safetensors").read_bytes())
    content[position] ^= 1
    (adapter / "weights.safetensors").write_bytes(content)
    assert complete.damaged_files(adapter) == ["weights.safetensors"]


def test_missing_and_added_files_are_found(adapter: Path) -> None:
    complete = manifest().write(adapter)
    (adapter / "unet" / "config.json").unlink()
    (adapter / "extra.bin").write_bytes(b"")
    assert complete.damaged_files(adapter) == ["extra.bin", "unet/config.json"]


@pytest.mark.parametrize(
    "changes",
    [{"files": {"a": {"sha256": "0", "size": -1}}}, {"images": -1}, {"captions": -1}],
)
def test_a_manifest_with_a_number_below_zero_is_damaged(adapter: Path, changes: dict[str, object]) -> None:
    manifest().write(adapter)
    path = adapter / "adapter.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValidationError):
        AdapterManifest.read(adapter)


def test_the_header_holds_everything_but_the_files(adapter: Path) -> None:
    complete = manifest().write(adapter)
    header = AdapterManifest.model_validate_json(complete.header()["orchestrator"])
    assert header == complete.model_copy(update={"files": {}})


def test_equal_runs_write_equal_bytes(adapter: Path) -> None:
    manifest().write(adapter)
    first = (adapter / "adapter.json").read_bytes()
    manifest().write(adapter)
    assert (adapter / "adapter.json").read_bytes() == first


def test_each_kind_of_adapter_says_how_it_is_loaded() -> None:
    def lines(*files: str) -> list[str]:
        digests = {file: FileDigest(sha256="0", size=0) for file in files}
        return manifest(files=digests).loading("/a")  # without a kind, as the first version wrote it

    assert lines("learned_embeds.safetensors", "contact_sheet.png") == [
        "pipe.load_textual_inversion('/a', weight_name='learned_embeds.safetensors', use_safetensors=True)"
    ]
    assert lines("pytorch_lora_weights.safetensors") == [
        "pipe.load_lora_weights('/a', weight_name='pytorch_lora_weights.safetensors', use_safetensors=True)"
    ]
    full = lines("unet/config.json", "unet/weights.safetensors", "text_encoder/config.json")
    assert full == [
        "from diffusers import UNet2DConditionModel",
        "pipe.unet = UNet2DConditionModel.from_pretrained('/a', subfolder=\"unet\", use_safetensors=True)",
        "from transformers import CLIPTextModel",
        "pipe.text_encoder = CLIPTextModel.from_pretrained('/a', subfolder=\"text_encoder\", use_safetensors=True)",
    ]


def test_a_word_of_several_text_encoders_is_loaded_into_each() -> None:
    base = BaseModelReference(id="org/xl", fingerprint="f", family="sdxl")
    digest = FileDigest(sha256="0", size=0)
    lines = manifest(base_model=base, trigger="<dog>", files={"learned_embeds.safetensors": digest}).loading("/a")
    assert lines == [
        "from safetensors.torch import load_file",
        "rows = load_file('/a/learned_embeds.safetensors')",
        (
            "pipe.load_textual_inversion(rows['clip_l'], token='<dog>', "
            "text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)"
        ),
        (
            "pipe.load_textual_inversion(rows['clip_g'], token='<dog>', "
            "text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)"
        ),
    ]


def test_what_a_newer_version_added_is_ignored(adapter: Path) -> None:
    manifest().write(adapter)
    path = adapter / "adapter.json"
    path.write_text(path.read_text().replace('"recipe"', '"licence": "MIT", "recipe"', 1))
    assert AdapterManifest.read(adapter).recipe == "dreambooth"


def test_a_newer_format_is_not_guessed_at(adapter: Path) -> None:
    manifest().write(adapter)
    path = adapter / "adapter.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ValidationError, match="format"):
        AdapterManifest.read(adapter)


def test_an_adapter_that_any_prompt_calls_up_has_no_trigger(adapter: Path) -> None:
    manifest(trigger=None).write(adapter)
    assert AdapterManifest.read(adapter).trigger is None


def test_a_kind_from_elsewhere_says_nothing_wrong() -> None:
    digest = FileDigest(sha256="0", size=0)
    assert manifest(files={"unet.bin": digest}).loading("/a") == []
    assert manifest(kind="newer", parts=("unet",), files={"learned.safetensors": digest}).loading("/a") == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "full"}, "none is named"),
        (
            {"kind": "full", "parts": ["unet"], "files": {"text_encoder/config.json": {"sha256": "", "size": 2}}},
            "not na",
        ),
        ({"kind": "embedding", "trigger": None}, "none is named"),
        ({"kind": "embedding", "trigger": ""}, "none is named"),
    ],
)
def test_an_adapter_that_would_leave_the_base_model_as_it_is_is_none(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        manifest(**changes)
