"""From label files to one verdict on each sample: pure functions, whose result depends on no order of files or lines.

- A label about an id that the round does not have is counted and never used.
- A label that was stored several times (by its own id) is used once.
- A person's later label about the same replaces the earlier one, by its time and then by its id.
- What several people say of the same is averaged.
- Of a closed round only the labels that it was closed with are used; later ones are kept, and reported.
- A line that is no label is reported with its file and number.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from statistics import fmean
from typing import NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from orchestrator.contract.agreement import equal_choices, ordinal_alpha
from orchestrator.contract.labels import NEIGHBOURS, Label, RoundClosed, RoundManifest

LONGEST_LINE = 10_000  # bytes; a label has 300
_UNKNOWN = "unknown"
_MISMATCHED = "mismatched"
_About = tuple[str, ...]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DamagedLine(_Value):
    """A line of a label file that cannot be used."""

    file: str
    """Name of the label file."""
    line: int
    """Number of the line, from 1."""
    why: str
    """What is wrong with it."""


class Rating(_Value):
    """What people say of one sample."""

    mean: float
    """Mean of all ratings, 1 to 5."""
    by: Mapping[str, int]
    """Rating of each person."""


class Choice(_Value):
    """What people say of two samples of a prompt."""

    first: str
    """Id of one sample; ids are in order."""
    second: str
    """Id of the other one."""
    share: float
    """Share of the people who prefer `first`, 0 to 1."""
    by: Mapping[str, str]
    """Id of the sample that each person prefers."""


class Settlement(_Value):
    """A round's labels, settled."""

    round: int
    """Number of the round."""
    ratings: Mapping[str, Rating]
    """By the id of the sample."""
    choices: tuple[Choice, ...]
    """One for each pair that was judged, by the ids of the samples."""
    missing: tuple[str, ...]
    """Ids of the samples that nobody has judged, in the order of the manifest."""
    unfinished: tuple[str, ...]
    """Ids of the samples that fewer people have judged than the round asks for, in the same order."""
    first_at: AwareDatetime | None
    """When the first label that is in force was given; None without any."""
    used: frozenset[str]
    """Ids of the labels that are in force or were replaced: what a round is closed with."""
    late: tuple[Label, ...]
    """Labels that came after the round was closed, by their ids; not used."""
    unknown: int
    """Labels about samples that the round does not have; not used."""
    mismatched: int
    """Choices between samples of different prompts; not used."""
    repeated: int
    """Lines that repeat a label."""
    replaced: int
    """Labels that a later one of the same person replaces."""
    withdrawn: int
    """Judgements that their person has taken back."""
    damaged: tuple[DamagedLine, ...]
    """Lines that are no labels, by file and number."""
    people: tuple[str, ...]
    """Everyone whose label is used."""
    alpha: float | None
    """Krippendorff's alpha of the ratings, ordinal; None where no two people rated the same, or all is equal."""
    equal_choices: float | None
    """Share of equal choices of two people about the same pair; None without any."""

    def is_enough(self, deadline: datetime | None, now: datetime) -> bool:
        """Whether a job goes on with these labels: all samples are judged, or time is up and some were by then.

        The first label that comes after the deadline does not end a round that nobody has looked at before.
        """
        if not self.unfinished:
            return True
        if deadline is None or self.first_at is None:
            return False
        return self.first_at < deadline <= now


class ReadLabels(NamedTuple):
    """The labels of some files, each once."""

    labels: Mapping[str, Label]
    """By their ids."""
    repeated: int
    """Lines that repeat a label."""
    damaged: tuple[DamagedLine, ...]
    """Lines that are no labels."""


def read_labels(files: Mapping[str, bytes]) -> ReadLabels:
    """Read label files, given by their names.

    Of lines with the same label id, the first one in time stays: what was said under an id is not changed by another
    line under it, whichever file that is in. A line is damaged when the process that wrote it was killed, or when
    another tool wrote something else; the lines after it are read all the same.
    """
    labels: dict[str, Label] = {}
    damaged: list[DamagedLine] = []
    repeated = 0
    for name in sorted(files):
        lines = files[name].split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                label = _parsed(line)
            except ValueError as error:
                damaged.append(DamagedLine(file=name, line=number, why=str(error)))
                continue
            known = labels.setdefault(label.id, label)
            if known is not label:
                repeated += 1
                labels[label.id] = min(known, label, key=_moment)  # what was said under an id first
    return ReadLabels(labels, repeated, tuple(damaged))


def settle(
    manifest: RoundManifest,
    files: Mapping[str, bytes],
    closed: RoundClosed | None = None,
) -> Settlement:
    """Settle the labels of a round.

    Args:
        manifest: The round. Labels about anything else are counted and not used.
        files: Content of all its label files by their names, which serve to name damaged lines and for nothing else.
        closed: What the round was closed with, if it was: then only those labels are used.
    """
    read = read_labels(files)
    return settle_read(manifest, read, closed)


def settle_read(manifest: RoundManifest, read: ReadLabels, closed: RoundClosed | None = None) -> Settlement:
    """Settle labels that are read already, by the same rules.

    Whoever keeps labels in memory, as the page does, needs not read the files again for each new one.

    Args:
        manifest: The round.
        read: Its labels, each once.
        closed: What the round was closed with, if it was.
    """
    sorted_out = _sort_out(manifest, read, closed)
    in_force = _in_force(sorted_out.known)
    standing = [label for label in in_force if not label.withdrawn]
    ratings = _ratings(standing)
    choices = _choices(standing)
    used = [label.id for label in sorted_out.known]
    people = {label.by for label in standing}
    return Settlement(
        round=manifest.round,
        ratings=ratings,
        choices=choices,
        missing=_missing(manifest, standing),
        unfinished=_unfinished(manifest, standing),
        first_at=min((label.at for label in standing), default=None),
        used=frozenset(used),
        late=tuple(sorted_out.late),
        unknown=sorted_out.refused[_UNKNOWN],
        mismatched=sorted_out.refused[_MISMATCHED],
        repeated=read.repeated,
        replaced=len(sorted_out.known) - len(in_force),
        withdrawn=len(in_force) - len(standing),
        damaged=read.damaged,
        people=tuple(sorted(people)),
        alpha=ordinal_alpha([rating.by.values() for rating in ratings.values()]),
        equal_choices=equal_choices([choice.by.values() for choice in choices]),
    )


class _SortedOut(NamedTuple):
    known: list[Label]
    """Labels that may be used."""
    late: list[Label]
    """Those that came after the round was closed."""
    refused: Counter[str]
    """How many are not of this round, by the reason."""


def _sort_out(manifest: RoundManifest, read: ReadLabels, closed: RoundClosed | None) -> _SortedOut:
    """Tell labels that may be used from those that may not."""
    found = _SortedOut([], [], Counter())
    for id_ in sorted(read.labels):
        label = read.labels[id_]
        refusal = _refusal(label, manifest)
        if refusal:
            found.refused[refusal] += 1
        elif closed is not None and id_ not in closed.labels:
            found.late.append(label)
        else:
            found.known.append(label)
    return found


def _missing(manifest: RoundManifest, labels: Iterable[Label]) -> tuple[str, ...]:
    """Return the ids of the samples that no label is about."""
    judged: set[str] = set()
    for label in labels:
        judged.update(label.about)
    missing = []
    for sample in manifest.samples:
        if sample.id not in judged:
            missing.append(sample.id)
    return tuple(missing)


def _unfinished(manifest: RoundManifest, labels: Iterable[Label]) -> tuple[str, ...]:
    """Return the ids of the samples that too few people have judged.

    A person has judged a sample when they have rated it, or have compared it with both of its neighbours in the ring of
    its prompt: with as many others as there are, where those are fewer.
    """
    rated: set[tuple[str, str]] = set()
    compared: Counter[tuple[str, str]] = Counter()
    people: set[str] = set()
    for label in labels:
        people.add(label.by)
        if label.sample is not None:
            rated.add((label.sample, label.by))
        else:
            for id_ in label.about:
                compared[id_, label.by] += 1
    of_prompts = Counter(sample.prompt for sample in manifest.samples)
    unfinished = []
    for sample in manifest.samples:
        others = of_prompts[sample.prompt] - 1
        needed = max(1, min(NEIGHBOURS, others))
        judges = 0
        for person in people:
            key = (sample.id, person)
            if key in rated or compared[key] >= needed:
                judges += 1
        if judges < manifest.people:
            unfinished.append(sample.id)
    return tuple(unfinished)


def standing_labels(manifest: RoundManifest, labels: Iterable[Label], by: str) -> dict[_About, Label]:
    """Return what one person says at present, by the ids of the samples that it is about, the oldest first.

    Labels that are late are among it: the person has given them, whether training uses them or not.
    """
    own = [label for label in labels if label.by == by and not _refusal(label, manifest)]
    in_force = _in_force(own)
    in_force.sort(key=_moment)
    return {label.about: label for label in in_force if not label.withdrawn}


def _parsed(line: bytes) -> Label:
    """Return the label of a line; raises ValueError with the reason in a few words."""
    if len(line) > LONGEST_LINE:
        raise ValueError(f"longer than {LONGEST_LINE} bytes")
    try:
        return Label.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        why = f"{field}: {first['msg']}"
        raise ValueError(why.removeprefix(": ")) from error


def _refusal(label: Label, manifest: RoundManifest) -> str:
    """Return why a label is not of this round, or an empty text.

    It is unknown when the round has no such sample. It is mismatched when it chooses between samples of different
    prompts, whose rewards are not comparable.
    """
    prompts = set()
    for id_ in label.about:
        sample = manifest.sample(id_)
        if sample is None:
            return _UNKNOWN
        prompts.add(sample.prompt)
    if len(prompts) > 1:
        return _MISMATCHED
    return ""


def _in_force(labels: Iterable[Label]) -> list[Label]:
    """Return the latest label of each person about each thing, by person and thing.

    Withdrawn ones are among them: a withdrawal is a label too, and may itself be replaced.
    """
    latest: dict[tuple[str, _About], Label] = {}
    for label in sorted(labels, key=_moment):
        latest[label.by, label.about] = label
    return [latest[key] for key in sorted(latest)]


def _moment(label: Label) -> tuple[float, str, str]:
    """Return what orders labels in time, the same whatever the order in which they are read."""
    seconds = label.at.timestamp()
    return seconds, label.id, label.line()


def _ratings(labels: Iterable[Label]) -> dict[str, Rating]:
    """Return the mean of what people say of each sample, by its id."""
    given: dict[str, dict[str, int]] = {}
    for label in labels:
        if label.sample is not None and label.rating is not None:
            given.setdefault(label.sample, {})[label.by] = label.rating
    ratings = {}
    for sample, by in sorted(given.items()):
        ratings[sample] = Rating(mean=fmean(by.values()), by=by)
    return ratings


def _choices(labels: Iterable[Label]) -> tuple[Choice, ...]:
    """Return what people say of each pair."""
    given: dict[_About, dict[str, str]] = {}
    for label in labels:
        if label.chosen is not None:
            given.setdefault(label.about, {})[label.by] = label.chosen
    choices = []
    for (first, second), by in sorted(given.items()):
        chosen = list(by.values())
        share = chosen.count(first) / len(chosen)
        choices.append(Choice(first=first, second=second, share=share, by=by))
    return tuple(choices)
