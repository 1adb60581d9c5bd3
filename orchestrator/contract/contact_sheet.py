"""Where the pictures of a contact sheet are: written into the sheet by training, read back by who cuts it up.

The layout travels in the PNG itself, as the text under `LAYOUT_KEY`, so that a sheet that was copied away still says
what it shows.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LAYOUT_KEY = "orchestrator:contact-sheet"
MOST_PICTURES = 64  # of a block's row or column; a recipe allows 16

_Pixels = Annotated[int, Field(ge=0, le=65535)]
_Count = Annotated[int, Field(ge=0, le=MOST_PICTURES)]


class SheetRow(BaseModel):
    """One evaluation prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: str
    """As the adapter was asked."""
    text: str
    """The same without the subject's own word: equal for adapters that have different words."""


class SheetBlock(BaseModel):
    """Pictures side by side and below one another."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    left: _Pixels
    """Of its first picture."""
    top: _Pixels
    """Of its first picture."""
    rows: _Count
    """Pictures below one another."""
    columns: _Count
    """Pictures side by side."""


class SheetLayout(BaseModel):
    """A sheet's blocks and what its rows show, all lengths in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = 1
    """Version of this layout."""
    title: str
    """Recipe and subject."""
    tile: int = Field(ge=1, le=1024)
    """Side of each picture."""
    gap: _Pixels
    """Between pictures."""
    rows: tuple[SheetRow, ...] = Field(max_length=MOST_PICTURES)
    """The evaluation prompts, one a row."""
    real: SheetBlock
    """The training pictures, as many as there is room for."""
    before: SheetBlock
    """What the base model drew: a row for each prompt, a column for each seed."""
    after: SheetBlock
    """What the adapter drew."""

    @model_validator(mode="after")
    def _has_a_row_for_each_prompt(self) -> Self:
        if {self.before.rows, self.after.rows} != {len(self.rows)}:
            raise ValueError("the blocks do not have a row for each prompt")
        return self

    def corner(self, block: SheetBlock, row: int, column: int) -> tuple[int, int]:
        """Return left and top of a picture of a block."""
        return block.left + column * (self.tile + self.gap), block.top + row * (self.tile + self.gap)

    def box(self, block: SheetBlock, row: int, column: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of a picture of a block."""
        left, top = self.corner(block, row, column)
        return left, top, left + self.tile, top + self.tile

    def pixels(self) -> tuple[int, int]:
        """Return the width and height that a sheet has at least."""
        ends = [self.box(one, one.rows - 1, one.columns - 1) for one in (self.real, self.before, self.after)]
        return max(end[2] for end in ends), max(end[3] for end in ends)
