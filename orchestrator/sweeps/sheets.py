"""The pictures of a finished adapter, cut out of its contact sheet.

A sheet comes from wherever the adapter was made, so it is looked at as a stranger's file: its size is known from the
adapter's manifest before it is fetched, and from its header before a pixel is decoded.
"""

import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

from PIL import Image
from pydantic import ValidationError

from orchestrator.contract.adapter import CONTACT_SHEET_FILE
from orchestrator.contract.contact_sheet import LAYOUT_KEY, SheetBlock, SheetLayout, SheetRow
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.job import Job
from orchestrator.sweeps.record import JobResult

MAX_BYTES = 64 * 2**20  # a sheet of 16 prompts and 16 seeds has 30 MB at most
MAX_PIXELS = 32_000_000

Strips = Mapping[str, Sequence[Image.Image]]
"""The pictures of each row, by its text."""


class SheetError(Exception):
    """An adapter has no sheet that can be cut up; the message completes "it has no column, because it ..."."""


class Sheet(NamedTuple):
    """What a contact sheet shows."""

    title: str
    rows: tuple[SheetRow, ...]
    real: Sequence[Image.Image]
    """The training pictures."""
    before: Strips
    """What the base model drew."""
    after: Strips
    """What the adapter drew."""


class Column(NamedTuple):
    """One adapter."""

    settings: Mapping[str, str]
    """What tells it from the others."""
    metrics: Mapping[str, float]
    """Its figures."""
    sheet: Sheet
    """Its own contact sheet."""


def columns_of(done: Sequence[tuple[JobResult, Job]]) -> tuple[list[Column], list[str]]:
    """Fetch the sheets of finished jobs; return those that can be shown, and a remark for each thing that cannot."""
    columns, remarks = [], []
    for result, job in done:
        try:
            columns.append(Column(result.settings, result.metrics, sheet_of(job)))
        except SheetError as error:
            remarks.append(f"{job.name} has no column in the contact sheet, because it {error}.")
        except OrchestratorError as error:
            remarks.append(f"{job.name} has no column in the contact sheet. {error.message}")
    if len({tuple(row.text for row in column.sheet.rows) for column in columns}) > 1:
        remarks.append("Not all adapters answer the same prompts; each row shows those that answer its prompt.")
    return columns, remarks


def sheet_of(job: Job) -> Sheet:
    """Fetch the sheet of a job's adapter and cut it up; raises SheetError, or what the store raises."""
    manifest = job.manifest()
    digest = manifest.files.get(CONTACT_SHEET_FILE) if manifest else None
    if digest is None:
        raise SheetError("drew no pictures (evaluation_prompts=0)")
    if digest.size > MAX_BYTES:
        raise SheetError(f"has a contact sheet of {digest.size} bytes, more than the {MAX_BYTES} that are read")
    store = job.target.store
    prefix = store.name(job.describe().output).rstrip("/")
    return read_sheet(store.get_file(f"{prefix}/{CONTACT_SHEET_FILE}", digest))


def read_sheet(data: bytes) -> Sheet:
    """Cut a contact sheet up by the layout it carries; raises SheetError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(BytesIO(data), formats=("PNG",))
            layout = _layout(image)
            picture = image.convert("RGB")
    except SheetError:
        raise
    except Exception as error:  # decoders of hostile bytes raise anything: OSError, SyntaxError, struct.error, ...
        raise SheetError("has a contact sheet that cannot be decoded") from error
    return Sheet(
        title=layout.title,
        rows=layout.rows,
        real=[tile for row in _cut(picture, layout, layout.real) for tile in row],
        before=_strips(picture, layout, layout.before),
        after=_strips(picture, layout, layout.after),
    )


def _layout(image: Image.Image) -> SheetLayout:
    """Return the layout of a picture whose pixels were not decoded yet."""
    if image.width * image.height > MAX_PIXELS:
        raise SheetError(f"has a contact sheet of more than {MAX_PIXELS // 10**6} megapixels")
    text = image.info.get(LAYOUT_KEY)
    if text is None:
        raise SheetError("was trained by an older version, whose contact sheets do not say where their pictures are")
    try:
        layout = SheetLayout.model_validate_json(text)
    except ValidationError as error:
        raise SheetError("has a contact sheet whose layout cannot be read") from error
    if any(end > side for end, side in zip(layout.pixels(), image.size, strict=True)):
        raise SheetError("has a contact sheet that is smaller than its layout says")
    return layout


def _strips(picture: Image.Image, layout: SheetLayout, block: SheetBlock) -> Strips:
    return {row.text: strip for row, strip in zip(layout.rows, _cut(picture, layout, block), strict=True)}


def _cut(picture: Image.Image, layout: SheetLayout, block: SheetBlock) -> list[list[Image.Image]]:
    return [
        [picture.crop(layout.box(block, row, column)) for column in range(block.columns)] for row in range(block.rows)
    ]
