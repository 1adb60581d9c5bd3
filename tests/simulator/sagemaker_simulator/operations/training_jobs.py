"""The operations on training jobs."""

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from sagemaker_simulator.calls import Call
from sagemaker_simulator.errors import in_use, invalid, limit_exceeded, not_found
from sagemaker_simulator.rules import check_training_job
from sagemaker_simulator.training.driver import JobDriver
from sagemaker_simulator.training.job import TrainingJob
from sagemaker_simulator.training.storage import keys, split

from .listing import listed

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator


def create_training_job(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    request = call.parameters
    check_training_job(call)
    arn = f"arn:aws:sagemaker:{call.region}:{call.account}:training-job/{request['TrainingJobName']}"
    job = TrainingJob(
        request=request,
        arn=arn,
        account=call.account,
        region=call.region,
        created=simulator.clock.now(),
        saving=simulator.spot_saving if request.get("EnableManagedSpotTraining") else 0,
    )
    _check_name(simulator, job)
    _check_role(simulator, job)
    _check_inputs(simulator, job)
    with simulator.creating:  # of two creates at once only one succeeds
        _check_name(simulator, job)
        _check_quota(simulator, job)
        simulator.tags[arn] = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}  # nobody sees it without
        simulator.jobs(job.account, job.region)[job.name] = job
    driver = simulator.drive(JobDriver(simulator, job, simulator.job_faults(job.name)))
    simulator.clock.run_now(driver.start)
    return {"TrainingJobArn": arn}


def describe_training_job(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    return _job(simulator, call).describe()


def stop_training_job(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    job = _job(simulator, call)

    def stop() -> None:
        if job.status != "InProgress":
            raise invalid(f"The request was rejected because the training job is in status {job.status}.")
        simulator.driver(job).stop()

    simulator.clock.run_now(stop)
    return {}


def list_training_jobs(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    known = simulator.jobs(call.account, call.region).values()
    found, token = listed(simulator, known, call.parameters, "Ascending")
    return {"TrainingJobSummaries": found} | token


def delete_training_job(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    job = _job(simulator, call)
    if not job.is_final:
        raise in_use(f"The training job {job.arn} is in status {job.status} and cannot be deleted.")
    job.status = "Deleting"  # the secondary status stays: the service has none for this
    job.modified = simulator.clock.now()

    def forget() -> None:
        del simulator.jobs(call.account, call.region)[job.name]
        simulator.tags.pop(job.arn, None)
        simulator.changed()

    if simulator.timeline.deleting:
        simulator.clock.after(simulator.timeline.deleting, forget)
    else:
        forget()
    return {}


def _job(simulator: "SageMakerSimulator", call: Call) -> TrainingJob:
    job = simulator.jobs(call.account, call.region).get(call.parameters["TrainingJobName"])
    if job is None:
        raise not_found()
    return job


def _check_name(simulator: "SageMakerSimulator", job: TrainingJob) -> None:
    if job.name in simulator.jobs(job.account, job.region):
        raise in_use(
            "Training job names must be unique within an AWS account and region, "
            f"and a training job with this name already exists ({job.arn})"
        )


def _check_role(simulator: "SageMakerSimulator", job: TrainingJob) -> None:
    if not simulator.trusts_service(job):
        raise invalid(
            f'The execution role ARN "{job.role}" is invalid. Please ensure that the role exists and '
            'that its trust relationship policy allows the action "sts:AssumeRole" for the service principal '
            '"sagemaker.amazonaws.com".'
        )


def _check_quota(simulator: "SageMakerSimulator", job: TrainingJob) -> None:
    resources = job.request["ResourceConfig"]
    quota = f"{resources['InstanceType']} for {'spot ' if job.is_spot else ''}training job usage"
    if (limit := simulator.quotas.get(quota)) is None:
        return
    used = sum(
        other.request["ResourceConfig"]["InstanceCount"]
        for other in simulator.jobs(job.account, job.region).values()
        if not (other.is_final or other.is_deleting)
        and other.is_spot == job.is_spot
        and other.request["ResourceConfig"]["InstanceType"] == resources["InstanceType"]
    )
    if used + resources["InstanceCount"] > limit:
        raise limit_exceeded(quota, limit, used, resources["InstanceCount"])


def _check_inputs(simulator: "SageMakerSimulator", job: TrainingJob) -> None:
    s3 = simulator.client_for(job, "s3")
    for channel in job.request.get("InputDataConfig", []):
        uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
        bucket, prefix = split(uri)
        try:
            found = bool(keys(s3, bucket, prefix))
        except ClientError:
            found = False
        if not found:
            raise invalid(
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
                f"exists in the selected region ({job.region}), that objects exist under that S3 prefix, and that the "
                f'role "{job.role}" has "s3:ListBucket" permissions on bucket "{bucket}".'
            )


OPERATIONS = {
    "CreateTrainingJob": create_training_job,
    "DescribeTrainingJob": describe_training_job,
    "StopTrainingJob": stop_training_job,
    "ListTrainingJobs": list_training_jobs,
    "DeleteTrainingJob": delete_training_job,
}
