"""Adapters side by side: the contact sheet of a sweep, for images that an endpoint has drawn."""

from collections.abc import Mapping, Sequence

from orchestrator.sweeps.contact_sheet import encode_png, render_contact_sheet
from orchestrator.sweeps.samples import Column, Rows, Samples, decode_cell

Row = Mapping[str, Sequence[bytes]]
"""PNG files of the images of each prompt."""


def render_grid(title: str, base: Row, adapters: Mapping[str, Row]) -> bytes:
    """Return a PNG with a row for each prompt: the images of the base model left, and of each adapter beside it."""
    before = _cells(base)
    columns = []
    for name, images in adapters.items():
        samples = Samples(
            prompts={prompt: prompt for prompt in images},
            real=[],
            before=before,
            after=_cells(images),
        )
        column = Column(
            title=title,
            settings={"": name},
            metrics={},
            samples=samples,
        )
        columns.append(column)
    sheet = render_contact_sheet(columns)
    return encode_png(sheet)


def _cells(images: Row) -> Rows:
    rows = {}
    for prompt, files in images.items():
        rows[prompt] = list(map(decode_cell, files))
    return rows
