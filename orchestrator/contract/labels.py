"""What people judge and what they say of it: the manifest of a round, labels, and how both lie in an exchange.

Reinforcement learning draws samples in rounds and may ask people for the reward. An *exchange* is a folder or a prefix
of a bucket where the job leaves pictures and people leave labels:

    rounds/0003/manifest.json        written last, after its pictures: a round with a manifest is complete
    rounds/0003/pictures/ID.png
    rounds/0003/labels/*.jsonl       label files, one label a line; any number of them, in any order
    rounds/0003/closed.json          the labels that training has used; those that come later are late

The exchange of a job is a folder of its checkpoints, so that SageMaker brings labels into a container: it copies
checkpoints there when a job starts again.

A label names its sample by an id that is bound to the picture's bytes, never by its position: a list of rewards without
ids could be taken for that of another round.
"""

import hashlib
from datetime import timedelta
from functools import cached_property
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

EXCHANGE_FOLDER = "exchange"
"""Below the checkpoints of a job."""
ROUNDS_FOLDER = "rounds"
ROUND_MANIFEST_FILE = "manifest.json"
PICTURES_FOLDER = "pictures"
LABELS_FOLDER = "labels"
LABELS_ENDING = ".jsonl"
CLOSED_FILE = "closed.json"
FORMAT = 1
WAITS_FOR_LABELS = "waits-for-labels"
"""Kind of the message with which a job ends until its labels are there; no failure, though it is told like one."""
WAITS = " waits for labels: "
"""In the reason for which such a job has ended."""
LONGEST_ROUND = timedelta(days=28)
"""How long people may take: in a bucket the checkpoints expire then, and the round with them."""
LABELS_PHASE = "labels of round "
"""Begins the name of the phase in which a job waits, running; the number of the round follows."""
WORST, BEST = 1, 5
"""Ratings, the keys that people press."""
NEIGHBOURS = 2
"""With how many others of its prompt an image is compared: they form a ring."""
MOST_SAMPLES = 10_000
"""Of a round: its order is computed and sent to a browser as a whole."""
MOST_LABELS = 100
"""Of one message of the queue."""
LONGEST_NAME = 80  # characters of a person's name
_ID = r"^[0-9a-f]{32}$"
_SHA256 = r"^[0-9a-f]{64}$"
_ROUND_DIGITS = 4
_ID_DIGITS = 32


class _Wire(BaseModel):
    """Fields that a newer version added are ignored on reading."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class RoundSample(_Wire):
    """A picture that people are asked about."""

    id: str = Field(pattern=_ID)
    """Hash of the job, the round, the number of the sample in it, and the picture's bytes."""
    sha256: str = Field(pattern=_SHA256)
    """Of the picture's bytes."""
    prompt: str = Field(max_length=4000)
    """What was drawn."""
    seed: int
    """Of its generator."""
    group: int = Field(ge=0)
    """Number of its group: samples of one prompt whose rewards are compared."""

    @property
    def file(self) -> str:
        """Name of its picture, in the folder of the round's pictures."""
        return f"{self.id}.png"


class RoundManifest(_Wire):
    """A round: all its samples, in the order in which they were drawn."""

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    """Version of this layout."""
    job: str = Field(min_length=1, max_length=200)
    """Name of the job that drew them."""
    round: int = Field(ge=0)
    """Number of the round in the job, from 0."""
    samples: tuple[RoundSample, ...] = Field(min_length=1, max_length=MOST_SAMPLES)
    """Everything that is judged."""
    drawn_by: str | None = None
    """Hash of all that its pictures follow from; None where that is not known."""
    people: int = Field(1, ge=1)
    """How many people have to judge each sample."""
    deadline: AwareDatetime | None = None
    """After it the job goes on with the labels that there were by then, if there were any; None for no such time."""

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        """Require that each id is that of its own picture; so no two are equal, in this round and in any other."""
        for index, sample in enumerate(self.samples):
            if sample.id != sample_id(self.job, self.round, index, sample.sha256):
                raise ValueError(f"sample {index} has the id of another picture, round or job")
        return self

    def sample(self, id_: str) -> RoundSample | None:
        """Return a sample by its id, or None."""
        return self._by_id.get(id_)

    @cached_property
    def _by_id(self) -> dict[str, RoundSample]:
        return {sample.id: sample for sample in self.samples}


class Label(_Wire):
    """What one person says: a rating of a sample, or which of two samples of a prompt is better.

    A line of a label file. Files are only ever added to: whoever changes their mind says so in another label.
    """

    id: str = Field(pattern=_ID)
    """Of the label itself: the same label may be sent and stored several times."""
    by: str = Field(min_length=1, max_length=LONGEST_NAME)
    """Who says it."""
    at: AwareDatetime
    """When it was said; a person's later label replaces an earlier one about the same."""
    sample: str | None = Field(None, pattern=_ID)
    """The sample that is rated."""
    rating: int | None = Field(None, ge=WORST, le=BEST, strict=True)
    """From 1, the worst, to 5."""
    chosen: str | None = Field(None, pattern=_ID)
    """The better one of two samples of the same prompt."""
    rejected: str | None = Field(None, pattern=_ID)
    """The other one."""
    withdrawn: bool = Field(default=False, strict=True)
    """Whether the person takes back what they said of the same before."""

    @model_validator(mode="after")
    def _require_one_kind(self) -> Self:
        """Require a rating or a choice, and not both."""
        rates = self.sample is not None and self.rating is not None
        chooses = self.chosen is not None and self.rejected is not None
        has_more = self.chosen is not None or self.rejected is not None
        if chooses:
            has_more = self.sample is not None or self.rating is not None
        if rates == chooses or has_more:
            raise ValueError("either sample and rating, or chosen and rejected")
        if chooses and self.chosen == self.rejected:
            raise ValueError("chosen and rejected are the same sample")
        return self

    @property
    def about(self) -> tuple[str, ...]:
        """The ids of what is judged: one sample, or two in the order of their ids."""
        if self.sample is not None:
            return (self.sample,)
        pair = (str(self.chosen), str(self.rejected))
        return tuple(sorted(pair))

    def line(self) -> str:
        """Return the label as a line of a label file."""
        return self.model_dump_json(exclude_defaults=True) + "\n"


class LabelMessage(_Wire):
    """Labels as other tools send them, in the body of a message to the account's queue.

    The queue is one for all jobs of the account, so the message says which job and round it is about; its labels have
    the ids that the manifest of that round gives to the samples.
    """

    format: Literal[1] = 1
    """Version of this layout."""
    job: str = Field(min_length=1, max_length=200)
    """Name of the job whose samples are judged."""
    round: int = Field(ge=0, lt=10**7)
    """Number of the round."""
    labels: tuple[Label, ...] = Field(min_length=1, max_length=MOST_LABELS)
    """All of one round."""


class RoundClosed(_Wire):
    """Says that training has used a round's labels, and which: a resumed job uses the same ones."""

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    """Version of this layout."""
    round: int = Field(ge=0)
    """Number of the round."""
    labels: frozenset[str] = frozenset()
    """Ids of the labels that there were when the round was closed."""


def sample_id(job: str, number: int, index: int, sha256: str) -> str:
    """Return the id of sample `index` of round `number` of a job, whose picture has this hash.

    Equal pictures of a round have different ids, and the same picture in another round has another one.
    """
    text = f"{job}\n{number}\n{index}\n{sha256}"
    digest = hashlib.sha256(text.encode())
    return digest.hexdigest()[:_ID_DIGITS]


def round_folder(number: int) -> str:
    """Return the name of a round's folder in an exchange: "rounds/0003"."""
    return f"{ROUNDS_FOLDER}/{number:0{_ROUND_DIGITS}d}"


def round_of(name: str) -> int | None:
    """Return the number of the round that a file of an exchange belongs to, or None."""
    parts = name.split("/")
    is_of_a_round = parts[0] == ROUNDS_FOLDER and len(parts) > 1
    if not is_of_a_round or not (parts[1].isascii() and parts[1].isdigit()):
        return None
    number = int(parts[1])
    return number if round_folder(number) == "/".join(parts[:2]) else None
