"""The job of `benchmarks.submit` as a person writes it with the SageMaker SDK: one process, one submit."""

import argparse

from sagemaker.train import ModelTrainer, Session
from sagemaker.train.configs import Compute, InputData, SourceCode


def main() -> None:
    """Submit the job, or check it with --dry-run."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("name", "pictures", "code", "hyperparameters", "image", "role", "bucket", "instance-type"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    trainer = ModelTrainer(
        training_image=options.image,
        source_code=SourceCode(source_dir=options.code, command="python -m entrypoints.train"),
        hyperparameters=options.hyperparameters,
        base_job_name=options.name,
        compute=Compute(instance_type=options.instance_type, instance_count=1),
        role=options.role,
        sagemaker_session=Session(default_bucket=options.bucket),
    )
    pictures = InputData(channel_name="training", data_source=options.pictures)
    trainer.train(input_data_config=[pictures], wait=False, dry_run=options.dry_run)


if __name__ == "__main__":
    main()
