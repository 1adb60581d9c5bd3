"""Where people label: what each is asked, how far the round is, and how labels come to the exchange.

Every label is first in a file of this machine. For an exchange in a folder that file lies in the exchange itself; for
one in a bucket it is sent there, again and again until it has arrived, also by a later run.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.labels import Label, RoundManifest
from orchestrator.contract.settlement import Settlement
from orchestrator.errors import SpecError
from orchestrator.labels.exchange import Exchange
from orchestrator.labels.open_round import OpenRound, Said
from orchestrator.labels.order import Item, choice_items, rating_items
from orchestrator.labels.sending import Sender


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
    """The rounds that people label here; each goes on with the round that their page shows until it is done."""

    def __init__(
        self,
        exchange: Exchange,
        kept: Path,
        *,
        number: int | None = None,
        pairs: bool = False,
    ) -> None:
        """Open the round of a number, or else the newest one, and then those that follow.

        `kept` is a folder of this machine for labels of an exchange that lies in a bucket.
        """
        self.exchange = exchange
        self.pairs = pairs
        self._follows = number is None
        self._root = exchange.folder or kept
        self._sender = None
        if exchange.folder is None:
            self._sender = Sender(exchange, kept)
        self._lock = threading.RLock()
        self._rounds: dict[int, OpenRound] = {}
        self._latest = self._opened(exchange.newest() if number is None else number)

    @property
    def manifest(self) -> RoundManifest:
        """The round that whoever comes now is asked about."""
        return self._latest.manifest

    def _opened(self, number: int) -> OpenRound:
        """Return a round, and read it if it was not opened before."""
        opened = self._rounds.get(number)
        if opened is None:
            opened = OpenRound(self.exchange, self._root, number)
            self._rounds[number] = opened
        return opened

    def refresh(self) -> None:
        """Read what others have said meanwhile, and go on to a newer round if there is one."""
        with self._lock:
            if self._follows:
                self._latest = self._opened(self.exchange.newest())
            self._latest.refresh()

    def work(self, by: str) -> Work:
        """Return what a person is asked."""
        with self._lock:
            manifest = self._latest.manifest
            items = rating_items(manifest, by)
            if self.pairs:
                items = choice_items(manifest, by)
            prompts = {}
            for sample in manifest.samples:
                prompts[sample.id] = sample.prompt
            return Work(
                job=manifest.job,
                round=manifest.round,
                by=by,
                pairs=self.pairs,
                prompts=prompts,
                items=items,
                said=self._latest.said_by(by),
                standing=self.standing(manifest.round),
            )

    def add(self, said: Said) -> Label:
        """Store what a person says; once it returns, it is on the disk. Idempotent by the label's id.

        Raises SpecError for a round that is not open here, for samples that it does not have, and for two of different
        prompts.
        """
        with self._lock:
            label = self._open_round(said.round).add(said)
        if self._sender is not None:
            self._sender.wake()
        return label

    def standing(self, number: int) -> Standing:
        """Return how far a round is; raises SpecError for one that is not open here."""
        with self._lock:
            opened = self._open_round(number)
            settlement = opened.settlement()
            closed = opened.closed is not None
        unsent = 0
        trouble = ""
        if self._sender is not None:
            unsent = self._sender.unsent
            trouble = self._sender.trouble
        return Standing(
            people=len(settlement.people),
            missing=len(settlement.missing),
            alpha=settlement.alpha,
            equal_choices=settlement.equal_choices,
            unsent=unsent,
            trouble=trouble,
            closed=closed,
        )

    def _open_round(self, number: int) -> OpenRound:
        opened = self._rounds.get(number)
        if opened is None:
            raise SpecError(f"Round {number} is not labelled here.", next_step="load the page again")
        return opened

    def is_complete(self) -> bool:
        """Whether a job can go on with what is said of the latest round, as far as it is known here."""
        with self._lock:
            opened = self._latest
            if opened.closed is not None:
                return True
            settlement = opened.settlement()
            return settlement.is_enough(opened.manifest.deadline, datetime.now(UTC))

    def settlement(self) -> Settlement:
        """Return what is known of the latest round, settled."""
        with self._lock:
            return self._latest.settlement()

    def picture(self, id_: str) -> bytes | None:
        """Return the PNG of a sample, verified; None when no open round has it."""
        with self._lock:
            rounds = list(self._rounds.values())
        for opened in rounds:
            found = opened.picture(id_)
            if found is not None:
                return found
        return None

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send labels to the bucket while the block runs, and what is left after it."""
        if self._sender is None:
            yield
            return
        with self._sender.running():
            yield
