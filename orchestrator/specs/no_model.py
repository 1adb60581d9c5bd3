"""What people name as a base model that is none: addresses, single files, adapters, folders around a model."""

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from orchestrator.contract.adapter import MANIFEST_FILE
from orchestrator.contract.families import INDEX_FILE
from orchestrator.contract.model_file import ModelFileError, model_problem, read_object
from orchestrator.contract.problem import Problem
from orchestrator.contract.safetensors_header import Header, read_header

NAME_A_MODEL = "name a folder in the diffusers layout, a Hugging Face id such as org/model, or builtin"
_HUB_PAGE = re.compile(
    r"(?:hf://(?:models/)?|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)"
    r"(?P<id>[\w.-]+/[\w.-]+?)(?:\.git)?(?:/(?:tree|blob|resolve|commit)/(?P<revision>[^/?#]+))?(?:[/?#].*)?",
    re.ASCII,
)
_OTHER_KINDS = (
    "datasets/",
    "spaces/",
    "docs/",
    "papers/",
    "collections/",
)
"""What begins the address of a page of the Hub that is not a model's."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WEB_HOSTS = ("huggingface.co/", "hf.co/", "www.")
_CHECKPOINTS = (
    ".safetensors",
    ".ckpt",
    ".pt",
    ".pth",
    ".bin",
)
_SECOND_ENCODER = "conditioner.embedders.1."
_PEFT_FILE = "adapter_config.json"


class HubPage(NamedTuple):
    """What the address of a page of the Hub names."""

    id: str
    """Model: "org/model"."""
    revision: str | None
    """Branch, tag or commit; None for the main branch."""


def hub_page(name: str) -> HubPage | None:
    """Return the model whose page on the Hub, or one of whose files, has this address; None for anything else."""
    page = _HUB_PAGE.fullmatch(name)
    if page is None:
        return None
    model = page["id"]
    revision = page["revision"]
    if model.startswith(_OTHER_KINDS):
        return None
    if revision is None or revision == "main":
        return HubPage(model, None)
    return HubPage(model, unquote(revision))


def address_problem(name: str) -> Problem | None:
    """Return what to write instead of an address; None for a name that is none."""
    page = hub_page(name)
    if page is not None:
        words = f"--base-model {page.id}"
        if page.revision is not None:
            revision = shlex.quote(page.revision)
            words = f"{words} -s base_revision={revision}"
        what = "is the address of a page of the Hugging Face Hub; a model is named by its id"
        return model_problem(what, f"write {words}")
    lower = name.lower()
    if lower.startswith("s3://"):
        what = "is an address in S3, and a model is read from this machine"
        quoted = shlex.quote(name)
        fix = f"fetch it first: aws s3 sync {quoted} ./model; then write --base-model ./model"
        return model_problem(what, fix)
    if _ADDRESS.match(name) or lower.startswith(_WEB_HOSTS):
        return model_problem("is an address of the web, which is not read", NAME_A_MODEL)
    return None


def folder_problem(folder: Path) -> Problem | None:
    """Return why a path is no model in the diffusers layout, and what to name instead; None for one with an index."""
    try:
        found = _about(folder)
    except OSError as error:
        reason = error.strerror or error
        what = f"{folder} cannot be read: {reason}"
        return model_problem(what, "check the path and its permissions")
    if found is None:
        return None
    what, fix = found
    return model_problem(what, fix)


def _about(folder: Path) -> tuple[str, str] | None:
    """Return what a path is instead of a model, and what to do about it; None for one with an index."""
    if folder.is_file():
        return _about_file(folder)
    if not folder.exists():
        return f"there is no folder {folder}", NAME_A_MODEL
    index = folder / INDEX_FILE
    if index.is_symlink() or index.exists():
        return None
    if (folder / MANIFEST_FILE).is_file():
        return _about_adapter(folder)
    return _about_folder(folder)


def _about_file(path: Path) -> tuple[str, str]:
    if path.name == INDEX_FILE:
        model = shlex.quote(str(path.parent))
        return f"{path} is the index of a model", f"name its folder: --base-model {model}"
    if path.suffix not in _CHECKPOINTS:
        return f"{path} is a file, not a folder", NAME_A_MODEL
    return _about_checkpoint(path)


def _about_checkpoint(path: Path) -> tuple[str, str]:
    """Return what a file of weights is: a whole model in one file, or something that belongs to one."""
    pipeline = "StableDiffusionPipeline"
    if path.suffix == ".safetensors":
        try:
            header = read_header(path)
        except ModelFileError as error:
            return f"{path} {error.what}", error.fix
        if _is_lora(header):
            return f"{path} is a LoRA, not a model", "name the model that it was trained on"
        if _has_second_encoder(header):
            pipeline = "StableDiffusionXLPipeline"
    quoted = json.dumps(str(path))
    load = f'from diffusers import {pipeline} as P; P.from_single_file({quoted}).save_pretrained("model")'
    program = shlex.quote(load)
    what = f"{path} is a checkpoint in one file, and a folder in the diffusers layout is needed"
    return what, f"convert it: python -c {program}; then write --base-model ./model"


def _is_lora(header: Header) -> bool:
    """Whether all tensors of a file are those of a LoRA."""
    for name in header:
        if "lora" not in name.lower() and not name.endswith(".alpha"):
            return False
    return bool(header)


def _has_second_encoder(header: Header) -> bool:
    """Whether a checkpoint in one file holds the second text encoder, which only SDXL has."""
    return any(name.startswith(_SECOND_ENCODER) for name in header)


def _about_adapter(folder: Path) -> tuple[str, str]:
    """Return what to do with an adapter: it is put into a base model, and is none itself."""
    try:
        manifest = read_object(folder / MANIFEST_FILE)
        model = manifest["base_model"]["id"]
    except (ModelFileError, KeyError, TypeError):
        model = None
    what = f"{folder} is an adapter, not a model"
    return what, _instead_of_adapter(model)


def _instead_of_adapter(model: object) -> str:
    named = "name the model that it was trained on"
    if isinstance(model, str):
        quoted = shlex.quote(model)
        named = f"{named}: --base-model {quoted}"
    return f"{named}; to train on top of it, merge the two with diffusers (fuse_lora, save_pretrained)"


def _about_folder(folder: Path) -> tuple[str, str]:
    """Return what a folder without an index is: a part of a model, an adapter, a folder around a model, or one file."""
    around = folder.parent
    if (around / INDEX_FILE).is_file():
        model = shlex.quote(str(around))
        return f"{folder} is a part of a model", f"name the whole model: --base-model {model}"
    if (folder / _PEFT_FILE).is_file():
        base = _peft_base(folder)
        return f"{folder} is an adapter of peft, not a model", _instead_of_adapter(base)
    for pattern in (f"*/{INDEX_FILE}", f"snapshots/*/{INDEX_FILE}"):
        for index in folder.glob(pattern):
            model = shlex.quote(str(index.parent))
            return f"{folder} is not a model but holds one", f"write --base-model {model}"
    for path in sorted(folder.iterdir()):
        if path.suffix in _CHECKPOINTS and path.is_file():
            what, fix = _about_checkpoint(path)
            return f"{folder} holds no {INDEX_FILE}: {what}", fix
    return f"{folder} holds no {INDEX_FILE}; a model in the diffusers layout has one", NAME_A_MODEL


def _peft_base(folder: Path) -> object:
    try:
        config = read_object(folder / _PEFT_FILE)
    except ModelFileError:
        return None
    return config.get("base_model_name_or_path")
