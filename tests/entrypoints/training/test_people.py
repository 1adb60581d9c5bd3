"""The reward that people give: held or released, with late, missing and few labels, it is the same run."""

import threading
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

from entrypoints.runtime.stop import WaitsForLabels
from entrypoints.training.reinforcement import people
from entrypoints.training.reinforcement.people import scores_of
from orchestrator.contract.digest import hash_files
from orchestrator.contract.environment import JOB_VARIABLE, WAIT_VARIABLE, Environment
from orchestrator.contract.labels import EXCHANGE_FOLDER, LABELS_FOLDER, Label, RoundManifest, round_folder
from orchestrator.contract.rounds import read_round, settled
from orchestrator.labels.exchange import Exchange
from orchestrator.storage import FolderStore
from tests.labels.made import file_of, label, made_round

START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "POLL_SECONDS", 0.01)
    monkeypatch.setenv(JOB_VARIABLE, "asked-0123456789")


def recipe(**fields: Any) -> Any:
    return tiny.rlhf(rewards=({"name": "human", **fields},), evaluation_prompts=0)


def exchange_of(environment: Environment) -> Path:
    return environment.checkpoints / EXCHANGE_FOLDER


def opinion(index: int) -> int:
    """Return what the test's person thinks of an image, by its place in the round."""
    return 1 + index * 3 % 5


def rate(exchange: Path, number: int, *, every: int = 1, name: str = "ada", at: datetime = START) -> None:
    """Rate each image of a round, or every second, ..., in a file of its own."""
    manifest = read_round(exchange, number)
    assert manifest is not None
    labels = []
    for index, sample in enumerate(manifest.samples):
        if index % every == 0:
            said = label(1000 * number + index, by=name, sample=sample.id, rating=opinion(index))
            labels.append(said.model_copy(update={"at": at}))
    folder = exchange / round_folder(number) / LABELS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_bytes(file_of(*labels))


def rate_when_asked(exchange: Path, rounds: int, ended: threading.Event) -> None:
    """Rate each round as soon as it is there."""
    for number in range(rounds):
        while read_round(exchange, number) is None:
            if ended.wait(0.01):
                return
        rate(exchange, number)


def run_held(environment: Environment, run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(WAIT_VARIABLE, "hold")
    ended = threading.Event()
    person = threading.Thread(target=rate_when_asked, args=(exchange_of(environment), 2, ended))
    person.start()
    try:
        return run(environment)
    finally:
        ended.set()
        person.join()


def test_a_released_job_ends_each_round_and_makes_the_same_adapter_as_one_that_is_held(
    job: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, released = job(recipe(), "held"), job(recipe(), "released")
    events = run_held(held, run, monkeypatch)
    rewards = [event["measures"]["reward"] for event in events if event["event"] == "step"]
    assert rewards == pytest.approx([sum(map(opinion, range(8))) / 8] * 4)

    monkeypatch.setenv(WAIT_VARIABLE, "release")
    for number in range(2):
        with pytest.raises(WaitsForLabels, match=f"Round {number} waits for labels: 0 of 8 images with one"):
            run(released)
        with pytest.raises(WaitsForLabels):  # started again too early: nothing is asked anew
            run(released)
        rate(exchange_of(released), number)
    run(released)
    assert hash_files(released.model) == hash_files(held.model)


def test_labels_that_come_after_a_round_was_used_change_nothing(
    job: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, late = job(recipe(), "early"), job(recipe(), "late")
    run_held(early, run, monkeypatch)
    monkeypatch.setenv(WAIT_VARIABLE, "release")
    with pytest.raises(WaitsForLabels):
        run(late)
    rate(exchange_of(late), 0)
    with pytest.raises(WaitsForLabels, match="Round 1"):
        run(late)
    for folder in late.checkpoints.glob("step-*"):  # as if the machine had been lost before they were copied
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    manifest = read_round(exchange_of(late), 0)
    assert manifest is not None
    contrary = [label(900 + n, by="eve", sample=one.id, rating=5 - n % 5) for n, one in enumerate(manifest.samples)]
    (exchange_of(late) / round_folder(0) / LABELS_FOLDER / "eve.jsonl").write_bytes(file_of(*contrary))
    rate(exchange_of(late), 1)
    run(late)
    assert hash_files(late.model) == hash_files(early.model)
    assert len(settled(exchange_of(late), manifest).late) == 8


def test_after_the_deadline_a_round_goes_on_with_the_labels_it_has_and_waits_on_without_any(
    job: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, "hold")
    environment = job(recipe(label_hours=1e-9))
    with pytest.raises(WaitsForLabels, match="0 of 8 images"):
        run(environment)
    late = datetime.now(UTC)
    rate(exchange_of(environment), 0, every=2, at=late)
    with pytest.raises(WaitsForLabels, match="Round 0 waits for labels: 4 of 8"):
        run(environment)  # nobody had looked at it when time was up
    rate(exchange_of(environment), 0, every=2)
    with pytest.raises(WaitsForLabels, match="Round 1 waits for labels: 0 of 8"):
        run(environment)


def test_pictures_that_are_encoded_otherwise_when_a_job_is_started_again_keep_their_labels(
    job: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, otherwise = job(recipe(), "plain"), job(recipe(), "otherwise")
    run_held(plain, run, monkeypatch)
    monkeypatch.setenv(WAIT_VARIABLE, "release")
    with pytest.raises(WaitsForLabels):
        run(otherwise)
    rate(exchange_of(otherwise), 0)

    def larger(image: Image.Image) -> bytes:  # as another version of the library may do it
        file = BytesIO()
        image.save(file, format="PNG", compress_level=0)
        return file.getvalue()

    monkeypatch.setattr(people, "png_of", larger)
    with pytest.raises(WaitsForLabels, match="Round 1"):
        run(otherwise)
    rate(exchange_of(otherwise), 1)
    run(otherwise)
    assert hash_files(otherwise.model) == hash_files(plain.model)


def test_the_labels_that_a_person_closed_a_round_with_are_used_and_no_others(
    job: Any, run: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, "release")
    environment = job(recipe())
    with pytest.raises(WaitsForLabels):
        run(environment)
    exchange = exchange_of(environment)
    rate(exchange, 0, every=2)
    Exchange(FolderStore(exchange)).close(0)
    rate(exchange, 0, name="late")
    with pytest.raises(WaitsForLabels, match="Round 1"):
        run(environment)
    manifest = read_round(exchange, 0)
    assert manifest is not None
    used = settled(exchange, manifest)
    assert used.people == ("ada",)
    assert len(used.ratings) == 4


def test_the_first_deadline_stays_when_a_job_is_started_again(job: Any, run: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, "release")
    environment = job(recipe(label_hours=2))
    deadlines = []
    for _ in range(2):
        with pytest.raises(WaitsForLabels):
            run(environment)
        manifest = read_round(exchange_of(environment), 0)
        assert manifest is not None
        assert manifest.job == "asked-0123456789"
        deadlines.append(manifest.deadline)
    assert deadlines[0] == deadlines[1]
    assert timedelta(hours=1) < deadlines[0] - datetime.now(UTC) < timedelta(hours=2)


def rounds_and_labels(folder: Path, *labels: Label) -> tuple[RoundManifest, list[float]]:
    manifest = made_round(folder)
    path = folder / round_folder(0) / LABELS_FOLDER
    path.mkdir(exist_ok=True)
    (path / "all.jsonl").write_bytes(file_of(*labels))
    return manifest, scores_of(manifest, settled(folder, manifest))


def test_an_image_without_a_label_counts_as_the_mean_of_its_group(tmp_path: Path) -> None:
    ids = [sample.id for sample in made_round(tmp_path).samples]
    _, scores = rounds_and_labels(
        tmp_path,
        label(1, sample=ids[0], rating=1),
        label(2, by="ben", sample=ids[0], rating=2),
        label(3, sample=ids[1], rating=5),
    )
    assert scores == [1.5, 5, 3.25, 3.25, 3.25, 3.25]  # of the second group nothing is known


def test_comparisons_count_by_the_share_that_an_image_won(tmp_path: Path) -> None:
    ids = [sample.id for sample in made_round(tmp_path).samples]
    _, scores = rounds_and_labels(
        tmp_path,
        label(1, chosen=ids[0], rejected=ids[1]),
        label(2, chosen=ids[0], rejected=ids[2]),
        label(3, chosen=ids[1], rejected=ids[2]),
        label(4, by="ben", chosen=ids[2], rejected=ids[1]),
        label(5, sample=ids[3], rating=2),
    )
    assert scores[:3] == [5, 2, 2]
    assert scores[3:] == [2, 2, 2]
