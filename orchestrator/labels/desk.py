"""Where people label a round: what each is asked, what they have said, and where it is stored.

Every label is first in a file of this machine. For an exchange in a folder that file lies in the exchange itself; for
one in a bucket it is sent there, again and again until it has arrived, also by a later run.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from orchestrator.contract.labels import LABELS_ENDING, LABELS_FOLDER, LONGEST_NAME, Label, round_folder
from orchestrator.contract.settlement import (
    ReadLabels,
    Settlement,
    read_labels,
    settle_read,
    standing_labels,
)
from orchestrator.errors import SpecError
from orchestrator.labels.exchange import Exchange
from orchestrator.labels.journal import Journal
from orchestrator.labels.order import Item, choice_items, rating_items
from orchestrator.labels.sending import Sender

_TICK = timedelta(microseconds=1)


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


class Standing(BaseModel):
    """How far a round is, for the page."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: int
    """How many people have labelled."""
    missing: int
    """Samples that nobody has judged."""
    alpha: float | None
    """Agreement of ratings."""
    equal_choices: float | None
    """Agreement of choices."""
    unsent: int
    """Label files that are not yet in the bucket."""
    trouble: str
    """Why they could not be sent; empty when all is well."""
    closed: bool
    """Whether training has used the round, so that further labels are late."""


class Work(BaseModel):
    """What one person is asked, for the page."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    """Name of the job."""
    round: int
    """Number of the round."""
    by: str
    """Who is asked."""
    pairs: bool
    """Whether to choose, or to rate."""
    prompts: dict[str, str]
    """Prompt of each sample, by its id."""
    items: list[Item]
    """What is asked, in order."""
    said: list[Label]
    """What this person says at present, the oldest first."""
    standing: Standing


class Desk:
    """One round at a time, for any number of people."""

    def __init__(
        self,
        exchange: Exchange,
        kept: Path,
        *,
        number: int | None = None,
        pairs: bool = False,
    ) -> None:
        """Open the round of a number, or else the newest one, which it then follows.

        `kept` is a folder of this machine for labels of an exchange that lies in a bucket.
        """
        self.exchange = exchange
        self.pairs = pairs
        self._follows = number is None
        self._root = exchange.folder or kept
        self._sender = Sender(exchange, kept) if exchange.folder is None else None
        self._lock = threading.RLock()
        self._journals: dict[str, Journal] = {}
        self._number = -1
        self._open(exchange.newest() if number is None else number)

    def _open(self, number: int) -> None:
        """Read a round."""
        manifest = self.exchange.manifest(number)
        closed = self.exchange.closed(number)
        files = self.exchange.label_files(number)
        for name, content in self._own_files(number):
            files[name] = content
        if number != self._number:
            self._journals = {}
        self._number = number
        self.manifest = manifest
        self._closed = closed
        self._labels = dict(read_labels(files).labels)

    def _own_files(self, number: int) -> Iterator[tuple[str, bytes]]:
        """Yield the label files of this machine: they may be newer than those in the bucket."""
        folder = self._root / round_folder(number) / LABELS_FOLDER
        for path in sorted(folder.glob(f"*{LABELS_ENDING}")):
            yield path.name, path.read_bytes()

    def refresh(self) -> None:
        """Read what others have said meanwhile, and go on to a newer round if there is one."""
        with self._lock:
            newest = self.exchange.newest() if self._follows else self.manifest.round
            self._open(newest)

    def work(self, by: str) -> Work:
        """Return what a person is asked."""
        with self._lock:
            items = rating_items(self.manifest, by)
            if self.pairs:
                items = choice_items(self.manifest, by)
            prompts = {}
            for sample in self.manifest.samples:
                prompts[sample.id] = sample.prompt
            said = standing_labels(self.manifest, self._labels.values(), by)
            return Work(
                job=self.manifest.job,
                round=self.manifest.round,
                by=by,
                pairs=self.pairs,
                prompts=prompts,
                items=items,
                said=list(said.values()),
                standing=self.standing(),
            )

    def add(self, said: Said) -> Label:
        """Store what a person says; once it returns, it is on the disk. Idempotent by the label's id.

        Raises SpecError for samples that the round does not have, and for another round.
        """
        with self._lock:
            known = self._labels.get(said.id)
            if known is not None:
                return known
            self._check(said)
            label = said.label(self._now(said.by))
            journal = self._journals.get(said.by)
            if journal is None:
                folder = self._root / round_folder(said.round) / LABELS_FOLDER
                journal = self._journals[said.by] = Journal(folder, said.by)
            journal.append(label)
            self._labels[label.id] = label
        if self._sender is not None:
            self._sender.wake()
        return label

    def _check(self, said: Said) -> None:
        """Require samples of this round; and of a choice, of the same prompt."""
        again = "load the page again"
        if said.round != self.manifest.round:
            raise SpecError(f"Round {said.round} is over; the page shows round {self.manifest.round}.", next_step=again)
        prompts = set()
        for id_ in (said.sample, said.chosen, said.rejected):
            if id_ is None:
                continue
            sample = self.manifest.sample(id_)
            if sample is None:
                raise SpecError(f"Round {said.round} has no sample {id_}.", next_step=again)
            prompts.add(sample.prompt)
        if len(prompts) > 1:
            raise SpecError("These samples have different prompts: neither can be chosen.", next_step=again)

    def _now(self, by: str) -> AwareDatetime:
        """Return the time, later than all that a person has said before: a clock may have been set back."""
        now = datetime.now(UTC)
        for label in self._labels.values():
            if label.by == by:
                now = max(now, label.at + _TICK)
        return now

    def standing(self) -> Standing:
        """Return how far the round is."""
        with self._lock:
            settlement = self.settlement()
            closed = self._closed is not None
        unsent, trouble = 0, ""
        if self._sender is not None:
            unsent, trouble = self._sender.unsent, self._sender.trouble
        return Standing(
            people=len(settlement.people),
            missing=len(settlement.missing),
            alpha=settlement.alpha,
            equal_choices=settlement.equal_choices,
            unsent=unsent,
            trouble=trouble,
            closed=closed,
        )

    def settlement(self) -> Settlement:
        """Return what is known of the round, settled."""
        with self._lock:
            return settle_read(self.manifest, ReadLabels(self._labels, 0, ()), self._closed)

    def picture(self, id_: str) -> bytes | None:
        """Return the PNG of a sample of the round, verified; None when it has no such sample."""
        with self._lock:
            manifest = self.manifest
        sample = manifest.sample(id_)
        return None if sample is None else self.exchange.picture(manifest, sample)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send labels to the bucket while the block runs, and what is left after it."""
        if self._sender is None:
            yield
            return
        with self._sender.running():
            yield
