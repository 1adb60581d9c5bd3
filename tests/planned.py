"""A plan without a command line: its pictures are prepared in a folder that is gone again."""

import tempfile
from pathlib import Path

from orchestrator.models.mirrored import NOT_ASKED, MirrorAnswer
from orchestrator.planning.inputs import prepare_inputs
from orchestrator.planning.plan import Plan, plan_on_sagemaker
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.job import JobSpec


def planned(spec: JobSpec, settings: Settings, account: AwsSettings, mirror: MirrorAnswer = NOT_ASKED) -> Plan:
    """Plan a job on SageMaker without storing what it reads."""
    with tempfile.TemporaryDirectory() as staging:
        return plan_on_sagemaker(spec, settings, account, prepare_inputs(spec, Path(staging)), mirror)
