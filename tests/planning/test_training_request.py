"""The whole request, as plain JSON files that a reviewer can read.

`PYTHONPATH=.:tests/simulator python tests/planning/test_training_request.py` writes them anew.
"""

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sagemaker_simulator import complaint

from orchestrator.aws.instances import instances
from orchestrator.contract.environment import INPUTS_VARIABLE, PRICE_VARIABLE, START_PROGRAM
from orchestrator.planning.placement import find_placement
from orchestrator.planning.training_request import JobInputs, SageMakerContext, output_uri, training_job
from orchestrator.requests import NO_PROFILER, Request, moved, own_tags, sent_members
from orchestrator.resources import BUILTIN_MODEL, SAMPLE_IMAGES
from orchestrator.settings import AwsSettings
from orchestrator.specs.building import build_spec

SNAPSHOTS = Path(__file__).parent / "snapshots"
IDENTITY = "0123456789abcdef" * 4
ACCOUNT = AwsSettings(
    region="us-east-1",
    account_id="123456789012",
    bucket="orchestrator-123456789012-us-east-1",
    role_arn="arn:aws:iam::123456789012:role/orchestrator-job",
    training_image="123456789012.dkr.ecr.us-east-1.amazonaws.com/orchestrator-training:0.1.0",
)
SECURED = ACCOUNT.model_copy(
    update={
        "kms_key_arn": "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555",
        "subnets": ("subnet-0a", "subnet-0b"),
        "security_groups": ("sg-0c",),
    }
)
CODE = f"s3://b/code/{'c' * 64}/"
HUB = {
    "images": SAMPLE_IMAGES,
    "prompt": "a photo of sks dog",
    "base_model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}


def request(
    account: AwsSettings = ACCOUNT,
    *,
    brings_model: bool = True,
    owner: str = "ada",
    recipe: str = "dreambooth",
    **fields: Any,
) -> Request:
    spec = build_spec({"recipe": recipe, **fields})
    inputs = JobInputs(
        identity=IDENTITY,
        data={"training": f"s3://{account.bucket}/data/{'d' * 64}/"},
        base_model=f"s3://{account.bucket}/models/{'e' * 64}/" if brings_model else None,
        bundle=f"s3://{account.bucket}/code/{'c' * 64}/",
        output=output_uri(account, spec, IDENTITY),
    )
    return training_job(
        spec, inputs, SageMakerContext(account=account, placement=find_placement(spec, account.region), owner=owner)
    )


def cases() -> dict[str, Request]:
    two_hosts = {"instance_type": "ml.p4d.24xlarge", "instance_count": 2, "retry_attempts": 0}
    return {
        "on-demand": request(),
        "spot-within-a-budget": request(name="my-dog", compute={"spot": True}, budget={"max_usd": 3}, **HUB),
        "two-hosts-in-a-vpc-with-a-key": request(SECURED, compute=two_hosts, **HUB),
        "model-from-the-hub": request(brings_model=False, **HUB),
        "textual-inversion": request(recipe="textual-inversion", compute={"instance_type": "ml.g5.2xlarge"}),
    }


@pytest.mark.parametrize("name", cases())
def test_the_request_is_the_one_that_was_reviewed(name: str) -> None:
    assert cases()[name] == json.loads((SNAPSHOTS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", cases())
def test_the_service_has_nothing_against_the_request(name: str) -> None:
    assert complaint(cases()[name]) is None


@pytest.mark.parametrize("name", cases())
def test_all_that_a_request_holds_is_sent_again_when_its_job_is_resumed(name: str) -> None:
    made = cases()[name]
    tags = {tag["Key"]: tag["Value"] for tag in made["Tags"]}
    assert {**sent_members(made), **NO_PROFILER, "Tags": own_tags(tags)} == made


def test_the_profiler_is_off() -> None:
    assert request()["ProfilerConfig"] == {"DisableProfiler": True}


def test_no_volume_is_ordered_where_the_disk_is_built_in() -> None:
    for name in instances():
        assert "VolumeSizeInGB" not in request(compute={"instance_type": name})["ResourceConfig"]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"TrainingJobName": "a--" * 30},
        {"RoleArn": "orchestrator-job"},
        {"HyperParameters": {"steps": "1" * 2501}},
        {"Tags": [{"Key": "owner", "Value": "<b>"}]},
        {"ResourceConfig": {"InstanceType": "ml.g5.xlarg", "InstanceCount": 1}},
        {"ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10_000}},
        {"RetryStrategy": {"MaximumRetryAttempts": 31}},
        {"StoppingCondition": {"MaxRuntimeInSeconds": 0}},
        {"Colour": "red"},
    ],
    ids=lambda spoilt: next(iter(spoilt)),
)
def test_a_spoilt_request_is_found_out(spoilt: Request) -> None:
    assert complaint({**request(), **spoilt}) is not None


def test_a_request_for_this_machine_is_the_one_for_the_service_without_the_service() -> None:
    spec = build_spec({"recipe": "dreambooth"})
    inputs = JobInputs(
        identity=IDENTITY,
        data={"training": "file:///d"},
        base_model="file:///m",
        bundle="file:///c",
        output="file:///o",
    )
    local = training_job(spec, inputs)
    assert set(local) == {
        *("TrainingJobName", "AlgorithmSpecification", "HyperParameters"),
        *("InputDataConfig", "OutputDataConfig", "Tags"),
    }
    assert local["HyperParameters"] == request()["HyperParameters"]
    assert local["TrainingJobName"] == request()["TrainingJobName"]


def test_the_image_checks_every_input_before_it_starts_the_job() -> None:
    made = request()
    assert made["AlgorithmSpecification"]["ContainerEntrypoint"] == [
        START_PROGRAM,
        "python",
        "-m",
        "entrypoints.launch",
    ]
    checked = dict(pair.split("=") for pair in made["Environment"][INPUTS_VARIABLE].split())
    assert checked == {"training": "d" * 64, "base_model": "e" * 64, "code": "c" * 64}
    assert set(checked) == {channel["ChannelName"] for channel in made["InputDataConfig"]}


@pytest.mark.parametrize("channel", ["training", "base_model", "code", "scorer"])
@pytest.mark.parametrize("name", ["latest", "d" * 63, "D" * 64, f"{'d' * 64}/latest", ""])
def test_no_job_reads_what_nobody_can_check(channel: str, name: str) -> None:
    spec = build_spec({"recipe": "dreambooth"})
    uris = {"training": CODE, "base_model": CODE, "code": CODE, "scorer": CODE, channel: f"s3://b/models/{name}/"}
    inputs = JobInputs(
        identity=IDENTITY,
        data={"training": uris["training"]},
        base_model=uris["base_model"],
        scorer=uris["scorer"],
        bundle=uris["code"],
        output="s3://b/o",
    )
    context = SageMakerContext(account=ACCOUNT, placement=find_placement(spec, "us-east-1"), owner="ada")
    with pytest.raises(ValueError, match=channel):
        training_job(spec, inputs, context)


def test_the_code_is_found_where_its_channel_lies() -> None:
    made = request()
    assert made["Environment"]["PYTHONPATH"] == "/opt/ml/input/data/code"
    assert "code" in [channel["ChannelName"] for channel in made["InputDataConfig"]]


def test_equal_work_shares_checkpoints_on_every_instance_and_nothing_else_does() -> None:
    places = {
        json.dumps(request(compute={"instance_type": name})["CheckpointConfig"])
        for name in ("ml.g5.xlarge", "ml.g6.xlarge")
    }
    assert places == {
        json.dumps({"S3Uri": f"s3://{ACCOUNT.bucket}/checkpoints/{IDENTITY}/", "LocalPath": "/opt/ml/checkpoints"})
    }


def test_a_job_that_brings_its_model_is_cut_off_from_the_network() -> None:
    brings, fetches = request(), request(brings_model=False, **HUB)
    assert (brings["EnableNetworkIsolation"], fetches["EnableNetworkIsolation"]) == (True, False)
    assert "HF_HUB_OFFLINE" not in fetches["Environment"]
    assert request(compute={"network_isolation": False})["EnableNetworkIsolation"] is False


def test_a_mirrored_model_is_named_by_its_commit() -> None:
    spec = build_spec({"recipe": "dreambooth", **HUB})
    inputs = JobInputs(identity=IDENTITY, data={}, base_model="s3://b/m", commit="c" * 40, bundle="b", output="o")
    assert json.loads(training_job(spec, inputs)["HyperParameters"]["base_revision"]) == "c" * 40


def test_a_job_knows_the_price_of_its_own_instances() -> None:
    cheap, dear = (request(compute={"instance_type": name}) for name in ("ml.g5.xlarge", "ml.g5.12xlarge"))
    prices = [Decimal(one["Environment"][PRICE_VARIABLE]) for one in (cheap, dear)]
    assert 0 < prices[0] < prices[1]
    assert moved(cheap, dear)["Environment"] == dear["Environment"]
    unknown = {**dear, "Environment": {}}  # of a type without a listed price
    assert PRICE_VARIABLE not in moved(cheap, unknown)["Environment"]


def test_traffic_between_hosts_is_encrypted_when_there_is_any() -> None:
    alone, together = request(), request(compute={"instance_count": 2})
    assert not alone["EnableInterContainerTrafficEncryption"]
    assert together["EnableInterContainerTrafficEncryption"]


def test_a_disk_that_is_built_in_is_given_no_key_of_ours() -> None:
    # the documentation of ResourceConfig: no VolumeKmsKeyId for types with local storage
    assert "VolumeKmsKeyId" not in request(SECURED)["ResourceConfig"]
    spec = build_spec({"recipe": "dreambooth"})
    placed = find_placement(spec, "us-east-1")
    bare = placed.model_copy(update={"instance": placed.instance.model_copy(update={"disk_gb": None})})
    inputs = JobInputs(
        identity=IDENTITY,
        data={"training": f"s3://b/data/{'d' * 64}/"},
        base_model=None,
        bundle=CODE,
        output="s3://b/o",
    )
    made = training_job(spec, inputs, SageMakerContext(account=SECURED, placement=bare, owner="ada"))
    assert made["ResourceConfig"]["VolumeKmsKeyId"] == SECURED.kms_key_arn
    assert made["ResourceConfig"]["VolumeSizeInGB"] == 50


@pytest.mark.parametrize("name", ["model", "builtin", "org"])
def test_where_a_base_model_lies_is_not_told(tmp_path: Path, name: str) -> None:
    places = [tmp_path / "home of ada" / name, tmp_path / "home of bo" / name]
    for place_of_model in places:
        shutil.copytree(BUILTIN_MODEL, place_of_model)
    one, other = (request(base_model=str(place_of_model)) for place_of_model in places)
    assert one == other
    assert json.loads(one["HyperParameters"]["base_model"]) == f"./{name}"


@pytest.mark.parametrize("owner", ["DOMAIN\\ada", "ada <a@b.c>", "Æda ☃ Łovelace", "a" * 300, "x\ny\x1b"])
def test_whatever_a_person_is_called_makes_a_tag(owner: str) -> None:
    assert complaint(request(owner=owner)) is None


if __name__ == "__main__":
    for name, made in cases().items():
        (SNAPSHOTS / f"{name}.json").write_text(json.dumps(made, indent=2) + "\n")
