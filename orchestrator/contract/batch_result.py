"""What a batch leaves: a PNG file for each image, and for each host of its job an index of those that it drew.

Hosts share no disk, and all that they leave ends up below one prefix: so each file has a name that no other host gives.
Together the indexes name every image of the batch once, which is what `DrawnImages` checks. Nothing in them depends on
the clock.
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-output.html
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.contract.generation import SchedulerName

DRAW_BATCH = "generate"
"""Name of the work, where a job that trains has the name of its recipe."""
IMAGES_FOLDER = "images"
FORMAT = 1
_ID_DIGITS = 32
_INDEX = re.compile(r"index-(\d+)-of-(\d+)\.json")


def image_id(
    base_model: str,
    values: Mapping[str, Any],
    adapters: Iterable[tuple[str, float]],
) -> str:
    """Return the id of an image: the hash of all that it depends on, of a job and of an endpoint alike.

    `values` are its prompt, seed and settings; `adapters` the hash and the weight of each, under whatever name.
    """
    uses = [[sha256, weight] for sha256, weight in adapters]
    text = json.dumps([base_model, {**values, "adapters": uses}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


class _Part(BaseModel):
    """Fields that a newer version added are ignored on reading."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class SampleAdapter(_Part):
    """An adapter that an image is drawn with."""

    name: str
    """As it was named."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """One hash over all its files, which is also the name of its folder in the job's channel."""
    weight: float = 1.0
    """Its strength."""


class Sample(_Part):
    """An image of a batch, with all that it depends on beside the base model."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    """Hash of what it depends on."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")
    """Name of its file, without the ending, where images are collected: from the line's own id, or the hash."""
    prompt: str
    """What is drawn, new words as they are spelled."""
    negative_prompt: str | None = None
    """What is not."""
    seed: int
    """Its seed."""
    steps: int
    """Denoising steps."""
    guidance: float
    """Scale of classifier-free guidance."""
    width: int
    """Of the image, pixels."""
    height: int
    """Of the image, pixels."""
    scheduler: SchedulerName | None = None
    """How steps are taken; None for the base model's own way."""
    adapters: tuple[SampleAdapter, ...] = ()
    """Adapters, whose changes add up; empty for the base model alone."""

    @classmethod
    def of(cls, base_model: str, fields: Mapping[str, Any], name: str | None = None) -> "Sample":
        """Return a sample with its id; `base_model` says which model is meant, by its weights or its commit."""
        unnamed = cls.model_validate({**fields, "id": "0" * _ID_DIGITS, "name": "unnamed"})
        values = unnamed.model_dump(mode="json", exclude={"id", "name", "adapters"})
        adapters = [(adapter.sha256, adapter.weight) for adapter in unnamed.adapters]
        digits = image_id(base_model, values, adapters)
        return unnamed.model_copy(update={"id": digits, "name": name or digits})

    @property
    def pixels(self) -> int:
        """Of the image."""
        return self.width * self.height

    @property
    def file(self) -> str:
        """Where the image lies in what the job leaves."""
        return f"{IMAGES_FOLDER}/{self.id}.png"


class DrawnImage(Sample):
    """A sample that is drawn."""

    digest: FileDigest
    """Of its file."""


class HostIndex(_Part):
    """The whole of `index-1-of-2.json`."""

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    """Version of this layout."""
    host: int = Field(ge=0)
    """Number of the host, from 0."""
    hosts: int = Field(ge=1)
    """How many drew the batch."""
    total: int = Field(ge=1)
    """Images of the whole batch."""
    samples_sha256: str
    """Hash of the list of its samples: indexes of other batches do not go with it."""
    base_model: BaseModelReference
    """What was drawn with."""
    libraries: dict[str, str]
    """Versions of torch, diffusers, peft, transformers."""
    images: tuple[DrawnImage, ...] = ()
    """Those that this host drew."""

    @property
    def file(self) -> str:
        """Its own name."""
        return index_file(self.host, self.hosts)

    def write(self, folder: Path) -> None:
        """Write it into the folder of the images."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False)
        (folder / self.file).write_text(text + "\n", encoding="utf-8")


class DrawnImages(_Part):
    """A batch that is drawn: each image once."""

    hosts: int
    """How many hosts drew it."""
    samples_sha256: str
    """Hash of the list of its samples."""
    base_model: BaseModelReference
    """What was drawn with."""
    images: tuple[DrawnImage, ...]
    """All its images, by their names."""

    @classmethod
    def joined(cls, texts: Mapping[str, bytes]) -> "DrawnImages":
        """Return what indexes say together, by their files' names.

        Raises ValueError, with the reason, when one is missing or damaged, or they are not those of one batch.
        """
        missing: set[str] = set()
        images: dict[str, DrawnImage] = {}
        first: HostIndex | None = None
        for name, text in sorted(texts.items()):
            index = HostIndex.model_validate_json(text)
            if index.file != name:
                raise ValueError(f"{name} is the index of another host")
            if first is None:
                first = index
                missing = {index_file(host, index.hosts) for host in range(index.hosts)}
            if (index.hosts, index.samples_sha256) != (first.hosts, first.samples_sha256):
                raise ValueError(f"{name} belongs to another batch than {first.file}")
            missing.discard(name)
            for image in index.images:
                if image.id in images:
                    raise ValueError(f"the image {image.id} is listed twice")
                images[image.id] = image
        if first is None:
            raise ValueError("there is no index of its images")
        if missing:
            raise ValueError(f"{min(missing)} is missing: what that host drew is not there")
        if len(images) != first.total:
            raise ValueError(f"{len(images)} of {first.total} images are there")
        in_order = sorted(images.values(), key=lambda image: image.name)
        return cls(
            hosts=first.hosts,
            samples_sha256=first.samples_sha256,
            base_model=first.base_model,
            images=tuple(in_order),
        )

    @classmethod
    def read(cls, folder: Path) -> "DrawnImages":
        """Read the indexes of a folder; raises ValueError as `joined` does."""
        texts = {}
        for path in folder.iterdir():
            if is_index(path.name):
                texts[path.name] = path.read_bytes()
        return cls.joined(texts)

    @property
    def files(self) -> dict[str, FileDigest]:
        """Digest of each image's file, by its name in what the job left."""
        return {image.file: image.digest for image in self.images}

    def damaged_files(self, folder: Path) -> list[str]:
        """Return the images that are missing or changed; an empty list means that all are whole."""
        damaged = []
        for name, digest in self.files.items():
            path = folder / name
            if not path.is_file() or hash_file(path) != digest:
                damaged.append(name)
        return damaged


def index_file(host: int, hosts: int) -> str:
    """Return the name of a host's index."""
    return f"index-{host + 1}-of-{hosts}.json"


def is_index(name: str) -> bool:
    """Return whether a file's name is that of an index."""
    return _INDEX.fullmatch(name) is not None
