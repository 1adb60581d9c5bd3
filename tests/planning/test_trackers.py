"""A service that is to follow a job is refused before anything is stored where it cannot; its key travels nowhere."""

import json
import sys
from pathlib import Path

import pytest

from orchestrator.contract.trackers import tracker_fault
from orchestrator.errors import SpecError
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.planning.plan import plan_here
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.building import build_spec
from tests.planned import planned

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have both packages, empty ones, and no key."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in ("wandb", "mlflow"):
        (folder / f"{name}.py").touch()
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def plan(settings: Settings, *trackers: str) -> str:
    spec = build_spec({"recipe": "dreambooth", "settings": {"trackers": list(trackers)}})
    return json.dumps(plan_here(spec, settings, PreparedInputs()).request)


def test_what_is_there_is_planned_and_the_key_is_no_part_of_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    request = plan(settings, "wandb", "mlflow")
    assert "mlflow" in request
    assert KEY not in request


def test_all_that_is_missing_is_told_at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SpecError) as raised:
        plan(settings, "wandb", "mlflow")
    told = [(problem.what, problem.fix) for problem in raised.value.problems]
    assert told == [
        ("wandb cannot be used: no key is known (WANDB_API_KEY, or what `wandb login` saves)", "wandb login"),
        ("mlflow cannot be used: its package is not installed (module mlflow)", "pip install mlflow-skinny"),
    ]


def test_a_job_on_sagemaker_takes_no_key_along(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    spec = build_spec({"recipe": "dreambooth", "settings": {"trackers": ["wandb"]}})
    with pytest.raises(SpecError, match="cannot be followed") as raised:
        planned(spec, settings, AwsSettings.placeholder())
    assert "TensorBoard" in raised.value.problems[0].fix


@pytest.mark.parametrize(
    ("site", "content", "is_known"),
    [
        (None, "machine api.wandb.ai login user password x\n", True),
        (None, "machine wandb.example.org login user password x\n", False),
        ("https://wandb.example.org:8443/", "machine wandb.example.org login user password x\n", True),
        (None, "not a netrc", False),
        (None, None, False),
    ],
)
def test_a_key_is_found_where_wandb_saves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str | None, content: str | None, is_known: bool
) -> None:
    if site is not None:
        monkeypatch.setenv("WANDB_BASE_URL", site)
    if content is not None:
        (tmp_path / "netrc").write_text(content)
    assert (tracker_fault("wandb") is None) == is_known


def test_wandb_needs_no_key_where_it_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tracker_fault("wandb") is None
