import json
from pathlib import Path

import pytest

from orchestrator.errors import MachineError
from orchestrator.settings import AwsSettings, Settings, owner, typed_path

NOTED = {
    "region": "eu-west-1",
    "account_id": "123456789012",
    "bucket": "a-bucket",
    "role_arn": "arn:aws:iam::123456789012:role/job",
    "training_image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/orchestrator-training:1",
}


@pytest.fixture
def noted(settings: Settings) -> Settings:
    settings.home.mkdir(parents=True)
    settings.aws_file.write_text(json.dumps(NOTED))
    return settings


def test_before_infra_up_there_is_no_account(settings: Settings) -> None:
    assert settings.aws() is None


def test_what_infra_up_noted_is_read(noted: Settings) -> None:
    account = noted.aws()
    assert account is not None
    assert account.model_dump(include=set(NOTED)) == NOTED


def test_a_variable_comes_before_the_file(noted: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TRAINING_IMAGE", "another")
    monkeypatch.setenv("ORCHESTRATOR_SUBNETS", "subnet-1, subnet-2")
    monkeypatch.setenv("ORCHESTRATOR_SECURITY_GROUPS", "sg-1")
    account = noted.aws()
    assert account is not None
    assert (account.training_image, account.subnets) == ("another", ("subnet-1", "subnet-2"))
    assert account.bucket == "a-bucket"


def test_variables_alone_are_enough(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NOTED.items():
        monkeypatch.setenv(f"ORCHESTRATOR_{name.upper()}", value)
    assert settings.aws() == AwsSettings.model_validate(NOTED)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"region": "eu-west-1"}', '{"bucket": 3}', "\x00"])
def test_settings_that_cannot_be_used_are_one_error_with_a_next_step(settings: Settings, text: str) -> None:
    settings.home.mkdir(parents=True)
    settings.aws_file.write_text(text)
    with pytest.raises(MachineError, match=r"aws\.json") as raised:
        settings.aws()
    assert "infra show" in raised.value.next_step


@pytest.mark.parametrize(
    ("field", "value"),
    [("REGION", "Ireland"), ("ACCOUNT_ID", "12"), ("BUCKET", "s3://a"), ("ROLE_ARN", "job"), ("SUBNETS", "subnet-1")],
)
def test_a_variable_in_the_wrong_shape_is_named(
    noted: Settings, monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    monkeypatch.setenv(f"ORCHESTRATOR_{field}", value)
    with pytest.raises(MachineError) as raised:
        noted.aws()
    assert field.lower() in raised.value.render()


def test_a_plan_without_an_account_has_settings_in_the_right_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert AwsSettings.placeholder().region == "eu-north-1"
    assert AwsSettings.placeholder("us-west-2").bucket.endswith("us-west-2")


def test_the_owner_is_whom_the_variable_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert owner()
    monkeypatch.setenv("ORCHESTRATOR_OWNER", "ci")
    assert owner() == "ci"


@pytest.mark.parametrize("path", ["~nobody-of-that-name", "~nobody-of-that-name/x", "loop/x"])
def test_a_path_that_cannot_be_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(MachineError) as raised:
        typed_path(path)
    assert raised.value.message.endswith(".")
    assert not raised.value.message.endswith("..")
    assert "determine" not in raised.value.message
