"""The images of finished adapters, read through the index in each adapter's folder.

An adapter comes from wherever it was made, so every file is checked against the digest in its manifest, its size before
it is fetched, and the pixels of an image before it is decoded.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    SampleIndex,
    Source,
    parse_index,
)
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.job import Job
from orchestrator.storage import Store
from orchestrator.sweeps.record import JobResult

THREADS = 8  # requests at a time, of small files

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


def read_columns(done: Sequence[tuple[JobResult, Job]]) -> tuple[list[Column], list[str]]:
    """Read the images of finished jobs; return a column for each that has some, and a remark for each that has not."""
    columns = []
    remarks = []
    for result, job in done:
        try:
            columns.append(_read_column(result, job))
        except SamplesError as error:
            remarks.append(f"{job.name} has no column in the contact sheet, because it {error}.")
        except OrchestratorError as error:
            remarks.append(f"{job.name} has no column in the contact sheet. {error.message}")
    different = {tuple(column.samples.prompts) for column in columns}
    if len(different) > 1:
        remarks.append("Not all adapters answer the same prompts; each row shows those that answer its prompt.")
    return columns, remarks


def _read_column(result: JobResult, job: Job) -> Column:
    manifest = job.manifest()
    if manifest is None:
        raise SamplesError("has no adapter any more")
    store = job.target.store
    prefix = store.name(job.describe().output)
    samples = read_samples(store, prefix, manifest)
    title = f"{manifest.recipe}: {manifest.trigger}"
    return Column(title, result.settings, result.metrics, samples)


def read_samples(store: Store, prefix: str, manifest: AdapterManifest) -> Samples:
    """Read the images of the adapter below a prefix of a store; raises SamplesError, or what the store raises."""
    folder = f"{prefix.rstrip('/')}/{SAMPLES_FOLDER}"
    index = _read_index(store, folder, manifest)
    read_cell = partial(_read_cell, store, folder, manifest)
    files = {image.file for image in index.images if image.step is None}
    if not files:
        raise SamplesError("has no images of the finished adapter")
    with ThreadPoolExecutor(THREADS) as pool:
        cells = dict(zip(files, pool.map(read_cell, files), strict=True))
    return _sort(index, cells)


def _read_index(store: Store, folder: str, manifest: AdapterManifest) -> SampleIndex:
    name = f"{SAMPLES_FOLDER}/{INDEX_FILE}"
    if name not in manifest.files and CONTACT_SHEET_FILE in manifest.files:
        raise SamplesError("was trained by an older version, which left no index of its images")
    if name not in manifest.files:
        raise SamplesError("drew no images (evaluation_prompts=0)")
    data = _fetch(store, folder, manifest, INDEX_FILE, MOST_INDEX_BYTES)
    try:
        return parse_index(data)
    except ValueError as error:
        raise SamplesError(f"has an index of its images ({name}) that cannot be read") from error


def _read_cell(store: Store, folder: str, manifest: AdapterManifest, file: str) -> Image.Image:
    data = _fetch(store, folder, manifest, file, MOST_IMAGE_BYTES)
    try:
        return decode_cell(data)
    except ValueError as error:
        raise SamplesError(f"has an image ({SAMPLES_FOLDER}/{file}) that {error}") from error


def _fetch(store: Store, folder: str, manifest: AdapterManifest, file: str, most_bytes: int) -> bytes:
    """Return the bytes of a file of the samples, as the manifest knows them."""
    name = f"{SAMPLES_FOLDER}/{file}"
    digest = manifest.files.get(name)
    if digest is None:
        raise SamplesError(f"has an image in its index ({name}) that is not in its manifest")
    if digest.size > most_bytes:
        raise SamplesError(f"has a file ({name}) of {digest.size} bytes, more than the {most_bytes} that are read")
    return store.get_file(f"{folder}/{file}", digest)


def decode_cell(data: bytes) -> Image.Image:
    """Decode a PNG and scale it to a cell; raises ValueError, whose message completes "an image that ..."."""
    try:
        image = Image.open(BytesIO(data), formats=("PNG",))
        pixels = image.width * image.height  # from the header: nothing is decoded yet
        if pixels <= MOST_IMAGE_PIXELS:
            return image.convert("RGB").resize((CELL, CELL), Image.Resampling.BICUBIC)
    except Exception as error:  # decoders of hostile bytes raise anything: OSError, SyntaxError, struct.error, ...
        raise ValueError("cannot be decoded") from error
    raise ValueError(f"has {pixels} pixels, more than the {MOST_IMAGE_PIXELS} that are decoded")


def _sort(index: SampleIndex, cells: Mapping[str, Image.Image]) -> Samples:
    """Sort the finished adapter's images by what made them and by prompt, in the order of the index."""
    prompts: dict[str, str] = {}
    real: list[Image.Image] = []
    rows: dict[Source, dict[str, list[Image.Image]]] = {"before": {}, "after": {}}
    for image in index.images:
        if image.file not in cells:
            continue
        cell = cells[image.file]
        if image.source == "real":
            real.append(cell)
        else:
            rows[image.source].setdefault(image.text, []).append(cell)
        if image.source == "after":
            prompts.setdefault(image.text, image.prompt)
    return Samples(prompts, real, rows["before"], rows["after"])
