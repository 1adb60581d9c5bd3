"""An account in this process whose SageMaker really trains: short jobs, what they leave in the bucket, its clock."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from account import BUCKET, IMAGE, REGION, ROLE, furnish, use_default_session
from moto import mock_aws
from sagemaker_simulator import Image, SageMakerSimulator, in_process

from orchestrator.adapters.registry import fetch
from orchestrator.aws.client import Aws
from orchestrator.contract.checkpoints import FILES, PREFIX, step_of
from orchestrator.contract.events import Resumed, Step, parse
from orchestrator.jobs import job as jobs
from orchestrator.models.mirror import ask
from orchestrator.planning.inputs import prepare_inputs
from orchestrator.planning.plan import plan_on_sagemaker, store_trees
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.building import build_spec
from orchestrator.storage import S3Store
from orchestrator.targets.sagemaker.target import SageMakerTarget

RUNTIME_MINUTES = 60
STEPS = 12
# Small, but with every phase: class pictures, checkpoints between the steps, pictures at the end.
SETTINGS = {
    "steps": STEPS,
    "checkpoint_steps": 2,
    "evaluation_prompts": 1,
    "evaluation_seeds": 1,
    "inference_steps": 2,
}
RECIPES: dict[str, dict[str, int]] = {
    "dreambooth": {"prior_preservation": True, "class_images": 2},
    "textual-inversion": {},
}


class Cloud(NamedTuple):
    """An account whose SageMaker runs in this process."""

    simulator: SageMakerSimulator
    target: SageMakerTarget
    account: AwsSettings
    settings: Settings


@contextmanager
def cloud(home: Path) -> Iterator[Cloud]:
    """Open an account with a bucket, a role and an image that trains on one thread."""
    image = Image(environment={"OMP_NUM_THREADS": "1"}, toolkit=False)
    simulator = SageMakerSimulator(images={IMAGE: image})
    variables = {"AWS_DEFAULT_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}
    with patch.dict(os.environ, variables), mock_aws(), simulator, in_process(simulator):
        use_default_session()
        furnish()
        number = ROLE.split(":")[4]
        account = AwsSettings(region=REGION, account_id=number, bucket=BUCKET, role_arn=ROLE, training_image=IMAGE)
        aws = Aws(REGION)
        target = SageMakerTarget(aws, S3Store(aws, BUCKET, number), poll_seconds=0)
        yield Cloud(simulator, target, account, Settings(home=home))


def submit(there: Cloud, name: str, recipe: str = "dreambooth", *, spot: bool = False) -> jobs.Job:
    """Submit a job; its adapter's name is no part of its bytes, so that jobs of different names can be compared."""
    compute = {"spot": spot, "max_runtime_minutes": RUNTIME_MINUTES}
    settings = {**SETTINGS, **RECIPES[recipe]}
    spec = build_spec({"recipe": recipe, "name": name, "settings": settings, "compute": compute})
    mirror = ask(there.target.store, spec.base_model)
    with tempfile.TemporaryDirectory() as staging:
        prepared = prepare_inputs(spec, Path(staging))
        plan = plan_on_sagemaker(spec, there.settings, there.account, prepared, mirror)
        store_trees(plan, there.target.store)
    return jobs.submit(plan, there.target).job


def uninterrupted(there: Cloud, recipe: str = "dreambooth") -> dict[str, str]:
    """Run a job to its end and return its adapter's hashes."""
    job = submit(there, "reference", recipe)
    there.simulator.run_to_end(job.name)
    return adapter_hashes(there, job)


def adapter_hashes(there: Cloud, job: jobs.Job) -> dict[str, str]:
    """Fetch a finished adapter, every file verified, and return the sha256 of each."""
    manifest, store = job.finished().manifest, there.target.store
    if manifest is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        fetch(store, store.name(job.describe().output), Path(folder) / "adapter")
    return {name: digest.sha256 for name, digest in manifest.files.items()}


def checkpoint_keys(there: Cloud, job: jobs.Job) -> dict[int, dict[str, str]]:
    """Return the keys of a job's checkpoints in the bucket: by step, then by file name."""
    found: dict[int, dict[str, str]] = {}
    for key in there.target.store.list_prefix(f"checkpoints/{job.describe().identity}/{PREFIX}"):
        _, folder, file = key.rsplit("/", 2)
        step = step_of(folder)
        if step is not None:
            found.setdefault(step, {})[file] = key
    return dict(sorted(found.items()))


def whole_checkpoints(there: Cloud, job: jobs.Job) -> list[int]:
    """Return the steps of the checkpoints that arrived whole, told from nothing but the bytes in the bucket."""
    found = checkpoint_keys(there, job)
    return [step for step, keys in found.items() if _is_whole(there, keys)]


def _is_whole(there: Cloud, keys: dict[str, str]) -> bool:
    if set(keys) != FILES:
        return False
    s3 = there.target.aws.client("s3")
    manifest, tensors = (s3.get_object(Bucket=BUCKET, Key=keys[file])["Body"].read() for file in sorted(keys))
    return bool(json.loads(manifest)["tensors"]["sha256"] == hashlib.sha256(tensors).hexdigest())


def steps_in(lines: list[str]) -> list[int]:
    """Return the optimizer steps that a log tells of."""
    return [event.step for line in lines if isinstance(event := parse(line), Step)]


def resumed_in(lines: list[str]) -> list[int]:
    """Return the steps behind which the containers of a log went on."""
    return [event.step for line in lines if isinstance(event := parse(line), Resumed)]


def reach_limit(there: Cloud, attempt: str, *, kill: bool = False) -> None:
    """Let time go by until the service ends an attempt whose container runs; `kill`: and ends the container too."""
    while there.simulator.job(attempt).status == "InProgress":
        there.simulator.clock.advance(60)
    if kill:
        there.simulator.clock.advance(120)
