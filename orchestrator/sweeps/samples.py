"""The images of finished adapters, read through the index in each adapter's folder.

An adapter comes from wherever it was made, so every file is checked against the digest in its manifest, its size before
it is fetched, and the pixels of an image before it is decoded.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import NamedTuple

from PIL import Image

from orchestrator.contract.adapter import CONTACT_SHEET_FILE, AdapterManifest
from orchestrator.contract.samples import (
    CELL,
    INDEX_FILE,
    MOST_IMAGE_BYTES,
    MOST_IMAGE_PIXELS,
    MOST_INDEX_BYTES,
    SAMPLES_FOLDER,
    SampleImage,
    SampleIndex,
    parse_index,
)
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.job import Job
from orchestrator.storage import Store
from orchestrator.sweeps.record import JobResult

THREADS = 8
"""Files that are fetched at a time: they are small."""

Rows = Mapping[str, Sequence[Image.Image]]
"""The images of each prompt, by the prompt's text; each image is scaled to a cell."""


class SamplesError(Exception):
    """An adapter has no images to show; the message completes "it has no column, because it ..."."""


class Samples(NamedTuple):
    """The images of an adapter."""

    prompts: Mapping[str, str]
    """Each prompt as the adapter was asked, by its text without the subject's own word."""
    real: Sequence[Image.Image]
    """Training pictures."""
    before: Rows
    """What the base model drew."""
    after: Rows
    """What the adapter drew."""


class Column(NamedTuple):
    """One adapter of the sweep."""

    title: str
    """Recipe and subject."""
    settings: Mapping[str, str]
    """What tells it from the others."""
    metrics: Mapping[str, float]
    """Its figures."""
    samples: Samples
    """Its images."""


def read_columns(
    done: Sequence[tuple[JobResult, Job]],
) -> tuple[list[Column], list[str]]:
    """Read the images of finished jobs; return a column for each that has some, and a remark for each that has not."""
    columns = []
    remarks = []
    for result, job in done:
        try:
            column = _read_column(result, job)
        except SamplesError as error:
            remarks.append(f"{job.name} has no column in the contact sheet, because it {error}.")
        except OrchestratorError as error:
            remarks.append(f"{job.name} has no column in the contact sheet. {error.message}")
        else:
            columns.append(column)
    different = {tuple(column.samples.prompts) for column in columns}
    if len(different) > 1:
        remarks.append("Not all adapters answer the same prompts; each row shows those that answer its prompt.")
    return columns, remarks


def _read_column(result: JobResult, job: Job) -> Column:
    """Read the images of a finished job; raises SamplesError, or what the store raises."""
    manifest = job.finished().manifest
    if manifest is None:
        raise SamplesError("has no adapter any more")
    store = job.target.store
    prefix = store.name(job.describe().output)
    return Column(
        title=manifest.title,
        settings=result.settings,
        metrics=result.metrics,
        samples=read_samples(store, prefix, manifest),
    )


def read_samples(
    store: Store,
    prefix: str,
    manifest: AdapterManifest,
) -> Samples:
    """Read the images of the adapter below a prefix of a store; raises SamplesError, or what the store raises."""
    folder = _Folder(store, prefix, manifest)
    index = folder.read_index()
    images = [image for image in index.images if image.step is None]
    if not images:
        raise SamplesError("has no images of the finished adapter")
    files = [image.file for image in images]
    with ThreadPoolExecutor(THREADS) as pool:
        cells = list(pool.map(folder.read_cell, files))
    return _sort(images, cells)


class _Folder:
    """The samples of an adapter in a store, as its manifest lists them."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        manifest: AdapterManifest,
    ) -> None:
        self.store = store
        self.prefix = prefix.rstrip("/")
        self.manifest = manifest

    def read_index(self) -> SampleIndex:
        """Return the index; raises SamplesError when there is none, or none that can be read."""
        name = f"{SAMPLES_FOLDER}/{INDEX_FILE}"
        files = self.manifest.files
        if name not in files and CONTACT_SHEET_FILE in files:
            raise SamplesError("was trained by an older version, which left no index of its images")
        if name not in files:
            raise SamplesError("drew no images (evaluation_prompts=0)")
        data = self._fetch(name, MOST_INDEX_BYTES)
        try:
            return parse_index(data)
        except ValueError as error:
            raise SamplesError(f"has an index of its images ({name}) that cannot be read") from error

    def read_cell(self, file: str) -> Image.Image:
        """Return an image, scaled to a cell; raises SamplesError when it cannot be shown."""
        name = f"{SAMPLES_FOLDER}/{file}"
        data = self._fetch(name, MOST_IMAGE_BYTES)
        try:
            return decode_cell(data)
        except ValueError as error:
            raise SamplesError(f"has an image ({name}) that {error}") from error

    def _fetch(self, name: str, most_bytes: int) -> bytes:
        """Return the bytes of a file, verified by its digest; one that is too large is not fetched."""
        digest = self.manifest.files.get(name)
        if digest is None:
            raise SamplesError(f"lists an image ({name}) that is not in its manifest")
        if digest.size > most_bytes:
            size = f"{digest.size} bytes, more than the {most_bytes} that are read"
            raise SamplesError(f"has a file ({name}) of {size}")
        return self.store.get_file(f"{self.prefix}/{name}", digest)


def decode_cell(data: bytes) -> Image.Image:
    """Decode a PNG and scale it to a cell; raises ValueError, whose message completes "an image that ..."."""
    try:
        image = Image.open(BytesIO(data), formats=("PNG",))
        pixels = image.width * image.height  # from the header: nothing is decoded yet
        if pixels <= MOST_IMAGE_PIXELS:
            decoded = image.convert("RGB")
            return decoded.resize((CELL, CELL), Image.Resampling.BICUBIC)
    except Exception as error:  # decoders of hostile bytes raise anything: OSError, SyntaxError, struct.error, ...
        raise ValueError("cannot be decoded") from error
    raise ValueError(f"has {pixels} pixels, more than the {MOST_IMAGE_PIXELS} that are decoded")


def _sort(
    images: Sequence[SampleImage],
    cells: Sequence[Image.Image],
) -> Samples:
    """Sort images by what made them and by prompt; their order stays."""
    prompts: dict[str, str] = {}
    real: list[Image.Image] = []
    before: dict[str, list[Image.Image]] = {}
    after: dict[str, list[Image.Image]] = {}
    for image, cell in zip(images, cells, strict=True):
        if image.source == "real":
            real.append(cell)
        elif image.source == "before":
            row = before.setdefault(image.text, [])
            row.append(cell)
        elif image.source == "after":
            row = after.setdefault(image.text, [])
            row.append(cell)
            prompts.setdefault(image.text, image.prompt)
    return Samples(
        prompts=prompts,
        real=real,
        before=before,
        after=after,
    )
