"""From a job that asks people to its adapter: it ends, they label on the page, and it goes on by itself."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from orchestrator.jobs.exchanges import exchange_of
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.process import ProcessTarget
from tests.cli.run_here import run_here
from tests.labels.served import Served

NAME = "asked"
SETTINGS = {
    "rewards": '["human"]',
    "rounds": "2",
    "prompts_per_round": "1",
    "group_size": "2",
    "batch_size": "2",
    "updates": "1",
    "inner_epochs": "1",
    "sampler_steps": "3",
    "inference_steps": "3",
    "held_out_prompts": "0",
    "evaluation_prompts": "0",
}


def rate_all(link: str) -> int:
    """Rate all that the page asks, by the calls that it makes, and return the number of its round."""
    address = httpx.URL(link)
    origin = str(address.copy_with(path="/", query=None)).rstrip("/")
    with httpx.Client(base_url=origin, headers={"Origin": origin}, trust_env=False, timeout=30) as client:
        assert client.get(link).status_code == 200
        work = client.get("/api/work?by=ada").json()
        for number, (sample,) in enumerate(work["items"]):
            said = {"id": f"{number:032x}", "by": "ada", "round": work["round"], "rating": 1 + number}
            answer = client.post("/api/labels", json={**said, "sample": sample})
            assert answer.status_code == 200, answer.text
    return int(work["round"])


def wait_until(holds: Callable[[], bool]) -> None:
    """Return once something holds; fails after two minutes."""
    ends = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_job_waits_for_people_without_running_and_goes_on_when_they_have_labelled(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = run_here(monkeypatch, capsys)
    words = ["submit", "rlhf", "--name", NAME]
    for name, value in SETTINGS.items():
        words += ["-s", f"{name}={value}"]
    submitted = run(*words)
    assert submitted.code != 0
    assert "Round 0 waits for labels: 0 of 2 images with one" in submitted.output
    assert "label asked" in submitted.output
    target = ProcessTarget(settings)
    (job,) = target.names()
    assert target.describe(job).status is JobStatus.STOPPED
    early = run("jobs", "retry", NAME)
    assert "waits for labels of 2 images of round 0" in early.errors
    again = run(*words)
    assert "waits for labels of 2 images of round 0" in again.errors  # what it has drawn is not thrown away

    explained = run("jobs", "explain", NAME)
    assert "The job goes on when its images are labelled" in explained.output

    with Served(NAME, "--by", "ada", "--no-browser") as served:  # the page stays open: the next round comes to it
        exchange = exchange_of(target, job)
        for number in range(2):
            wait_until(lambda wanted=number: exchange.newest() == wanted)  # type: ignore[misc]
            assert rate_all(served.links["ada"]) == number
        wait_until(lambda: target.describe(job).status is JobStatus.COMPLETED)
    assert target.describe(job).status is JobStatus.COMPLETED

    pairs = tmp_path / "pairs"
    exported = json.loads(run("label", NAME, "--export", str(pairs), "--json").output)
    assert exported == {"pairs": 2, "pictures": 4}
    planned = run("submit", "rlhf", "-s", "algorithm=dpo", "--images", str(pairs), "--dry-run")
    assert planned.code == 0, planned.errors
