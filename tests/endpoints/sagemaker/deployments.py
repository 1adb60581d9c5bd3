"""What the tests of this folder deploy, and where."""

from typing import Any

from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.names import HostName, Mode
from orchestrator.settings import AwsSettings

REGION = "eu-west-1"
ACCOUNT = AwsSettings(
    region=REGION,
    account_id="123456789012",
    bucket="pictures",
    role_arn="arn:aws:iam::123456789012:role/training",
    endpoint_role_arn="arn:aws:iam::123456789012:role/endpoint",
    training_image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/orchestrator-training:1",
    inference_image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/orchestrator-inference:1",
)


def deployment(mode: Mode = Mode.REALTIME, **fields: Any) -> Deployment:
    """Return a deployment on SageMaker."""
    if mode is not Mode.REALTIME:
        fields.setdefault("fewest_instances", 0)
    return Deployment(**{"name": "dogs", "host": HostName.SAGEMAKER, "mode": mode, **fields})
