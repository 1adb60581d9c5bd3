"""The program that starts what runs in both images: run as it is there, in front of a command of the test."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws.client import Aws
from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.environment import INPUTS_VARIABLE, ROOT_VARIABLE, START_PROGRAM
from orchestrator.jobs.failure_patterns import diagnose
from orchestrator.planning.bundle import bundle_tree
from orchestrator.resources import CONTAINERS
from orchestrator.storage import S3Store
from orchestrator.storage.folder import FolderStore
from orchestrator.storage.tree import tree_of_folder
from tests.storage.conftest import ACCOUNT, BUCKET

START = CONTAINERS / "start.py"
IMAGES = ("training", "inference")
NEW, OLD, SAME = "580.126.09", "535.183.01", "580.95.05"
Change = Callable[[Path], Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a container whose code is in place."""
    tree = bundle_tree(BundleKind.TRAINING)
    store = FolderStore(tmp_path / "store")
    store.put_tree(tree)
    (tmp_path / "ml" / "input" / "data").mkdir(parents=True)
    (tmp_path / "store" / tree.name).rename(tmp_path / "ml" / "input" / "data" / "code")
    data = tmp_path / "ml" / "input" / "data" / "training"
    data.mkdir()
    (data / "Füchslein #1.png").write_bytes(b"picture")
    return tmp_path / "ml"


def start(root: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    code = bundle_tree(BundleKind.TRAINING).sha256
    (root / "code-sha256").write_text(code)
    data = "0" * 64
    if (root / "expected").exists():
        data = (root / "expected").read_text()
    inputs = {INPUTS_VARIABLE: f"code={code} training={data}", ROOT_VARIABLE: str(root)}
    return subprocess.run(
        [sys.executable, "-I", START, *command],
        env={**os.environ, **inputs, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def expect_what_is_there(root: Path) -> None:
    (root / "expected").write_text(tree_of_folder("data", root / "input" / "data" / "training").sha256)


def test_a_job_whose_inputs_are_as_submitted_starts_with_its_own_words_and_variables(root: Path) -> None:
    expect_what_is_there(root)
    script = "import os, sys; print(sys.argv[1:], os.environ['MINE']); sys.exit(7)"
    started = start(root, sys.executable, "-c", script, "a b", "c", MINE="mine")
    assert (started.returncode, started.stdout) == (7, "['a b', 'c'] mine\n")


CHANGES: dict[str, Change] = {
    "code is changed": lambda data: (data / "code" / "entrypoints" / "train.py").write_text("print('mine')"),
    "code is added": lambda data: (data / "code" / "sitecustomize.py").write_text("print('mine')"),
    "code is gone": lambda data: (data / "code" / "entrypoints" / "train.py").unlink(),
    "byte code is added": lambda data: _byte_code(data / "code" / "entrypoints"),
    "a picture is changed": lambda data: (data / "training" / "Füchslein #1.png").write_bytes(b"another"),
    "a picture is added": lambda data: (data / "training" / "2.png").write_bytes(b"another"),
    "a channel is gone": lambda data: (data / "training").rename(data / "another"),
}


def _byte_code(folder: Path) -> None:
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"mine")


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_of_a_job_runs_when_somebody_changed_what_it_was_submitted_with(root: Path, change: str) -> None:
    expect_what_is_there(root)
    CHANGES[change](root / "input" / "data")
    code = str(root / "input" / "data" / "code")
    started = start(root, sys.executable, "-c", "print('started')", PYTHONPATH=code)
    assert started.returncode == 1
    assert "started" not in started.stdout
    assert "mine" not in started.stdout, "the changed code ran while it was checked"
    event = json.loads(started.stdout)
    assert (event["event"], event["kind"]) == ("failed", "changed-input")
    changed = root / ("expected" if "training" in event["message"] else "code-sha256")
    assert f"'*{changed.read_text()}*'" in event["next_step"]
    recognised = diagnose(event["message"])
    assert recognised
    assert recognised.pattern.kind == event["kind"]
    assert (root / "output" / "failure").read_text() == f"{event['message']}\nNext: {event['next_step']}"


def test_a_command_that_is_not_there_ends_in_words(root: Path) -> None:
    expect_what_is_there(root)
    started = start(root, "no-such-program")
    assert started.returncode == 1
    assert started.stderr.startswith("no-such-program cannot be started: ")


def test_without_a_command_it_ends_in_words(root: Path) -> None:
    started = start(root)
    assert started.returncode == 1
    assert started.stderr == "No command is given: start-job COMMAND [ARGUMENTS], or start-endpoint serve\n"


UNREADABLE: dict[str, Change] = {
    "a file that is gone": lambda data: (data / "training" / "2.png").symlink_to("nowhere"),
    "a file that is a loop": lambda data: (data / "training" / "2.png").symlink_to("2.png"),
    "a folder that is a loop": lambda data: (
        shutil.rmtree(data / "training"),
        (data / "training").symlink_to("training"),
    ),
}


@pytest.mark.parametrize("fault", UNREADABLE)
@pytest.mark.parametrize("writable", [True, False])
def test_inputs_that_cannot_be_read_end_in_words(root: Path, fault: str, writable: bool) -> None:
    expect_what_is_there(root)
    UNREADABLE[fault](root / "input" / "data")
    if not writable:
        (root / "output").touch()  # no folder for the failure file
    started = start(root, sys.executable, "-c", "print('started')")
    assert (started.returncode, started.stderr) == (1, "")
    event = json.loads(started.stdout)
    assert (event["event"], event["kind"]) == ("failed", "unreadable-input")
    assert event["message"].startswith("The inputs of the job cannot be read: ")
    assert "jobs retry" in event["next_step"]
    if writable:
        assert (root / "output" / "failure").read_text() == f"{event['message']}\nNext: {event['next_step']}"


def test_a_name_that_is_no_text_is_an_input_that_was_changed(root: Path) -> None:
    expect_what_is_there(root)
    Path(os.fsdecode(os.fsencode(root / "input" / "data" / "training") + b"/\xff.png")).touch()
    started = start(root, sys.executable, "-c", "print('started')")
    assert started.stderr == ""
    assert json.loads(started.stdout)["kind"] == "changed-input"


def loader_variables(tmp_path: Path, host: str | None, own: str | None, before: str = "") -> str:
    """Return LD_LIBRARY_PATH as the program sets it for a host and an image with these drivers."""
    driver, compat = tmp_path / "version", tmp_path / "compat"
    compat.mkdir()
    if host is not None:
        driver.write_text(
            f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {host}  Tue Nov  1\nGCC version:  gcc 12.2.0\n"
        )
    if own is not None:
        (compat / f"libcuda.so.{own}").touch()
        (compat / "libcuda.so.1").symlink_to(f"libcuda.so.{own}")
    script = (
        "import importlib.util, json, os, pathlib, sys\n"
        "spec = importlib.util.spec_from_file_location('start', sys.argv[1])\n"
        "start = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(start)\n"
        "print(json.dumps(start.loader_variables(os.environ, pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, START, driver, compat],
        env={"LD_LIBRARY_PATH": before},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(answer.stdout)
    return found.get("LD_LIBRARY_PATH", "").replace(str(compat), "COMPAT")


@pytest.mark.parametrize(
    ("host", "own", "before", "expected"),
    [
        (OLD, SAME, "", "COMPAT"),
        (OLD, SAME, "/usr/lib64", "COMPAT:/usr/lib64"),
        ("470.256.02", SAME, "", "COMPAT"),
        (SAME, SAME, "", ""),
        (NEW, SAME, "/usr/lib64", ""),
        (None, SAME, "", ""),
        (OLD, None, "", ""),
    ],
)
def test_the_images_driver_comes_first_where_the_hosts_is_older(
    tmp_path: Path, host: str | None, own: str | None, before: str, expected: str
) -> None:
    assert loader_variables(tmp_path, host, own, before) == expected


SOURCES: dict[str, Callable[[Path], Path]] = {
    "model": lambda root: root / "model",
    "base_model": lambda root: root / "additional-model-data-sources" / "base_model",
    "code": lambda root: root / "additional-model-data-sources" / "code",
}


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder of a container of an endpoint, whose code says what it was started with."""
    root = tmp_path / "ml"
    for place in SOURCES.values():
        place(root).mkdir(parents=True)
    (root / "model" / "server.json").write_text("{}")
    (SOURCES["base_model"](root) / "model.safetensors").write_bytes(b"weights")
    code = SOURCES["code"](root) / "entrypoints"
    code.mkdir()
    (code / "__init__.py").touch()
    (code / "serve.py").write_text("import sys; print('serves', sys.argv[1:])")
    return root


def serve(root: Path, inputs: str) -> subprocess.CompletedProcess[str]:
    code = str(SOURCES["code"](root))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {INPUTS_VARIABLE: inputs, ROOT_VARIABLE: str(root), "PYTHONPATH": code, "PATH": path}
    return subprocess.run(
        [sys.executable, "-I", START, "serve"],
        cwd=root,
        env={**os.environ, **variables, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def inputs_of(root: Path) -> str:
    return " ".join(f"{name}={tree_of_folder('data', place(root)).sha256}" for name, place in SOURCES.items())


def test_an_endpoint_whose_sources_are_as_deployed_serves(served: Path) -> None:
    started = serve(served, inputs_of(served))
    assert (started.returncode, started.stdout) == (0, "serves ['serve']\n"), started.stderr


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_of_an_endpoint_runs_when_somebody_changed_one_of_its_sources(served: Path, source: str) -> None:
    inputs = inputs_of(served)
    (SOURCES[source](served) / "added.py").write_text("print('mine')")
    started = serve(served, inputs)
    assert started.returncode == 1
    assert "serves" not in started.stdout
    event = json.loads(started.stdout)
    assert (event["kind"], f"The input {source} is" in event["message"]) == ("changed-input", True)


@pytest.mark.parametrize("image", IMAGES)
def test_the_images_have_the_program_where_it_is_called_and_ask_for_the_gpus(image: str) -> None:
    lines = (CONTAINERS / image / "Dockerfile").read_text()
    program = {"training": START_PROGRAM, "inference": "/usr/local/bin/start-endpoint"}[image]
    assert f"COPY start.py {program}\n" in lines
    assert START.read_text().startswith("#!/opt/libraries/bin/python -I\n")
    assert "NVIDIA_VISIBLE_DEVICES=all" in lines
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in lines
    assert "!start.py" in (CONTAINERS / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("image", IMAGES)
def test_the_cuda_of_the_compatibility_libraries_is_the_one_torch_is_built_with(image: str) -> None:
    requirements = (CONTAINERS / image / "requirements.txt").read_text()
    runtime = requirements.partition("nvidia-cuda-runtime==")[2].split(".")[:2]
    assert f"ARG CUDA_IMAGE=nvidia/cuda:{'.'.join(runtime)}." in (CONTAINERS / image / "Dockerfile").read_text()
    assert f"/usr/local/cuda-{'.'.join(runtime)}/compat/" in (CONTAINERS / image / "Dockerfile").read_text()


@pytest.mark.usefixtures("wire")
def test_what_the_advice_after_a_changed_input_deletes_is_uploaded_again(root: Path, aws: Aws) -> None:
    expect_what_is_there(root)
    tree = tree_of_folder("data", root / "input" / "data" / "training")
    (root / "picture.png").write_bytes(b"picture")
    tree = tree.model_copy(update={"sources": dict.fromkeys(tree.files, root / "picture.png")})
    store = S3Store(aws, BUCKET, ACCOUNT)
    store.put_tree(tree)
    s3 = aws.client("s3")
    lost = f"{tree.name}Füchslein #1.png"
    s3.delete_object(Bucket=BUCKET, Key=lost)
    (root / "input" / "data" / "training" / "2.png").write_bytes(b"another")
    advice = json.loads(start(root, "python").stdout)["next_step"]
    (pattern,) = re.findall(r"--include '(\S+)'", advice)
    deleted = [key for key in store.list_prefix("") if fnmatch(key, pattern)]
    for key in deleted:
        s3.delete_object(Bucket=BUCKET, Key=key)
    store.put_tree(tree)
    assert lost in store.list_prefix(tree.name)
