"""From the name of a target to the target."""

from orchestrator.aws.client import Aws
from orchestrator.settings import AwsSettings, Settings
from orchestrator.storage import Progress, S3Store
from orchestrator.targets.base import Target
from orchestrator.targets.local.process import ProcessTarget
from orchestrator.targets.sagemaker.target import SageMakerTarget


def local_target(settings: Settings) -> Target:
    """Return the target of this machine."""
    return ProcessTarget(settings)


def sagemaker_target(account: AwsSettings, progress: Progress | None = None) -> Target:
    """Return the target of an account; `progress` is told of what travels to the bucket and back."""
    aws = Aws(account.region)
    return SageMakerTarget(aws, S3Store(aws, account.bucket, account.account_id, progress=progress))


def targets(settings: Settings) -> list[Target]:
    """Return every target there is: this machine, and the account once it is set up."""
    account = settings.aws()
    return [local_target(settings), *([sagemaker_target(account)] if account else [])]
