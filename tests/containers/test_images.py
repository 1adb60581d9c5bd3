"""The real images, without CUDA: training and the server as SageMaker would run them, beside processes of this machine.

They are built by `infra image --build-only --cpu`; `.ci/containers` does that before it runs these tests.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.container_images import ImageKind
from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.environment import INPUTS_VARIABLE
from orchestrator.contract.serving import ORDER_FILE, ServerOrder
from orchestrator.docker import Docker
from orchestrator.planning.bundle import bundle_tree
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import Settings
from orchestrator.storage import FolderStore, folder_of
from orchestrator.storage.tree import tree_of_folder
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.container import ContainerTarget
from orchestrator.targets.local.containers import FOLDER_LABEL
from tests.containers.engine import run
from tests.containers.trainings import (
    STARTED_SECONDS,
    Typed,
    built,
    file_sha256,
    made_by,
    submit,
    wait_for_checkpoint,
    weights,
)

CODE = "/opt/ml/additional-model-data-sources/code"
PINGS_WHILE_IT_DRAWS = """
import json, threading, urllib.request
body = json.dumps({"prompt": "a photo of a dog", "num_inference_steps": 100, "num_images_per_prompt": 4}).encode()
headers = {"Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8080/invocations", body, headers)
drawing = threading.Thread(target=lambda: urllib.request.urlopen(request).read())
drawing.start()
pings = 0
while drawing.is_alive():
    # SageMaker takes a container out of service that does not answer within two seconds.
    assert urllib.request.urlopen("http://127.0.0.1:8080/ping", timeout=2).status == 200
    pings += 1
print(pings > 10)
"""


def test_a_job_in_a_container_makes_the_bytes_of_one_in_a_process(typed: Typed) -> None:
    inside = typed(*submit("--target", "container", "--name", "inside"))
    beside = typed(*submit("--name", "beside"))
    assert weights(inside) == weights(beside)
    if made_by(inside) == made_by(beside):
        assert file_sha256(inside) == file_sha256(beside)
    listed = {job["name"]: job["target"] for job in typed("jobs", "list")}
    assert set(listed.values()) == {"container", "local"}


def test_two_containers_make_the_bytes_of_two_processes(typed: Typed) -> None:
    hosts = ("-s", "compute.instance_count=2")
    inside = typed(*submit("--target", "container", "--name", "inside", *hosts))
    beside = typed(*submit("--name", "beside"), ORCHESTRATOR_RANKS_PER_HOST="2")
    assert weights(inside) == weights(beside)


def test_a_job_that_loses_a_host_fails_and_is_resumed(typed: Typed, settings: Settings) -> None:
    hosts = ("--target", "container", "--name", "pair", "-s", "compute.instance_count=2", "-s", "steps=40")
    job = typed(*submit(*hosts, "--detach"))["name"]
    folder = settings.jobs / job
    wait_for_checkpoint(folder)
    second = run("ps", "--quiet", "--filter", f"label={FOLDER_LABEL}={folder}", "--filter", "name=algo-2")
    run("kill", second)
    typed("jobs", "wait", job)
    ended = ContainerTarget(settings).describe(job)
    assert ended.status is JobStatus.FAILED
    assert "Another process of this job ended" in str(ended.failure_reason)
    assert "jobs retry" in str(ended.next_step)
    assert run("ps", "--all", "--quiet", "--filter", f"label={FOLDER_LABEL}={folder}") == ""
    typed("jobs", "retry", job, "--detach")
    typed("jobs", "wait", job)
    assert ContainerTarget(settings).describe(job).status is JobStatus.COMPLETED


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What SageMaker lays below `/opt/ml` for an endpoint: the order, the base model, the code."""
    root = tmp_path / "ml"
    (root / "model").mkdir(parents=True)
    base = Path("..") / "additional-model-data-sources" / "base_model"
    order = ServerOrder(base_model="builtin", base_folder=base, root=Path(".."), host="0.0.0.0", rows=2)  # noqa: S104
    (root / "model" / ORDER_FILE).write_text(order.model_dump_json())
    return root


class Served:
    """A container that was started with the word `serve`."""

    def __init__(self, image: str, root: Path, code: Path, *options: str) -> None:
        mounts = {"model": root / "model", "base_model": BUILTIN_MODEL, "code": code}
        hashes = [f"{name}={tree_of_folder('x', folder).sha256}" for name, folder in mounts.items()]
        words = ["run", "--detach", "--network", "none", "--env", f"{INPUTS_VARIABLE}={' '.join(hashes)}"]
        words += ["--env", f"PYTHONPATH={CODE}", "--env", "OMP_NUM_THREADS=1"]
        for name, folder in mounts.items():
            place = "model" if name == "model" else f"additional-model-data-sources/{name}"
            words += ["--volume", f"{folder}:/opt/ml/{place}:ro"]
        self.id = run(*words, *options, image, "serve")

    def python(self, script: str) -> str:
        """Run a script in the container, whose network is its own."""
        return run("exec", self.id, "python", "-I", "-c", script)

    def wait_until(self, path: str) -> None:
        script = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080{path}').status)"
        deadline = time.monotonic() + STARTED_SECONDS
        while True:
            try:
                assert self.python(script) == "200"
            except subprocess.CalledProcessError:
                assert time.monotonic() < deadline, run("logs", self.id)
                assert run("inspect", "--format", "{{.State.Running}}", self.id) == "true", run("logs", self.id)
                time.sleep(0.5)
            else:
                return

    def remove(self) -> None:
        run("rm", "--force", self.id)


@pytest.fixture
def code(settings: Settings) -> Path:
    return folder_of(FolderStore(settings.home).put_tree(bundle_tree(BundleKind.SERVING)))


@pytest.fixture
def served(engine: Docker, model: Path, code: Path) -> Iterator[Served]:
    made = Served(built(engine, ImageKind.INFERENCE), model, code)
    yield made
    made.remove()


def test_the_image_serves_without_a_network_from_folders_that_cannot_be_written(served: Served) -> None:
    served.wait_until("/ping")
    script = """
import json, urllib.request
body = json.dumps({"prompt": "a photo of a dog", "num_inference_steps": 1}).encode()
request = urllib.request.Request("http://127.0.0.1:8080/invocations", body, {"Content-Type": "application/json"})
print(len(urllib.request.urlopen(request).read()))
"""
    assert int(served.python(script)) > 1000
    assert served.python(PINGS_WHILE_IT_DRAWS) == "True"
    run("stop", "--time", "30", served.id)  # SIGTERM, then SIGKILL
    assert run("inspect", "--format", "{{.State.ExitCode}}", served.id) == "0"


def test_the_image_starts_nothing_of_an_endpoint_that_was_changed(engine: Docker, model: Path, code: Path) -> None:
    image = built(engine, ImageKind.INFERENCE)
    made = Served(image, model, code, "--env", f"{INPUTS_VARIABLE}=model={'0' * 64}")
    try:
        assert run("wait", made.id) == "1"
        assert json.loads(run("logs", made.id))["kind"] == "changed-input"
    finally:
        made.remove()


def test_a_host_with_an_older_driver_gets_the_images_own(engine: Docker, tmp_path: Path) -> None:
    image = built(engine, ImageKind.TRAINING)
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2\n")
    (tmp_path / "libcuda.so.580.95.05").touch()
    # A file below /proc cannot be mounted, so the program is told where it is; the image is as it is.
    script = (
        "import runpy, pathlib, os; start = runpy.run_path('/usr/local/bin/start-job');"
        "print(start['loader_variables'](os.environ, pathlib.Path('/host/version'), pathlib.Path('/host')))"
    )
    printed = run("run", "--rm", "--volume", f"{tmp_path}:/host:ro", image, "python", "-I", "-c", script)
    assert printed == "{'LD_LIBRARY_PATH': '/host'}"


@pytest.mark.parametrize("kind", list(ImageKind))
def test_the_images_hold_no_compiler_no_cache_and_no_wheels(engine: Docker, kind: ImageKind) -> None:
    image = built(engine, kind)
    found = run(
        "run", "--rm", "--entrypoint", "sh", image, "-c",
        "command -v gcc cc make; ls -d /root/.cache/pip /wheels /opt/libraries/bin/pip 2>/dev/null; true",
    )  # fmt: skip
    assert found == ""
    labels = json.loads(run("inspect", "--format", "{{json .Config.Labels}}", image))
    assert labels["org.opencontainers.image.version"]


def test_an_endpoint_in_a_container_draws_and_is_deleted(engine: Docker, typed: Typed, settings: Settings) -> None:
    built(engine, ImageKind.INFERENCE)
    deployed = typed("deploy", "box", "--host", "container")
    assert (deployed["host"], deployed["status"]) == ("container", "InService"), deployed
    picture = settings.home / "one.png"
    drawn = typed("generate", "box", "--prompt", "a photo of a dog", "--steps", "1", "-o", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG"), drawn
    assert [endpoint["name"] for endpoint in typed("endpoints", "list")] == ["box"]
    typed("endpoints", "delete", "box")
    assert typed("endpoints", "list") == []
    of_ours = f"label={FOLDER_LABEL}={settings.endpoints / 'box' / 'servers' / '1'}"
    assert run("ps", "--all", "--quiet", "--filter", of_ours) == ""
