"""Jobs as SageMaker training jobs."""
