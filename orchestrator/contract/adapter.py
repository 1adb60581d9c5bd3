"""The adapter manifest: what was trained, from what, how to use it, and the sha256 of every file.

`adapter.json` lies beside the weights; the same text without `files` is in the safetensors header under
`orchestrator`, so that a weights file that was copied away still says what it is. Nothing in it depends on the
clock: two runs of one job give the same bytes.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.digest import FileDigest, hash_files

MANIFEST_FILE = "adapter.json"
HEADER_KEY = "orchestrator"
CONTACT_SHEET_FILE = "contact_sheet.png"
_LOADING = {
    "pytorch_lora_weights.safetensors": "pipe.load_lora_weights({folder})",
    "learned_embeds.safetensors": "pipe.load_textual_inversion({folder})",
    "unet/config.json": 'pipe.unet = UNet2DConditionModel.from_pretrained({folder}, subfolder="unet")',
    "text_encoder/config.json": 'pipe.text_encoder = CLIPTextModel.from_pretrained({folder}, subfolder="text_encoder")',
}
"""File of an adapter to the line of Python that puts it into a diffusers pipeline."""


class BaseModelReference(BaseModel):
    """The model an adapter belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """As the recipe named it: "builtin", a folder, or a Hugging Face id."""
    revision: str | None = None
    """Commit of a Hugging Face model."""
    fingerprint: str
    """sha256 over the names and hashes of its weight files: equal weights, equal fingerprint, wherever they lie."""
    family: str
    """Name of the model family: "sd"."""


class AdapterManifest(BaseModel):
    """Everything needed to trust an adapter and to use it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = 1
    """Version of this layout."""
    recipe: str
    """Name of the recipe."""
    config: dict[str, Any]
    """The recipe's fields, all defaults resolved."""
    base_model: BaseModelReference
    """What it was trained on."""
    dataset_sha256: str
    """Hash over the training pictures and captions."""
    bundle_sha256: str
    """Hash of the code that trained it."""
    trigger: str
    """The words that call the subject up: a rare token with its class, or a placeholder token."""
    metrics: dict[str, float] = {}
    """Figures measured on the finished adapter."""
    libraries: dict[str, str]
    """Versions of torch, diffusers, peft, transformers."""
    files: dict[str, FileDigest] = {}
    """Every file of the adapter by its relative path, this manifest excepted."""

    def header(self) -> dict[str, str]:
        """Return the metadata for a safetensors header: the manifest without `files`."""
        text = json.dumps(self.model_dump(mode="json", exclude={"files"}), sort_keys=True)
        return {HEADER_KEY: text, "format": "pt"}

    def write(self, folder: Path) -> "AdapterManifest":
        """Hash every file of `folder`, write `adapter.json` last, and return the completed manifest."""
        complete = self.model_copy(update={"files": hash_files(folder, leave_out=MANIFEST_FILE)})
        text = json.dumps(complete.model_dump(mode="json"), indent=2, sort_keys=True)
        (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
        return complete

    @classmethod
    def read(cls, folder: Path) -> "AdapterManifest":
        """Read `adapter.json`; raises FileNotFoundError or pydantic's ValidationError."""
        return cls.model_validate_json((folder / MANIFEST_FILE).read_text(encoding="utf-8"))

    def loading(self, folder: str) -> list[str]:
        """Return the lines that put the adapter in `folder` into the pipeline `pipe` of plain diffusers."""
        return [line.format(folder=repr(folder)) for file, line in _LOADING.items() if file in self.files]

    def damaged_files(self, folder: Path) -> list[str]:
        """Return the files that are missing, changed or not listed; an empty list means the adapter is whole."""
        found = hash_files(folder, leave_out=MANIFEST_FILE)
        names = sorted({*found, *self.files})
        return [name for name in names if found.get(name) != self.files.get(name)]
