"""What the benchmark of submits counts, on our side."""

from pathlib import Path

import boto3

from benchmarks.submit import STEPS, Job, make_bucket, make_pictures, measure_steps, our_command, serve


def test_requests_and_bytes_are_those_of_what_lies_in_the_bucket(tmp_path: Path) -> None:
    with serve(tmp_path) as simulator:
        job = Job("mine", make_pictures(tmp_path / "pictures"), make_bucket("pictures-of-mine"))
        steps = dict(zip(STEPS, measure_steps(simulator, {"ours": our_command}, job), strict=True))
        stored = boto3.client("s3").list_objects_v2(Bucket=job.bucket)["Contents"]
    dry, first, again = (steps[step] for step in STEPS)
    assert (dry.of_s3.total(), dry.elsewhere, dry.s3_bytes, dry.jobs) == (0, 0, 0, 0)
    assert (first.of_s3["PutObject"], first.s3_bytes, first.jobs) == (len(stored), sum(o["Size"] for o in stored), 1)
    assert (again.of_s3["PutObject"], again.s3_bytes, again.jobs) == (0, 0, 0)
    assert again.of_s3.total() > 0
    assert again.elsewhere > 0
