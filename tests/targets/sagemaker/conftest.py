import pytest
from account import BUCKET, REGION
from sagemaker_simulator import SageMakerSimulator

from orchestrator.aws.client import Aws
from orchestrator.storage import S3Store
from orchestrator.targets.sagemaker.target import SageMakerTarget

ACCOUNT = "123456789012"


@pytest.fixture
def target(simulator: SageMakerSimulator) -> SageMakerTarget:
    aws = Aws(REGION)
    simulator.seconds_per_call["DescribeTrainingJob"] = 30  # a client that polls lets time go by
    return SageMakerTarget(aws, S3Store(aws, BUCKET, ACCOUNT), poll_seconds=0)
