"""A stand-in for the `docker` program: keeps images and sign-ins as docker does, and notes what it was asked.

Its folder (DOCKER_STAND_IN) holds `calls.jsonl`. A file `fail-COMMAND` there is what that command says before it fails;
with a file `buildx` it has that plugin. A push puts the image into the ECR behind AWS_ENDPOINT_URL, if that is set.
"""

import base64
import json
import os
import sys
from pathlib import Path

HERE = Path(os.environ["DOCKER_STAND_IN"])
CONFIG = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"


def main(words: list[str]) -> int:
    command, typed = words[0], sys.stdin.read() if "--password-stdin" in words else ""
    note = {"words": words, "typed": typed, "config": str(CONFIG), "host": os.environ.get("DOCKER_HOST")}
    if command == "build":
        folder = Path(words[-1])
        note["context"] = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    with (HERE / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(note) + "\n")
    told_to_fail = HERE / f"fail-{command}"
    if told_to_fail.exists():
        return fail(told_to_fail.read_text())
    match command:
        case "build":
            sys.stdout.write(f"Step 1/1 : FROM base\nSuccessfully tagged {tag_of(words)}\n")
            if stays_in_builder(words):
                sys.stderr.write("WARNING: No output specified with docker-container driver.\n")
                return 0
            with (HERE / "images").open("a") as built:
                built.write(f"{tag_of(words)}\n")
        case "context":
            sys.stdout.write("unix:///run/the-person's-own.sock\n")
        case "login":
            auth = {words[-1]: {"auth": base64.b64encode(f"{words[2]}:{typed}".encode()).decode()}}
            CONFIG.write_text(json.dumps({"auths": auth}))
        case "push":
            return push(words[1])
        case "buildx":
            return 0 if (HERE / "buildx").exists() else fail("docker: 'buildx' is not a docker command.")
    return 0


def stays_in_builder(words: list[str]) -> bool:
    """Whether the builder keeps the image to itself: one with a container of its own gives away what it is told to."""
    told = HERE / "buildx"
    if not told.exists() or told.read_text() != "docker-container" or "--load" in words:
        return False
    output = words[words.index("--output") + 1] if "--output" in words else ""
    return "type=docker" not in output and "push=true" not in output


def push(image: str) -> int:
    registry, _, rest = image.partition("/")
    if image not in (HERE / "images").read_text().split():
        return fail(f"An image does not exist locally with the tag: {image.rpartition(':')[0]}")
    if not json.loads(CONFIG.read_text())["auths"].get(registry, {}).get("auth"):
        return fail("no basic auth credentials")
    if "AWS_ENDPOINT_URL" in os.environ:
        import boto3

        repository, _, tag = rest.rpartition(":")
        told = HERE / "media-type"
        kind = told.read_text() if told.exists() else "application/vnd.docker.distribution.manifest.v2+json"
        manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": {}, "layers": []})
        region = registry.split(".")[3]
        boto3.client("ecr", region_name=region).put_image(
            repositoryName=repository, imageTag=tag, imageManifest=manifest
        )
    return 0


def tag_of(words: list[str]) -> str:
    return words[words.index("--tag") + 1]


def fail(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
