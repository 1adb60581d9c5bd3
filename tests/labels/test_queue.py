"""Labels that come through the account's queue: nothing is lost, and nothing counts twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws.client import Aws
from orchestrator.contract.labels import ROUND_MANIFEST_FILE, Label, LabelMessage, RoundManifest, round_folder
from orchestrator.labels import queue as queue_module
from orchestrator.labels.exchange import Exchange, exchange_in
from orchestrator.labels.queue import LabelQueue
from tests.labels.made import label, made_round


@pytest.fixture
def url(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(queue_module, "_WAIT_SECONDS", 0)
    monkeypatch.setattr(queue_module, "_HIDDEN_SECONDS", 0)  # what is left comes back at once
    return str(aws.client("sqs").create_queue(QueueName="labels")["QueueUrl"])


@pytest.fixture
def send(aws: Aws, url: str) -> Callable[..., None]:
    def sending(body: str) -> None:
        aws.client("sqs").send_message(QueueUrl=url, MessageBody=body)

    return sending


def message(manifest: RoundManifest, *labels: Label, **other: Any) -> str:
    values = {"job": manifest.job, "round": manifest.round, "labels": labels, **other}
    return LabelMessage.model_validate(values).model_dump_json(exclude_defaults=True)


def waiting(aws: Aws, url: str) -> int:
    answer = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def found_in(folder: Path) -> Callable[[str], Exchange | None]:
    return lambda job: exchange_in(folder) if job == "job" else None


def test_a_damaged_round_keeps_no_other_message_from_being_stored(
    aws: Aws, url: str, send: Callable[[str], None], tmp_path: Path
) -> None:
    manifest = made_round(tmp_path)
    damaged = tmp_path / round_folder(7) / ROUND_MANIFEST_FILE
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    given = label(1, sample=manifest.samples[0].id, rating=5)
    send(message(manifest, given, round=7))
    send(message(manifest, given))
    collected = LabelQueue(aws, url).collect(found_in(tmp_path))
    assert (collected.messages, len(collected.left)) == (1, 1)


def test_labels_are_stored_in_the_round_of_their_job_and_then_deleted(
    aws: Aws, url: str, send: Callable[[str], None], tmp_path: Path
) -> None:
    manifest = made_round(tmp_path)
    first, second = (sample.id for sample in manifest.samples[:2])
    send(message(manifest, label(1, sample=first, rating=5), label(2, by="ben", sample=second, rating=1)))
    send(message(manifest, label(3, sample="0" * 32, rating=3)))
    collected = LabelQueue(aws, url).collect(found_in(tmp_path))
    assert collected == (2, 3, ())
    settlement = exchange_in(tmp_path).settled(0)
    assert {sample: rating.mean for sample, rating in settlement.ratings.items()} == {first: 5, second: 1}
    assert settlement.unknown == 1
    assert waiting(aws, url) == 0


def test_a_kill_between_storing_and_deleting_loses_nothing_and_counts_once(
    aws: Aws, url: str, send: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = made_round(tmp_path)
    send(message(manifest, label(1, sample=manifest.samples[0].id, rating=5)))

    def killed(*_words: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LabelQueue, "_delete", killed)
        with pytest.raises(KeyboardInterrupt):
            LabelQueue(aws, url).collect(found_in(tmp_path))
    assert len(exchange_in(tmp_path).settled(0).ratings) == 1
    assert waiting(aws, url) == 1
    LabelQueue(aws, url).collect(found_in(tmp_path))
    settlement = exchange_in(tmp_path).settled(0)
    assert (len(settlement.ratings), settlement.repeated) == (1, 0)
    assert waiting(aws, url) == 0


def test_a_kill_before_storing_leaves_the_message(
    aws: Aws, url: str, send: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = made_round(tmp_path)
    send(message(manifest, label(1, sample=manifest.samples[0].id, rating=5)))

    def killed(*_words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Exchange, "put_labels", killed)
    with pytest.raises(KeyboardInterrupt):
        LabelQueue(aws, url).collect(found_in(tmp_path))
    assert waiting(aws, url) == 1


def test_what_cannot_be_stored_stays_and_is_named(
    aws: Aws, url: str, send: Callable[[str], None], tmp_path: Path
) -> None:
    manifest = made_round(tmp_path)
    rated = label(1, sample=manifest.samples[0].id, rating=5)
    send("[10, -10]")  # rewards by their position, of nobody knows which round
    send(message(manifest, rated, job="another"))
    send(message(manifest, rated, round=9))
    send(json.dumps({"job": "job", "round": 0, "labels": [{"sample": "x", "rating": 99}]}))
    send(message(manifest, rated))
    collected = LabelQueue(aws, url).collect(found_in(tmp_path))
    assert (collected.messages, collected.labels) == (1, 1)
    reasons = [problem.what.partition(":")[0] for problem in collected.left]
    assert sorted(reasons) == [
        f"There is no round 9 in {tmp_path}; those that are complete",
        "it holds no labels",
        "it holds no labels",
        "there is no job another",
    ]
    assert waiting(aws, url) == 4
