"""Labels on the right picture, whatever comes, and in whatever order."""

import random
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.contract.labels import Label, RoundClosed, RoundManifest, round_folder, round_of
from orchestrator.contract.rounds import DrawnSample, close_round, is_closed, read_round, settled, write_round
from orchestrator.contract.settlement import settle
from orchestrator.labels.exchange import Exchange
from orchestrator.labels.order import choice_items
from orchestrator.storage import FolderStore
from tests.labels.made import START, asked_of_people, drawn, file_of, label, made_round, picture

FILES = 1000


def ids(manifest: RoundManifest) -> list[str]:
    return [sample.id for sample in manifest.samples]


def test_a_thousand_files_in_any_order_give_each_picture_its_own_labels(tmp_path: Path) -> None:
    """Each person rates by a rule that only the right picture obeys, so that a label on a wrong one would show."""
    dice = random.Random(20261126)
    manifest = made_round(tmp_path, number=3, count=20)
    others = made_round(tmp_path, number=4, count=20)  # the same pictures, in another round
    assert not set(ids(manifest)) & set(ids(others))
    people = [f"person {number}" for number in range(5)]
    expected: dict[str, dict[str, int]] = {}
    said: dict[tuple[str, str], tuple[float, int]] = {}
    files: dict[str, bytes] = {}
    kept: list[Label] = []
    late_ids: set[str] = set()
    unknown = repeated = 0
    for number in range(FILES):
        lines = []
        for _ in range(dice.randrange(4)):
            by = dice.choice(people)
            which = dice.random()
            if which < 0.2:
                lines.append(label(dice.getrandbits(128), by=by, sample=dice.choice(ids(others)), rating=1))
                unknown += 1
            elif which < 0.4 and kept:
                lines.append(dice.choice(kept))
                repeated += 1
            else:
                sample = dice.choice(ids(manifest)[:-2])  # nobody judges the last two
                seconds = dice.random() * 1e6
                one = label(dice.getrandbits(128), by=by, seconds=seconds, sample=sample, rating=dice.randint(1, 5))
                lines.append(one)
                kept.append(one)
                if dice.random() < 0.1:
                    late_ids.add(one.id)
                elif seconds > said.get((by, sample), (-1.0, 0))[0]:
                    said[by, sample] = (seconds, int(one.rating or 0))
        files[f"{number}.jsonl"] = file_of(*lines)
    for (by, sample), (_, rating) in said.items():
        expected.setdefault(sample, {})[by] = rating
    closed = RoundClosed(round=3, labels=frozenset(one.id for one in kept if one.id not in late_ids))

    first = settle(manifest, files, closed)
    assert {sample: dict(rating.by) for sample, rating in first.ratings.items()} == expected
    assert (first.unknown, first.repeated) == (unknown, repeated)
    assert {one.id for one in first.late} == late_ids
    assert set(ids(manifest)[-2:]) <= set(first.missing)
    assert set(first.missing) == set(ids(manifest)) - set(expected)
    for _ in range(5):
        names = list(files)
        dice.shuffle(names)
        contents = list(files.values())
        dice.shuffle(contents)  # other names, and so another order of reading
        assert settle(manifest, dict(zip(names, contents, strict=True)), closed) == first


def test_a_persons_later_label_replaces_the_earlier_one_and_equal_times_fall_to_the_id(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    sample = ids(manifest)[0]
    early, late = label(9, sample=sample, rating=1), label(1, seconds=1, sample=sample, rating=4)
    tied = label(2, seconds=1, sample=sample, rating=5)
    for files in ({"a": file_of(early, late), "b": file_of(tied)}, {"a": file_of(tied), "b": file_of(late, early)}):
        settlement = settle(manifest, files)
        assert settlement.ratings[sample].by == {"ada": 5}
        assert settlement.replaced == 2


def test_contradictory_labels_of_several_people_are_averaged(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    one, other = ids(manifest)[:2]
    labels = [
        label(1, sample=one, rating=1),
        label(2, by="ben", sample=one, rating=4),
        label(3, chosen=one, rejected=other),
        label(4, by="ben", chosen=other, rejected=one),
        label(5, by="cleo", chosen=one, rejected=other),
    ]
    settlement = settle(manifest, {"all": file_of(*labels)})
    assert settlement.ratings[one].mean == 2.5
    [choice] = settlement.choices
    share_of_one = choice.share if choice.first == one else 1 - choice.share
    assert share_of_one == pytest.approx(2 / 3)
    assert settlement.equal_choices == pytest.approx(1 / 3)
    assert settlement.people == ("ada", "ben", "cleo")


def test_what_is_taken_back_is_missing_again(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    sample = ids(manifest)[0]
    said = label(1, sample=sample, rating=3)
    back = label(2, seconds=1, sample=sample, rating=3, withdrawn=True)
    settlement = settle(manifest, {"a": file_of(back, said)})
    assert settlement.withdrawn == 1
    assert sample in settlement.missing


def test_two_samples_of_different_prompts_are_not_compared(tmp_path: Path) -> None:
    manifest = made_round(tmp_path, count=1)
    bird, fox = ids(manifest)
    settlement = settle(manifest, {"a": file_of(label(1, chosen=bird, rejected=fox))})
    assert settlement.mismatched == 1
    assert settlement.choices == ()
    assert settlement.missing == (bird, fox)


def test_a_damaged_line_is_named_with_its_place_and_costs_no_other(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    good = label(1, sample=ids(manifest)[0], rating=3).line().encode()
    torn = good[:50]
    twelve = good.replace(b'"rating":3', b'"rating":12')
    files = {"a.jsonl": good + b"\n" + torn + b"\n" + b"\xff\xfe\n" + twelve, "b.jsonl": b"x" * 20_000}
    settlement = settle(manifest, files)
    assert len(settlement.ratings) == 1
    assert [(line.file, line.line) for line in settlement.damaged] == [
        ("a.jsonl", 3),
        ("a.jsonl", 4),
        ("a.jsonl", 5),
        ("b.jsonl", 1),
    ]
    assert "rating" in settlement.damaged[2].why
    assert "longer than" in settlement.damaged[3].why


def test_a_closed_round_settles_the_same_whatever_comes_later(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    sample = ids(manifest)[0]
    folder = tmp_path / round_folder(0) / "labels"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(file_of(label(1, sample=sample, rating=2)))
    before = settled(tmp_path, manifest)
    close_round(tmp_path, manifest, before)
    forged = label(1, seconds=9, sample=sample, rating=5)  # another label under the same id
    (folder / "b.jsonl").write_bytes(file_of(label(2, seconds=5, sample=sample, rating=5), forged))
    after = settled(tmp_path, manifest)
    assert after.ratings == before.ratings
    assert [late.rating for late in after.late] == [5]
    close_round(tmp_path, manifest, after)  # a second time, as a resumed job does
    assert settled(tmp_path, manifest).used == before.used


def test_a_manifest_whose_ids_are_not_those_of_its_pictures_is_refused(tmp_path: Path) -> None:
    manifest = made_round(tmp_path, number=3)
    read = read_round(tmp_path, 3)
    assert read == manifest
    values = manifest.model_dump()
    swapped = [values["samples"][1], values["samples"][0], *values["samples"][2:]]
    for wrong in ({"samples": swapped}, {"round": 4}, {"job": "another"}):
        with pytest.raises(ValidationError, match="has the id of another picture"):
            RoundManifest.model_validate({**values, **wrong})


def test_a_round_is_not_there_before_its_manifest(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    (tmp_path / round_folder(0) / "manifest.json").unlink()
    assert read_round(tmp_path, 0) is None
    assert made_round(tmp_path) == manifest  # written again, as by a job that was interrupted


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"sample": "0" * 32},
        {"rating": 3},
        {"sample": "0" * 32, "rating": 3, "chosen": "1" * 32, "rejected": "2" * 32},
        {"chosen": "1" * 32, "rejected": "1" * 32},
        {"sample": "0" * 32, "rating": 0},
        {"sample": "0" * 32, "rating": 6},
        {"sample": "../../etc", "rating": 3},
    ],
)
def test_a_label_is_either_a_rating_or_a_choice(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        label(1, **wrong)


@pytest.mark.parametrize("name", ["rounds/3/manifest.json", "rounds/0003", "rounds", "other/0003/a", "rounds/+003/a"])
def test_only_the_layouts_own_names_are_rounds(name: str) -> None:
    assert round_of(name) == (3 if name == "rounds/0003" else None)


def test_a_round_is_done_when_as_many_people_as_it_asks_for_have_judged_each_image(tmp_path: Path) -> None:
    manifest = write_round(tmp_path, asked_of_people(people=2), drawn(2))
    everything = [label(n, by="ada", sample=one.id, rating=3) for n, one in enumerate(manifest.samples)]
    one_person = settle(manifest, {"a": file_of(*everything)})
    assert one_person.missing == ()
    assert len(one_person.unfinished) == 4
    others = [label(50 + n, by="ben", sample=one.id, rating=3) for n, one in enumerate(manifest.samples)]
    assert settle(manifest, {"a": file_of(*everything), "b": file_of(*others)}).unfinished == ()


def test_an_image_is_compared_once_both_neighbours_in_its_ring_were_beside_it(tmp_path: Path) -> None:
    manifest = made_round(tmp_path, count=4, prompts=["a fox"])
    items = choice_items(manifest, "ada")
    said = [label(n, chosen=left, rejected=right) for n, (left, right) in enumerate(items)]
    unfinished = [len(settle(manifest, {"a": file_of(*said[:count])}).unfinished) for count in range(5)]
    assert unfinished[0] == unfinished[1] == 4
    assert unfinished[4] == 0
    assert all(count > 0 for count in unfinished[:4])


def test_two_images_of_a_prompt_are_done_with_one_comparison(tmp_path: Path) -> None:
    manifest = made_round(tmp_path, count=2, prompts=["a fox"])
    one, other = ids(manifest)
    assert settle(manifest, {"a": file_of(label(1, chosen=one, rejected=other))}).unfinished == ()


def test_time_is_up_for_those_who_have_begun_and_not_for_those_who_come_later(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    settlement = settle(manifest, {"a": file_of(label(1, seconds=60, sample=ids(manifest)[0], rating=2))})
    minute = timedelta(seconds=60)
    now = START + 3 * minute
    assert settlement.is_enough(START + 2 * minute, now)
    assert not settlement.is_enough(START + 4 * minute, now)
    assert not settlement.is_enough(START + minute, now)  # the first label came when it was over
    assert not settlement.is_enough(None, now)


def test_whoever_closes_a_round_second_gets_the_labels_of_the_first(tmp_path: Path) -> None:
    manifest = made_round(tmp_path)
    folder = tmp_path / round_folder(0) / "labels"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(file_of(label(1, sample=ids(manifest)[0], rating=2)))
    early = settled(tmp_path, manifest)
    (folder / "b.jsonl").write_bytes(file_of(label(2, sample=ids(manifest)[1], rating=4)))
    late = settled(tmp_path, manifest)
    assert len(late.used) == 2
    close_round(tmp_path, manifest, early)
    assert close_round(tmp_path, manifest, late).used == early.used
    Exchange(FolderStore(tmp_path)).close(0)
    assert settled(tmp_path, manifest).used == early.used


def test_other_pictures_under_the_number_of_a_round_are_another_round(tmp_path: Path) -> None:
    first = made_round(tmp_path)
    folder = tmp_path / round_folder(0) / "labels"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(file_of(label(1, sample=ids(first)[0], rating=2)))
    close_round(tmp_path, first, settled(tmp_path, first))
    pictures = [DrawnSample(picture(900 + number), "a bird", number, 0) for number in range(2)]
    other = write_round(tmp_path, asked_of_people()._replace(drawn_by="other weights"), pictures)
    found = settled(tmp_path, other)
    assert found.unknown == 1
    assert len(found.unfinished) == 2
    assert not is_closed(tmp_path, 0)
