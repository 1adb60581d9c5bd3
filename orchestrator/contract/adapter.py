"""The adapter manifest: what was trained, from what, how to use it, and the sha256 of every file.

`adapter.json` lies beside the weights; the same text without `files` is in the safetensors header under
`orchestrator`, so that a weights file that was copied away still says what it is. Nothing in it depends on the
clock: two runs of one job give the same bytes.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.contract.digest import FileDigest, hash_files, tree_sha256
from orchestrator.contract.families import FAMILIES, Family

FORMAT = 1
MANIFEST_FILE = "adapter.json"
HEADER_KEY = "orchestrator"
NOT_LISTED = "is not in its manifest"
"""Said of a file in an adapter's folder."""
CONTACT_SHEET_FILE = "contact_sheet.png"
LORA_FILE = "pytorch_lora_weights.safetensors"
EMBEDDINGS_FILE = "learned_embeds.safetensors"
PEFT_CONFIG_FILE = "adapter_config.json"
CONTROLNET_FILE = "diffusion_pytorch_model.safetensors"
PEFT_FILE = "adapter_model.safetensors"
LORA_LOADING: Mapping[str, Any] = {"weight_name": LORA_FILE, "use_safetensors": True}
EMBEDDINGS_LOADING: Mapping[str, Any] = {"weight_name": EMBEDDINGS_FILE, "use_safetensors": True}
"""Arguments of diffusers' loaders, which otherwise read a pickle where the file is missing or damaged."""
# What an adapter can be made of, `kind` in its manifest.
LORA = "lora"
FULL = "full"
EMBEDDING = "embedding"
PEFT = "peft"
PIVOTAL = "pivotal"
CONTROLNET = "controlnet"

_T = TypeVar("_T")


def title_of(recipe: str, trigger: str | None) -> str:
    """Return the heading for what a recipe made."""
    if trigger is None:
        return recipe
    return f"{recipe}: {trigger}"


class BaseModelReference(BaseModel):
    """The model an adapter belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """As the recipe named it: "builtin", a folder, or a Hugging Face id."""
    revision: str | None = None
    """Commit of a Hugging Face model."""
    fingerprint: str
    """sha256 over the names and hashes of its weight files: equal weights, equal fingerprint, wherever they lie."""
    family: str
    """Name of the model family: "sd", "sdxl"."""


class AdapterManifest(BaseModel):
    """Everything needed to trust an adapter and to use it.

    Fields that a newer version added are ignored on reading; `format` grows when the meaning of a known one changes.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    """Version of this layout."""
    kind: str = ""
    """What it is made of: "lora", "full", "embedding", "peft", "pivotal" or "controlnet"."""
    parts: tuple[str, ...] = ()
    """Parts of the base model that it changes, by the names of their folders."""
    recipe: str
    """Name of the recipe."""
    config: dict[str, Any]
    """The recipe's fields, all defaults resolved."""
    base_model: BaseModelReference
    """What it was trained on."""
    dataset_sha256: str
    """Hash over the training pictures and captions."""
    images: int | None = Field(None, ge=0)
    """Number of training pictures; None without any, and in manifests that were written before it was counted."""
    captions: int | None = Field(None, ge=0)
    """How many of them have a caption."""
    bundle_sha256: str
    """Hash of the code that trained it."""
    trigger: str | None = None
    """The words that call the result up: a rare token with its class, or a placeholder token; None when any do."""
    metrics: dict[str, float] = {}
    """Figures measured on the finished adapter."""
    scorer_sha256: str | None = None
    """Hash of the CLIP that measured them; figures of different ones cannot be compared."""
    libraries: dict[str, str]
    """Versions of torch, diffusers, peft, transformers."""
    files: dict[str, FileDigest] = {}
    """Every file of the adapter by its relative path, this manifest excepted."""

    @model_validator(mode="before")
    @classmethod
    def _name_kind(cls, values: Any) -> Any:
        """Complete a manifest that was written before it had `kind` and `parts`: its files tell the kind.

        The parts matter where all weights are replaced, and those lie in a folder for each.
        """
        if not isinstance(values, dict) or values.get("kind"):
            return values
        files = values.get("files")
        if not isinstance(files, dict) or not files:
            return values
        if LORA_FILE in files:
            return {**values, "kind": LORA}
        if EMBEDDINGS_FILE in files:
            return {**values, "kind": EMBEDDING}
        parts = _whole_parts(files)
        if not parts:
            return values
        return {**values, "kind": FULL, "parts": parts}

    @model_validator(mode="after")
    def _says_what_is_loaded(self) -> Self:
        """Refuse what would be loaded without an error and leave the base model as it is, or parts of it."""
        if self.kind in (EMBEDDING, PIVOTAL) and not self.learned_word:
            raise ValueError("trigger: an embedding is one of a word, and none is named")
        if self.kind != FULL:
            return self
        if not self.parts:
            raise ValueError("parts: full weights replace parts of the base model, and none is named")
        for part in _whole_parts(self.files):
            if part not in self.parts:
                raise ValueError(f"parts: there are full weights of {part}, which is not named")
        return self

    @property
    def title(self) -> str:
        """Heading for its pictures: the recipe and the words that call the result up."""
        return title_of(self.recipe, self.trigger)

    @property
    def learned_word(self) -> str | None:
        """The word whose embedding rows it has: the rare token of a subject's adapter, and else the trigger."""
        if self.kind == PIVOTAL:
            rare = self.config.get("rare_token")
            return rare if isinstance(rare, str) else None
        return self.trigger

    @property
    def files_sha256(self) -> str:
        """One hash over all its files."""
        return tree_sha256(self.files)

    def header(self) -> dict[str, str]:
        """Return the metadata for a safetensors header: the manifest without `files`."""
        values = self.model_dump(mode="json", exclude={"files"})
        text = json.dumps(values, sort_keys=True)
        return {HEADER_KEY: text, "format": "pt"}

    def write(self, folder: Path) -> "AdapterManifest":
        """Hash every file of `folder`, write `adapter.json` last, and return the completed manifest."""
        files = hash_files(folder, leave_out=MANIFEST_FILE)
        complete = self.model_copy(update={"files": files})
        values = complete.model_dump(mode="json")
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        path = folder / MANIFEST_FILE
        path.write_text(text, encoding="utf-8")
        return complete

    @classmethod
    def read(cls, folder: Path) -> "AdapterManifest":
        """Read `adapter.json`; raises FileNotFoundError or pydantic's ValidationError."""
        path = folder / MANIFEST_FILE
        text = path.read_text(encoding="utf-8")
        return cls.model_validate_json(text)

    @property
    def lora_loading(self) -> Mapping[str, Any]:
        """Arguments of diffusers' loader, which cannot prepare DoRA's layers without memory for them."""
        if self.config.get("tuner") == "dora":
            return {**LORA_LOADING, "low_cpu_mem_usage": False}
        return LORA_LOADING

    def loading(self, folder: str) -> list[str]:
        """Return the lines that put the adapter in `folder` into the pipeline `pipe` of plain diffusers.

        Empty for an adapter of a kind or family that is not known here.
        """
        if self.kind == LORA:
            return self._loading_lora(folder)
        family = FAMILIES.get(self.base_model.family)
        if family is None:
            return []
        lines: list[str] = []
        if self.kind == EMBEDDING:
            lines = self._loading_embeddings(folder, family)
        elif self.kind == PIVOTAL:
            lines = self._loading_lora(folder) + self._loading_embeddings(folder, family)
        elif self.kind == PEFT:
            lines = self._loading_peft(folder)
        elif self.kind == CONTROLNET:
            lines = self._loading_controlnet(folder, family)
        elif self.kind == FULL:
            lines = self._loading_parts(folder, family)
        return lines

    def _loading_lora(self, folder: str) -> list[str]:
        return [f"pipe.load_lora_weights({folder!r}, {python_arguments(self.lora_loading)})"]

    def _loading_parts(self, folder: str, family: Family) -> list[str]:
        """Return the lines that replace each part by the folder of its weights."""
        lines = []
        for part, class_name in family.classes.items():
            if part not in self.parts:
                continue
            library = "transformers"
            if part == family.denoiser:
                library = "diffusers"
            lines.append(f"from {library} import {class_name}")
            arguments = f'{folder!r}, subfolder="{part}", use_safetensors=True'
            lines.append(f"pipe.{part} = {class_name}.from_pretrained({arguments})")
        return lines

    def _loading_embeddings(self, folder: str, family: Family) -> list[str]:
        """Return one line, or one for each text encoder where a file holds the rows of several."""
        if not family.embedding_keys:
            return [f"pipe.load_textual_inversion({folder!r}, {python_arguments(EMBEDDINGS_LOADING)})"]
        file = f"{folder}/{EMBEDDINGS_FILE}"
        lines = [
            "from safetensors.torch import load_file",
            f"rows = load_file({file!r})",
        ]
        for encoder, tokenizer in zip(family.text_encoders, family.tokenizers, strict=True):
            key = family.embedding_keys[encoder]
            where = f"text_encoder=pipe.{encoder}, tokenizer=pipe.{tokenizer}"
            lines.append(f"pipe.load_textual_inversion(rows[{key!r}], token={self.learned_word!r}, {where})")
        return lines

    def _loading_peft(self, folder: str) -> list[str]:
        """Return a line for each part, whose weights take the change up."""
        lines = ["from peft import PeftModel"]
        for part in self.parts:
            source = f"{folder}/{part}"
            lines.append(f"pipe.{part} = PeftModel.from_pretrained(pipe.{part}, {source!r}).merge_and_unload()")
        return lines

    def _loading_controlnet(self, folder: str, family: Family) -> list[str]:
        """Return the lines that make the pipeline one that draws with the ControlNet too."""
        if family.control_pipeline is None:
            return []
        return [
            f"from diffusers import ControlNetModel, {family.control_pipeline}",
            f"controlnet = ControlNetModel.from_pretrained({folder!r}, use_safetensors=True)",
            f"pipe = {family.control_pipeline}.from_pipe(pipe, controlnet=controlnet)",
        ]

    def number(self, setting: str, default: float) -> float:
        """Return a number among the recipe's settings; the default for whatever else stands there."""
        value = self.config.get(setting)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return default
        try:
            is_finite = math.isfinite(value)
        except OverflowError:  # an integer that no float holds
            return default
        if not is_finite:
            return default
        return value

    @property
    def bytes(self) -> int:
        """Size of all files except this manifest."""
        size = 0
        for digest in self.files.values():
            size += digest.size
        return size

    def damaged_files(self, folder: Path) -> list[str]:
        """Return the files that are missing, changed or not listed; an empty list means the adapter is whole."""
        found = _own(hash_files(folder))
        names = sorted({*found, *self.files})
        return [name for name in names if found.get(name) != self.files.get(name)]

    def misfits(self, sizes: Mapping[str, int]) -> list[str]:
        """Return what is wrong with files of these names and sizes in bytes, each as "weights.safetensors is missing".

        Quick, because it reads none of them.
        """
        found = _own(sizes)
        names = sorted({*found, *self.files})
        misfits = []
        for name in names:
            size = found.get(name)
            digest = self.files.get(name)
            if size is None:
                misfits.append(f"{name} is missing")
            elif digest is None:
                misfits.append(f"{name} {NOT_LISTED}")
            elif size != digest.size:
                misfits.append(f"{name} has {size} bytes instead of {digest.size}")
        return misfits


def _whole_parts(files: Iterable[object]) -> list[str]:
    """Return the parts of a base model that files replace: each lies in a folder with its configuration."""
    parts = []
    for name in files:
        part, _, file = str(name).rpartition("/")
        if part and file == "config.json":
            parts.append(part)
    return sorted(parts)


def python_arguments(values: Mapping[str, Any]) -> str:
    """Return keyword arguments as Python."""
    written = [f"{name}={value!r}" for name, value in values.items()]
    return ", ".join(written)


def _own(files: Mapping[str, _T]) -> dict[str, _T]:
    """Return what an adapter's folder holds of the adapter; systems leave hidden files of their own (.DS_Store)."""
    own = {}
    for name, value in files.items():
        is_hidden = name.startswith(".") or "/." in name
        if not is_hidden and name != MANIFEST_FILE:
            own[name] = value
    return own
