"""`--target container` and the image it needs, on the command line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.errors import SpecError
from orchestrator.requests import runs_in_container
from orchestrator.settings import Settings


@pytest.mark.usefixtures("settings")
def test_a_dry_run_shows_the_request_and_asks_no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["submit", "dreambooth", "--target", "container", "-s", "compute.instance_count=2", "--dry-run", "--json"]
    shown = CliRunner().invoke(cli, words)
    request = json.loads(shown.stdout)
    assert runs_in_container(request)
    assert request["ResourceConfig"]["InstanceCount"] == 2


@pytest.mark.parametrize(("target", "refused"), [("container", "--spot"), ("local", "-s compute.instance_count")])
@pytest.mark.usefixtures("settings")
def test_what_a_target_would_ignore_is_refused(target: str, refused: str) -> None:
    words = ["submit", "dreambooth", "--target", target, *(["--spot", "-s", "compute.instance_count=2"])]
    failed = CliRunner().invoke(cli, words)
    assert isinstance(failed.exception, SpecError)
    assert refused in failed.exception.message
    assert ("instance_count" in failed.exception.message) == (target == "local")


@pytest.mark.parametrize("words", [["sweep", "dreambooth", "-s", "rank=2,4"], ["submit", "dreambooth"]])
def test_nothing_is_stored_for_a_job_that_this_machine_cannot_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = CliRunner().invoke(cli, [*words, "--target", "container"])
    assert "needs docker" in str(failed.exception)
    assert not settings.store.exists()


def test_an_image_without_cuda_is_for_this_machine_alone() -> None:
    failed = CliRunner().invoke(cli, ["infra", "image", "--cpu"])
    assert failed.exit_code != 0
    assert "--build-only" in failed.output
