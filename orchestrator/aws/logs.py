"""Where CloudWatch keeps the logs of training jobs."""

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
"""SageMaker's own group for the logs of all training jobs of an account; it cannot be chosen."""
