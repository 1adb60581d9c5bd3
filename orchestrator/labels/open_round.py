"""A round that people are labelling: what they have said of it, in memory and on the disk."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from orchestrator.contract.labels import LABELS_ENDING, LABELS_FOLDER, LONGEST_NAME, Label, round_folder
from orchestrator.contract.settlement import ReadLabels, Settlement, read_labels, settle_read, standing_labels
from orchestrator.errors import SpecError
from orchestrator.labels.exchange import Exchange
from orchestrator.labels.journal import Journal

_TICK = timedelta(microseconds=1)
_AGAIN = "load the page again"


class Said(BaseModel):
    """A label as the page sends it: the time is the server's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Id of the label, which the page makes."""
    by: str = Field(min_length=1, max_length=LONGEST_NAME)
    """Who says it."""
    round: int
    """Number of the round that the page shows."""
    sample: str | None = None
    """Id of the sample that is rated."""
    rating: int | None = None
    """Its rating."""
    chosen: str | None = None
    """Id of the better one of two samples."""
    rejected: str | None = None
    """Id of the other one."""
    withdrawn: bool = False
    """Whether the person takes this back."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Require what a label requires."""
        self.label(datetime.now(UTC))
        return self

    def label(self, at: datetime) -> Label:
        """Return the label, said at a time."""
        return Label.model_validate({**self.model_dump(exclude={"round"}), "at": at})


class OpenRound:
    """One round, for any number of people. Its methods are called by one thread at a time."""

    def __init__(self, exchange: Exchange, root: Path, number: int) -> None:
        """Read the round; `root` is the folder of this machine in which the exchange's label files are written."""
        self.manifest = exchange.manifest(number)
        self._exchange = exchange
        self._folder = root / round_folder(number) / LABELS_FOLDER
        self._journals: dict[str, Journal] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what others have said meanwhile, and whether the round is closed."""
        number = self.manifest.round
        closed = self._exchange.closed(number)
        files = self._exchange.label_files(number)
        for name, content in self._own_files():
            files[name] = content
        self.closed = closed
        self._labels = dict(read_labels(files).labels)

    def _own_files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the label files of this machine: they may be newer than those in the bucket."""
        for path in sorted(self._folder.glob(f"*{LABELS_ENDING}")):
            yield path.name, path.read_bytes()

    def said_by(self, by: str) -> list[Label]:
        """Return what a person says at present, the oldest first."""
        standing = standing_labels(self.manifest, self._labels.values(), by)
        return list(standing.values())

    def add(self, said: Said) -> Label:
        """Store what a person says; once it returns, it is on the disk. Idempotent by the label's id.

        Raises SpecError for samples that the round does not have, and for two of different prompts.
        """
        known = self._labels.get(said.id)
        if known is not None:
            return known
        self._check(said)
        label = said.label(self._now(said.by))
        journal = self._journals.get(said.by)
        if journal is None:
            journal = Journal(self._folder, said.by)
            self._journals[said.by] = journal
        journal.append(label)
        self._labels[label.id] = label
        return label

    def _check(self, said: Said) -> None:
        """Require samples of this round; and of a choice, of the same prompt."""
        prompts = set()
        for id_ in (said.sample, said.chosen, said.rejected):
            if id_ is None:
                continue
            sample = self.manifest.sample(id_)
            if sample is None:
                raise SpecError(f"Round {said.round} has no sample {id_}.", next_step=_AGAIN)
            prompts.add(sample.prompt)
        if len(prompts) > 1:
            raise SpecError("These samples have different prompts: neither can be chosen.", next_step=_AGAIN)

    def _now(self, by: str) -> AwareDatetime:
        """Return the time, later than all that a person has said before: a clock may have been set back."""
        now = datetime.now(UTC)
        for label in self._labels.values():
            if label.by == by:
                now = max(now, label.at + _TICK)
        return now

    def settlement(self) -> Settlement:
        """Return what is known of the round, settled."""
        read = ReadLabels(self._labels, 0, ())
        return settle_read(self.manifest, read, self.closed)

    def picture(self, id_: str) -> bytes | None:
        """Return the PNG of a sample, verified; None when the round has no such sample."""
        sample = self.manifest.sample(id_)
        if sample is None:
            return None
        return self._exchange.picture(self.manifest, sample)
