"""The real template in a mocked account: made, made again, shown, removed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID

from orchestrator.aws.client import Aws
from orchestrator.container_images import image_tag
from orchestrator.contract import checkpoints
from orchestrator.contract.labels import EXCHANGE_FOLDER, ROUND_MANIFEST_FILE, round_folder
from orchestrator.errors import AccountError, EndpointError, JobError, MissingError, SpecError
from orchestrator.infra import account as infra
from orchestrator.infra import emptying
from orchestrator.infra.builds import PREFIX
from orchestrator.infra.stack import StackEvent
from orchestrator.resources import STACK_TEMPLATE
from orchestrator.settings import AwsSettings, Settings
from tests.stand_ins.docker import DockerStandIn
from tests.template import template as read_template

# moto makes no bucket policies; the template's own is looked at below
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS..S3..BucketPolicy")


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with mock_aws():
        yield


@pytest.fixture(scope="module")
def aws() -> Aws:
    """One session for all tests: its clients, which are slow to make, reach whatever mock is in force."""
    return Aws("eu-west-1")


class Reported(list[StackEvent]):
    def __call__(self, event: StackEvent) -> None:
        self.append(event)


def up(aws: Aws, settings: Settings, **wanted: str) -> tuple[AwsSettings, Reported]:
    reported = Reported()
    return infra.up(aws, settings, wanted, report=reported), reported


def put_adapter(aws: Aws, account: AwsSettings, versions: int = 2) -> None:
    # moto leaves this property of a bucket out when it makes a stack
    aws.client("s3").put_bucket_versioning(Bucket=account.bucket, VersioningConfiguration={"Status": "Enabled"})
    for version in range(versions):
        key = "adapters/dog/dog-0123456789/output/model/adapter.json"
        aws.client("s3").put_object(Bucket=account.bucket, Key=key, Body=str(version).encode())


def buckets(aws: Aws) -> list[str]:
    return [bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]]


def test_the_stack_is_made_and_its_outputs_are_this_machines_settings(aws: Aws, settings: Settings) -> None:
    account, reported = up(aws, settings)
    assert settings.aws() == account
    assert account.account_id == DEFAULT_ACCOUNT_ID
    assert account.region == "eu-west-1"
    assert buckets(aws) == [account.bucket]
    assert aws.client("iam").get_role(RoleName=account.role_arn.rpartition("/")[2])["Role"]["Arn"] == account.role_arn
    registry = f"{DEFAULT_ACCOUNT_ID}.dkr.ecr.eu-west-1.amazonaws.com"
    assert account.training_image == f"{registry}/orchestrator-training:{image_tag()}"
    assert reported


def test_every_resource_is_told_of_once(aws: Aws, settings: Settings) -> None:
    _, reported = up(aws, settings)
    assert reported[-1].resource == "orchestrator"
    assert reported[-1].status == "CREATE_COMPLETE"
    assert len({(event.at, event.resource, event.status) for event in reported}) == len(reported)


def test_saying_it_twice_changes_nothing(aws: Aws, settings: Settings) -> None:
    first, _ = up(aws, settings)
    noted = settings.aws_file.read_bytes()
    second, reported = up(aws, settings)
    assert (first, noted, []) == (second, settings.aws_file.read_bytes(), reported)
    assert aws.client("cloudformation").list_change_sets(StackName="orchestrator")["Summaries"] == []


def test_what_was_set_before_stays_when_it_is_not_said_again(aws: Aws, settings: Settings) -> None:
    up(aws, settings, Subnets="subnet-1,subnet-2", SecurityGroups="sg-1")
    account, _ = up(aws, settings, LogDays="30")
    assert account.subnets == ("subnet-1", "subnet-2")
    assert account.security_groups == ("sg-1",)


def test_a_log_group_that_is_there_already_is_left_alone(aws: Aws, settings: Settings) -> None:
    aws.client("logs").create_log_group(logGroupName=infra.LOG_GROUP)
    up(aws, settings)
    parameters = aws.client("cloudformation").describe_stacks(StackName="orchestrator")["Stacks"][0]["Parameters"]
    assert {"ParameterKey": "LogGroup", "ParameterValue": "leave"} in parameters


def test_the_bucket_is_encrypted_with_the_stacks_key(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    s3 = aws.client("s3")
    rule = s3.get_bucket_encryption(Bucket=account.bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == account.kms_key_arn


def test_show_notes_the_settings_on_another_machine(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    settings.aws_file.unlink()
    assert infra.show(aws, settings) == account == settings.aws()


def test_there_is_nothing_to_show_before_it_is_made(aws: Aws, settings: Settings) -> None:
    with pytest.raises(MissingError) as raised:
        infra.show(aws, settings)
    assert "infra up" in raised.value.next_step
    assert not settings.aws_file.exists()


@pytest.mark.parametrize("name", ["Mine", "a b", "", "1st", "a" * 41])
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(aws: Aws, settings: Settings, name: str) -> None:
    with pytest.raises(SpecError, match="not a valid name"):
        infra.up(aws, settings, {}, name=name, report=Reported())
    assert aws.client("cloudformation").list_stacks()["StackSummaries"] == []


def test_down_keeps_a_bucket_with_adapters_and_everything_else(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    put_adapter(aws, account)
    with pytest.raises(AccountError, match=r"dog \(1 in all\)") as raised:
        infra.down(aws, settings, report=Reported())
    assert "--delete-adapters" in raised.value.next_step
    assert infra.show(aws, settings) == account
    assert aws.client("s3").list_objects_v2(Bucket=account.bucket)["KeyCount"] == 1


def test_down_deletes_every_version_when_told_to(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    put_adapter(aws, account)
    s3 = aws.client("s3")
    s3.put_object(Bucket=account.bucket, Key="data/x", Body=b"")
    s3.delete_object(Bucket=account.bucket, Key="data/x")  # leaves a version and a marker
    s3.create_multipart_upload(Bucket=account.bucket, Key="data/large")
    removal = infra.down(aws, settings, delete_adapters=True, report=Reported())
    assert (removal.removed, removal.objects) == (True, 4)
    assert buckets(aws) == []
    assert settings.aws() is None
    assert any("30 days" in left for left in removal.left)


def test_down_without_adapters_needs_no_word_and_can_be_said_twice(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    by_products = ("adapters/dog/dog-1/output/data/report.html", "adapters/dog/dog-1/tensorboard-output/events")
    for key in ("data/x", *by_products):  # a job that failed leaves these, and no adapter
        aws.client("s3").put_object(Bucket=account.bucket, Key=key, Body=b"")
    assert infra.down(aws, settings, report=Reported()).removed
    again = infra.down(aws, settings, report=Reported())
    assert (again.removed, again.left) == (False, ())


def test_down_forgets_no_other_stack(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    assert not infra.down(aws, settings, name="orchestrater", report=Reported()).removed
    assert not infra.down(Aws("us-east-1"), settings, report=Reported()).removed
    assert settings.aws() == account


def test_more_versions_than_one_request_can_delete(
    aws: Aws, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emptying, "_AT_ONCE", 3)
    account, _ = up(aws, settings)
    put_adapter(aws, account, versions=8)
    assert infra.down(aws, settings, delete_adapters=True, report=Reported()).objects == 8


def training_job(aws: Aws, account: AwsSettings, status: str) -> Any:
    """Make a job of this stack, and return it as moto keeps it."""
    from moto.sagemaker.models import sagemaker_backends

    aws.client("sagemaker").create_training_job(
        TrainingJobName="dog-1",
        RoleArn=account.role_arn,
        AlgorithmSpecification={"TrainingImage": "i", "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://b/o"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    job = sagemaker_backends[DEFAULT_ACCOUNT_ID]["eu-west-1"].training_jobs["dog-1"]
    job.training_job_status = status
    return job


def test_down_refuses_while_jobs_run(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    job = training_job(aws, account, "InProgress")
    with pytest.raises(JobError, match="dog-1"):
        infra.down(aws, settings, report=Reported())
    job.role_arn = "arn:aws:iam::123456789012:role/somebody-else"
    assert infra.down(aws, settings, report=Reported()).removed


def test_down_refuses_while_an_endpoint_is_billed(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    sagemaker = aws.client("sagemaker")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=account.role_arn, PrimaryContainer={"Image": "i"})
    variant = {
        "VariantName": "v",
        "ModelName": "m",
        "InstanceType": "ml.g4dn.xlarge",
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1.0,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="theirs", EndpointConfigName="c")
    sagemaker.create_endpoint(
        EndpointName="dogs", EndpointConfigName="c", Tags=[{"Key": "orchestrator:endpoint", "Value": "dogs"}]
    )
    with pytest.raises(EndpointError, match="need this stack: dogs") as caught:
        infra.down(aws, settings, report=Reported())
    assert caught.value.next_step.endswith("endpoints delete dogs")
    sagemaker.delete_endpoint(EndpointName="dogs")
    assert infra.down(aws, settings, report=Reported()).removed


def test_down_waits_until_a_job_that_is_stopping_has_written_its_last(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    job = training_job(aws, account, "Stopping")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert buckets(aws) == [account.bucket]
        if len(pauses) == 3:
            job.training_job_status = "Stopped"

    reported = Reported()
    assert infra.down(aws, settings, report=reported, pause=pause).removed
    assert len(pauses) == 3
    assert [event.resource for event in reported if event.kind == "training job"] == ["dog-1"]


def test_down_gives_up_on_a_job_that_does_not_end_and_deletes_nothing(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    training_job(aws, account, "Stopping")
    pauses: list[float] = []
    with pytest.raises(JobError, match="do not end: dog-1") as raised:
        infra.down(aws, settings, report=Reported(), pause=pauses.append)
    assert raised.value.next_step == "python -m orchestrator jobs wait dog-1"
    assert 300 < sum(pauses) < 3600
    assert buckets(aws) == [account.bucket]


@pytest.mark.parametrize("region", ["eu-north-1", "eu-central-2", "ap-northeast-3", "me-central-1", "af-south-1"])
def test_where_cloudformation_has_no_budgets_an_alarm_is_refused_and_the_rest_is_made(
    settings: Settings, region: str
) -> None:
    aws = Aws(region)
    with pytest.raises(SpecError, match=f"no budgets in {region}") as raised:
        up(aws, settings, AlarmEmail="me@example.org")
    assert "https://" in raised.value.next_step
    assert aws.client("cloudformation").list_stacks()["StackSummaries"] == []
    account, _ = up(aws, settings)
    assert account.region == region
    body = aws.client("cloudformation").get_template(StackName="orchestrator")["TemplateBody"]
    assert "AWS::Budgets::Budget" not in str(body)


@pytest.mark.parametrize("region", ["ap-east-2", "ca-west-1", "mx-central-1"])
def test_where_cloudformation_has_no_projects_builds_are_refused_and_the_rest_is_made(
    settings: Settings, region: str
) -> None:
    aws = Aws(region)
    with pytest.raises(SpecError, match=f"no CodeBuild projects in {region}") as raised:
        up(aws, settings, Builds="make")
    assert "infra image" in raised.value.next_step
    assert aws.client("cloudformation").list_stacks()["StackSummaries"] == []
    account, _ = up(aws, settings)
    assert account.region == region
    left = infra.template_for(region)
    assert "BuildRole" not in left
    assert yaml.safe_load(re.sub(r"!\w+", "", left))["Resources"]["JobLogs"], "more was cut out"


def test_the_template_has_only_types_that_its_region_has() -> None:
    from cfnlint.helpers import REGIONS
    from cfnlint.schema import PROVIDER_SCHEMA_MANAGER, ResourceNotFoundError

    unknown = []
    for region in REGIONS:
        for kind in set(re.findall(r"^    Type: (AWS::\S+)$", infra.template_for(region), re.MULTILINE)):
            try:
                PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, kind)
            except ResourceNotFoundError:
                unknown.append((region, kind))
    assert unknown == []
    assert "AWS::Budgets::Budget" in infra.template_for("eu-west-1")
    assert yaml.safe_load(re.sub(r"!\w+", "", infra.template_for("eu-north-1")))["Outputs"], "more was cut out"


# ---------------------------------------------------------------------------------------------- the template itself


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return read_template()


def statements(template: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in template["Resources"].values():
        for key in ("PolicyDocument", "AssumeRolePolicyDocument"):
            yield from resource["Properties"].get(key, {}).get("Statement", [])


def test_the_template_has_nothing_that_aws_would_refuse() -> None:
    from cfnlint.api import lint_file

    assert [str(match) for match in lint_file(STACK_TEMPLATE)] == []


def test_outputs_are_the_fields_of_the_settings(template: dict[str, Any]) -> None:
    fields = {"".join(word.capitalize() for word in name.split("_")) for name in AwsSettings.model_fields}
    assert set(template["Outputs"]) == fields


def test_the_parameters_are_those_the_client_knows(template: dict[str, Any]) -> None:
    defaults = {name: str(one.get("Default", image_tag())) for name, one in template["Parameters"].items()}
    assert defaults == infra.PARAMETERS


def test_replaced_adapters_can_be_had_back_and_nothing_piles_up(template: dict[str, Any]) -> None:
    bucket = template["Resources"]["Bucket"]["Properties"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = {key for rule in bucket["LifecycleConfiguration"]["Rules"] for key in rule}
    assert {"AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration", "ExpiredObjectDeleteMarker"} <= rules


def test_a_deleted_checkpoint_is_gone_a_day_later(template: dict[str, Any]) -> None:
    rules = template["Resources"]["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    [checkpoints] = [rule for rule in rules if rule.get("Prefix") == "checkpoints/"]
    assert checkpoints["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    assert checkpoints["ExpirationInDays"] == "CheckpointDays"


def test_the_bucket_is_closed_to_the_public(template: dict[str, Any]) -> None:
    blocked = template["Resources"]["Bucket"]["Properties"]["PublicAccessBlockConfiguration"]
    assert len(blocked) == 4
    assert set(blocked.values()) == {True}


def test_the_bucket_refuses_what_is_not_encrypted_on_its_way(template: dict[str, Any]) -> None:
    [refusal] = [one for one in statements(template) if one.get("Sid") == "TlsOnly"]
    assert (refusal["Effect"], refusal["Principal"], refusal["Action"]) == ("Deny", "*", "s3:*")
    assert refusal["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert len(refusal["Resource"]) == 2


def test_the_template_fits_into_a_request() -> None:
    assert STACK_TEMPLATE.stat().st_size < 51_200


def test_nothing_is_allowed_wholesale(template: dict[str, Any]) -> None:
    for statement in statements(template):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if statement["Effect"] == "Allow":
            assert [action for action in actions if "*" in action] == []
        if statement.get("Resource") == "*" and statement["Effect"] == "Allow":
            only = (
                "ecr:GetAuthorizationToken",
                "cloudwatch:PutMetricData",
                "cloudwatch:DescribeAlarms",
                "cloudwatch:GetMetricData",
                "sagemaker:List",
                "servicequotas:ListServiceQuotas",
                "ec2:Describe",
            )
            if "Condition" in statement:  # it has no narrower resource, and a service that it is about
                only = (*only, "application-autoscaling:")
            assert all(action.startswith(only) for action in actions)


@pytest.mark.parametrize("role", ["JobRole", "EndpointRole", "BuildRole"])
def test_a_role_can_be_taken_on_for_this_account_only(template: dict[str, Any], role: str) -> None:
    [trust] = template["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    keys = {key for condition in trust["Condition"].values() for key in condition}
    assert keys == {"aws:SourceAccount", "aws:SourceArn"}


def test_roles_are_handed_to_the_service_alone(template: dict[str, Any]) -> None:
    passed = [one for one in statements(template) if one["Action"] == "iam:PassRole"]
    assert {one["Resource"] for one in passed} == {"JobRole.Arn", "EndpointRole.Arn"}
    for one in passed:
        assert one["Condition"]["StringEquals"] == {"iam:PassedToService": "sagemaker.amazonaws.com"}


def test_what_may_be_changed_of_endpoints_carries_the_tag_of_this_program(template: dict[str, Any]) -> None:
    for statement in template["Resources"]["DeployPolicy"]["Properties"]["PolicyDocument"]["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        changing = ("Create", "Update", "Delete", "Invoke", "AddTags")
        if any(action.startswith("sagemaker:") and action[10:].startswith(changing) for action in actions):
            [(operator, key)] = statement["Condition"].items()
            assert operator == "Null"
            assert set(key.values()) == {"false"}


def test_images_are_scanned_and_cannot_be_replaced(template: dict[str, Any]) -> None:
    repositories = [one for one in template["Resources"].values() if one["Type"] == "AWS::ECR::Repository"]
    assert len(repositories) == 2
    for repository in repositories:
        assert repository["Properties"]["ImageScanningConfiguration"] == {"ScanOnPush": True}
        assert repository["Properties"]["ImageTagMutability"] == "IMMUTABLE"
        json.loads(repository["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"])


def test_without_an_email_there_is_no_alarm(template: dict[str, Any]) -> None:
    assert template["Resources"]["MonthlyBudget"]["Condition"] == "HasAlarm"
    assert template["Parameters"]["AlarmEmail"]["Default"] == ""


# ---------------------------------------------------------------------------------------------- the command line


def run(*words: str) -> Result:
    from orchestrator.cli import cli

    return CliRunner().invoke(cli, ["infra", *words], catch_exceptions=False)


def test_the_commands_tell_a_story(settings: Settings) -> None:
    made = run("up", "--stack-name", "mine")
    assert "CREATE_COMPLETE" in made.stderr
    assert "role arn" in made.stdout
    assert "$1 a month" in made.stdout
    assert "Next: python -m orchestrator infra image" in made.stdout
    shown = run("show", "--json")
    assert json.loads(shown.stdout)["stack_name"] == "mine"  # the name was noted
    assert shown.stderr == ""
    removed = run("down").stdout
    assert "Removed the stack mine" in removed
    assert "Left: " in removed


def test_the_image_is_built_and_pushed_by_one_command(settings: Settings, docker: DockerStandIn) -> None:
    with pytest.raises(MissingError) as raised:
        run("image")
    assert raised.value.next_step == "python -m orchestrator infra up"
    assert docker.calls() == []
    run("up", "--stack-name", "mine")
    pushed = run("image")
    assert pushed.stdout == f"Pushed {json.loads(run('show', '--json').stdout)['training_image']}\n"
    assert "Successfully tagged" in pushed.stderr
    docker.fails("image", "No such image")
    assert run("image", "--build-only").stdout == f"Built orchestrator-training:{image_tag()}\n"


def test_half_a_network_is_refused_before_anything_is_made(aws: Aws, settings: Settings) -> None:
    result = run("up", "--subnet", "subnet-1")
    assert result.exit_code == 2
    assert buckets(aws) == []


# moto makes neither the policies of topics and queues nor notifications of buckets
UNMADE = pytest.mark.filterwarnings("ignore:Tried to parse")


@UNMADE
def test_labels_are_made_when_they_are_wanted_and_kept_when_nothing_is_said_of_them(
    aws: Aws, settings: Settings
) -> None:
    account, _ = up(aws, settings)
    assert account.label_queue_url is None
    up(aws, settings, Labels="make")
    account, _ = up(aws, settings, LogDays="30")
    names = [topic["TopicArn"] for topic in aws.client("sns").list_topics()["Topics"]]
    assert names == [account.label_topic_arn]
    assert account.label_queue_url in aws.client("sqs").list_queues()["QueueUrls"]
    assert account.label_policy_arn is not None


def test_what_labels_need_is_encrypted_and_takes_no_plain_http(template: dict[str, Any]) -> None:
    resources = template["Resources"]
    assert resources["LabelTopic"]["Properties"]["KmsMasterKeyId"] == "Key"
    for name in ("LabelQueue", "LabelDeadLetters"):
        assert resources[name]["Properties"]["SqsManagedSseEnabled"] is True
    for name in ("LabelTopicPolicy", "LabelQueuePolicy"):
        denied = [
            one for one in resources[name]["Properties"]["PolicyDocument"]["Statement"] if one["Effect"] == "Deny"
        ]
        assert [one["Condition"] for one in denied] == [{"Bool": {"aws:SecureTransport": "false"}}]


def test_the_bucket_alone_tells_of_rounds_and_only_this_accounts(template: dict[str, Any]) -> None:
    """S3 publishes in the name of its service: without both keys, any bucket of any account could have it do so."""
    resources = template["Resources"]
    allowed = [
        one
        for one in resources["LabelTopicPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        if one["Effect"] == "Allow"
    ]
    key = resources["Key"]["Properties"]["KeyPolicy"]["Statement"]
    [of_key] = [one[1] for one in key if isinstance(one, list)]
    assert [one["Action"] for one in allowed] == ["sns:Publish"]
    for one in (*allowed, of_key):
        assert one["Principal"] == {"Service": "s3.amazonaws.com"}
        assert one["Condition"]["StringEquals"] == {"aws:SourceAccount": "AWS::AccountId"}
        source = one["Condition"]["ArnLike"]["aws:SourceArn"]
        assert source.partition("}")[2] == ":s3:::${AWS::StackName}-bucket-*"
    assert of_key["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]


def test_a_round_is_told_of_when_its_manifest_is_there(template: dict[str, Any]) -> None:
    condition, notification, _ = template["Resources"]["Bucket"]["Properties"]["NotificationConfiguration"]
    assert condition == "HasLabels"
    [told] = notification["TopicConfigurations"]
    rules = {rule["Name"]: rule["Value"] for rule in told["Filter"]["S3Key"]["Rules"]}
    manifest = f"checkpoints/0123/{EXCHANGE_FOLDER}/{round_folder(3)}/{ROUND_MANIFEST_FILE}"
    checkpoint = f"checkpoints/0123/{checkpoints.folder_name(100)}/{checkpoints.MANIFEST_FILE}"
    picture = f"checkpoints/0123/{EXCHANGE_FOLDER}/{round_folder(3)}/pictures/0.png"
    told_of = [
        name
        for name in (manifest, checkpoint, picture)
        if name.startswith(rules["prefix"]) and name.endswith(rules["suffix"])
    ]
    assert told_of == [manifest]


@UNMADE
def test_a_project_is_made_when_it_is_wanted_and_kept_when_nothing_is_said_of_it(aws: Aws, settings: Settings) -> None:
    account, _ = up(aws, settings)
    assert account.build_project is None
    up(aws, settings, Builds="make")
    made = aws.client("cloudformation").list_stack_resources(StackName="orchestrator")["StackResourceSummaries"]
    assert {"BuildRole", "BuildPolicy", "BuildLogs"} <= {one["LogicalResourceId"] for one in made}
    account, _ = up(aws, settings, LogDays="30")
    assert account.build_project == "orchestrator-images"


def test_a_build_runs_what_the_stack_says_as_nobody_but_its_own_role(template: dict[str, Any]) -> None:
    project = template["Resources"]["BuildProject"]["Properties"]
    assert project["ServiceRole"] == "BuildRole.Arn"
    assert project["Source"]["Type"] == "S3"
    assert yaml.safe_load(project["Source"]["BuildSpec"])["version"] == 0.2  # inline: a name would be a file's
    assert (project["Environment"]["Type"], project["Environment"]["PrivilegedMode"]) == ("LINUX_CONTAINER", True)
    assert project["Artifacts"] == {"Type": "NO_ARTIFACTS"}
    assert project["LogsConfig"]["CloudWatchLogs"]["GroupName"] == "BuildLogs"
    [trust] = template["Resources"]["BuildRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "codebuild.amazonaws.com"}
    assert trust["Condition"]["ArnLike"]["aws:SourceArn"].endswith(":project/${AWS::StackName}-images")


def test_what_images_were_built_from_is_deleted_in_time_and_not_replaced(template: dict[str, Any]) -> None:
    rules = template["Resources"]["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    [sources] = [rule for rule in rules if rule.get("Prefix") == PREFIX]
    assert (sources["ExpirationInDays"], sources["NoncurrentVersionExpiration"]) == (7, {"NoncurrentDays": 1})
    [kept] = [one for one in statements(template) if one.get("Sid") == "WhatIsStoredIsNotReplaced"]
    assert f"${{Bucket.Arn}}/{PREFIX}*" in kept["Resource"]
