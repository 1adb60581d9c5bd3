"""What is stored of a label, when, and what a person is asked."""

import errno
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws.client import Aws
from orchestrator.contract.labels import Label, round_folder
from orchestrator.contract.rounds import close_round, settled
from orchestrator.errors import JobError, MachineError, ServiceError, SpecError
from orchestrator.labels.desk import Desk
from orchestrator.labels.exchange import Exchange, exchange_in
from orchestrator.labels.open_round import Said
from orchestrator.labels.order import choice_items, rating_items
from orchestrator.storage import FolderStore
from tests.labels.conftest import BUCKET, PREFIX, upload
from tests.labels.made import file_of, made_round
from tests.labels.served import stored


def desk_of(folder: Path, **options: Any) -> Desk:
    return Desk(exchange_in(folder), folder, **options)


def said(desk: Desk, number: int, index: int = 0, rating: int = 3, **fields: Any) -> Said:
    """Return a rating of the round's sample of that index, whose label has this number as its id."""
    sample = desk.manifest.samples[index].id
    values = {"by": "ada", "round": desk.manifest.round, "sample": sample, "rating": rating, **fields}
    return Said(id=f"{number:032x}", **values)


def test_a_label_is_on_the_disk_when_it_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_round(tmp_path)
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), synced.append(os.fstat(file).st_size)))
    desk = desk_of(tmp_path)
    desk.add(said(desk, 1))
    [path] = (tmp_path / round_folder(0) / "labels").iterdir()
    assert path.stat().st_size in synced


def test_a_label_that_is_sent_again_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    made_round(tmp_path)
    desk = desk_of(tmp_path)
    first = desk.add(said(desk, 1))
    assert desk.add(said(desk, 1)) == first
    again = desk_of(tmp_path)
    assert again.add(said(again, 1)) == first
    assert stored(tmp_path) == [first]


def test_a_second_run_goes_on_in_a_file_of_its_own_behind_a_torn_line(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    first = desk_of(tmp_path)
    first.add(said(first, 1))
    [path] = (tmp_path / round_folder(0) / "labels").iterdir()
    path.write_bytes(path.read_bytes() + b'{"id": "0000')  # the power went
    second = desk_of(tmp_path)
    second.add(said(second, 2, index=1))
    settlement = settled(tmp_path, manifest)
    assert len(settlement.ratings) == 2
    assert len(settlement.damaged) == 1


def test_a_label_that_a_full_disk_has_cut_off_takes_no_later_one_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = made_round(tmp_path)
    desk = desk_of(tmp_path)
    desk.add(said(desk, 1))

    def cut_off(file: int) -> None:
        os.ftruncate(file, os.fstat(file).st_size - 20)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", cut_off)
        with pytest.raises(MachineError, match="No space left"):
            desk.add(said(desk, 2, index=1))
    desk.add(said(desk, 3, index=2))
    settlement = settled(tmp_path, manifest)
    sample_ids = [sample.id for sample in manifest.samples]
    assert set(settlement.ratings) == {sample_ids[0], sample_ids[2]}
    assert settlement.damaged == ()


def test_the_later_label_is_the_one_that_counts_though_the_clock_was_set_back(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    sample = manifest.samples[0].id
    future = datetime.now(UTC) + timedelta(days=1)
    folder = tmp_path / round_folder(0) / "labels"
    folder.mkdir()
    before = Label(id="f" * 32, by="ada", at=future, sample=sample, rating=1)
    (folder / "a.jsonl").write_bytes(file_of(before))
    desk = desk_of(tmp_path)
    desk.add(said(desk, 1, rating=5))
    assert settled(tmp_path, manifest).ratings[sample].mean == 5


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"sample": "0" * 32}, "has no sample"),
        ({"round": 7}, "is not labelled here"),
    ],
)
def test_labels_of_another_round_are_refused(tmp_path: Path, wrong: dict[str, Any], match: str) -> None:
    made_round(tmp_path)
    desk = desk_of(tmp_path)
    with pytest.raises(SpecError, match=match):
        desk.add(said(desk, 1, **wrong))
    assert stored(tmp_path) == []


def test_samples_of_two_prompts_cannot_be_chosen_between(tmp_path: Path) -> None:
    made_round(tmp_path, count=1)
    desk = desk_of(tmp_path, pairs=True)
    bird, fox = (sample.id for sample in desk.manifest.samples)
    with pytest.raises(SpecError, match="different prompts"):
        desk.add(Said(id="0" * 32, by="ada", round=0, chosen=bird, rejected=fox))


def test_a_picture_that_was_changed_is_not_shown(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    one, other = manifest.samples[:2]
    pictures = tmp_path / round_folder(0) / "pictures"
    (pictures / one.file).write_bytes((pictures / other.file).read_bytes())
    desk = desk_of(tmp_path)
    assert desk.picture(other.id)
    assert desk.picture("0" * 32) is None
    with pytest.raises(MachineError, match="another picture"):
        desk.picture(one.id)


def test_each_person_is_asked_everything_once_in_an_order_of_their_own(tmp_path: Path) -> None:
    manifest = made_round(tmp_path, count=20)
    ada, ben = rating_items(manifest, "ada"), rating_items(manifest, "ben")
    assert ada == rating_items(manifest, "ada")
    assert sorted(ada) == sorted(ben) == sorted((sample.id,) for sample in manifest.samples)
    assert ada != ben


def test_all_people_compare_the_same_pairs_of_a_prompt_on_sides_of_their_own(tmp_path: Path) -> None:
    manifest = made_round(tmp_path, count=12, prompts=["a", "b", "c"])
    made_round(tmp_path, number=1, count=2, prompts=["a"])
    ada, ben = choice_items(manifest, "ada"), choice_items(manifest, "ben")
    assert {frozenset(item) for item in ada} == {frozenset(item) for item in ben}
    assert len(ada) == 36
    times = Counter(id_ for item in ada for id_ in item)
    assert set(times.values()) == {2}
    assert len(times) == 36
    same_side = len(set(ada) & set(ben))
    assert 5 < same_side < 31
    for left, right in ada:
        assert manifest.sample(left).prompt == manifest.sample(right).prompt
    assert len(choice_items(exchange_in(tmp_path).manifest(1), "ada")) == 1


def test_whoever_is_still_at_a_round_ends_it_while_others_are_at_the_next(tmp_path: Path) -> None:
    before = made_round(tmp_path)
    desk = desk_of(tmp_path)
    of_ada = said(desk, 1)
    following = made_round(tmp_path, number=1)
    desk.refresh()  # ben has loaded the page
    assert desk.work("ben").round == 1
    desk.add(of_ada)
    desk.add(said(desk, 2, by="ben"))
    assert desk.picture(before.samples[1].id)
    assert desk.standing(0).people == desk.standing(1).people == 1
    assert [list(rating.by) for rating in settled(tmp_path, before).ratings.values()] == [["ada"]]
    assert [list(rating.by) for rating in settled(tmp_path, following).ratings.values()] == [["ben"]]


def test_labels_of_a_closed_round_are_kept_and_said_to_be_late(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    close_round(tmp_path, manifest, settled(tmp_path, manifest))
    desk = desk_of(tmp_path)
    desk.add(said(desk, 1))
    assert desk.standing(0).closed
    assert [late.rating for late in settled(tmp_path, manifest).late] == [3]


def test_a_round_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    made_round(tmp_path, number=2)
    with pytest.raises(JobError, match=r"no round 3.*complete: 2"):
        desk_of(tmp_path, number=3)
    with pytest.raises(JobError, match="holds no rounds"):
        exchange_in(tmp_path / "rounds")
    with pytest.raises(JobError, match="No round waits"):
        Exchange(FolderStore(tmp_path / "empty")).newest()


def test_labels_for_a_bucket_are_kept_here_and_sent_there(aws: Aws, in_bucket: Exchange, tmp_path: Path) -> None:
    manifest = made_round(tmp_path / "made")
    upload(aws, tmp_path / "made")
    kept = tmp_path / "kept"
    desk = Desk(in_bucket, kept)
    assert desk.picture(manifest.samples[0].id)
    with desk.sending():
        desk.add(said(desk, 1))
        desk.add(said(desk, 2, index=1, by="ben"))
    settlement = in_bucket.settled(0)
    assert settlement.people == ("ada", "ben")
    assert len(stored(kept)) == 2


def test_what_could_not_be_sent_is_told_kept_and_sent_by_the_next_run(
    aws: Aws, in_bucket: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_round(tmp_path / "made")
    upload(aws, tmp_path / "made")
    kept = tmp_path / "kept"
    desk = Desk(in_bucket, kept)

    def fail(*_words: object) -> None:
        raise ServiceError("S3 does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(in_bucket.store, "put_bytes", fail)
        with pytest.raises(MachineError, match=r"Labels are kept in .*S3 does not answer"), desk.sending():
            desk.add(said(desk, 1))
    assert in_bucket.label_files(0) == {}
    following = Desk(in_bucket, kept)
    assert [one.rating for one in following.work("ada").said] == [3]
    with following.sending():
        pass
    assert len(in_bucket.settled(0).ratings) == 1


def test_a_bucket_of_another_account_gets_no_labels(aws: Aws, in_bucket: Exchange, tmp_path: Path) -> None:
    """Every call names the owner, which S3 compares; moto does not, so the calls are looked at."""
    made_round(tmp_path / "made")
    upload(aws, tmp_path / "made")
    owners: list[object] = []
    aws.client("s3").meta.events.register(
        "provide-client-params.s3.*", lambda params, **_: owners.append(params.get("ExpectedBucketOwner"))
    )
    desk = Desk(in_bucket, tmp_path / "kept")
    with desk.sending():
        desk.add(said(desk, 1))
    assert set(owners) == {"123456789012"}
    keys = [item["Key"] for item in aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    [key] = [key for key in keys if key.endswith(".jsonl")]
    assert key.startswith(f"{PREFIX}rounds/0000/labels/ada-")
