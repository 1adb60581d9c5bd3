"""One attempt of a job, or one server, in SageMaker local mode, and the one door to the SageMaker SDK.

`python -I local_mode.py ORDER.json`, in the environment of the SDK (`sdk.py`), which has nothing of ours: the standard
library and the SDK only. It gives the request to the SDK's local session, prints what the containers print, and ends as
they ended: with the exit status of the first that failed, or by SIGKILL if that one was killed.

Local mode as it is loses what a job needs: it has no `/opt/ml/checkpoints`, leaves files of root, prints credentials
into a file, packs the result into an archive, and drops the last lines of the log. `_container_class` overrides these
parts of it; `containers/local_mode/requirements.txt` pins the version that they belong to.
https://github.com/aws/sagemaker-python-sdk/tree/master/sagemaker-core/src/sagemaker/core/local
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

ORDER_FILE = "order.json"
_REGION = "us-east-1"  # the SDK asks for one; nothing is called there
_STOP_GRACE_SECONDS = 120  # of a job, as on SageMaker, between SIGTERM and SIGKILL
_SERVER_GRACE_SECONDS = 30  # and of an endpoint
_SHARED_MEMORY = "2gb"  # at most; docker's 64 MB are too little for processes that share a machine's GPUs
_HEALTH_SECONDS = 1800  # for a server to answer /ping; on SageMaker the request says how long
_POLL_SECONDS = 0.5
_EVIDENCE_LINES = 4
_STOPPED = 143  # 128 + SIGTERM
_KILLED = 137  # 128 + SIGKILL
_INSPECTED = '{"code": {{.State.ExitCode}}, "ended": {{json .State.FinishedAt}}, "oom": {{.State.OOMKilled}}}'
_SIGNS = (
    ("no space left on device", "docker system prune"),
    (
        "could not select device driver",
        "install the NVIDIA Container Toolkit (https://docs.nvidia.com/datacenter/cloud-native/container-toolkit)",
    ),
    ("unknown or invalid runtime name: nvidia", "sudo nvidia-ctk runtime configure && sudo systemctl restart docker"),
    ("port is already allocated", "type the command again: another program took the port meanwhile"),
    ("non-overlapping ipv4 address pool", "docker network prune"),
)
"""What docker says when it cannot start a container, and the next command."""
_PROGRESS = re.compile(
    r"(Creating|Recreating|Starting|Stopping|Killing|Removing) \S*algo-\d\S* \.\.\."
    r"|Attaching to \S*algo-\d"
    r"|\S*algo-\d\S* exited with code \d+"
    r"|Aborting on container exit"
    r"|\s*(Container|Network) \S+ +[A-Z][a-z]+\s*$"
)
"""How docker compose, of both versions, tells what it does: none of it is of the job."""


class Serving(TypedDict):
    """The server of an endpoint."""

    image: str
    """Image of the container."""
    instance_type: str
    """`local` or `local_gpu`."""
    port: int
    """Where it listens, in the container and on this machine's loopback interface."""
    environment: dict[str, str]
    """Its variables."""


class Order(TypedDict):
    """What an attempt or a server is started with."""

    request: dict[str, Any]
    """The CreateTrainingJob request of a job; empty for a server."""
    serving: Serving | None
    """The server; None for a job."""
    root: str
    """The job's `/opt/ml` on this machine."""
    work: str
    """Folder for what the SDK writes."""
    channels: dict[str, str]
    """Folder of each input channel; containers may not write there."""
    sources: dict[str, str]
    """Further folders by their paths in the containers, which may not write there."""
    folders: dict[str, str]
    """Further folders by their paths in the containers, which may write there."""
    job_label: str
    """Label of these containers alone: NAME=VALUE."""
    labels: dict[str, str]
    """All labels of the containers."""
    user: str
    """Whose files they write: UID:GID."""
    variables: dict[str, str]
    """Variables of the containers beside those of the request."""
    inherited: list[str]
    """Names of variables that docker compose takes from its own environment."""


class _Ending(NamedTuple):
    """How a container ended."""

    ended: str
    """When, as text that sorts."""
    code: int
    """Its exit status."""
    out_of_memory: bool
    """Whether the system killed it for want of memory."""


class Stop:
    """Sends the containers of a job SIGTERM or SIGKILL, those too that are started later."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.asked: set[str] = set()
        """Signals that the containers are to get."""
        self.over = False

    def ask(self, number: int, _frame: object) -> None:
        """Handle SIGTERM, which is passed on, and SIGUSR1, which asks for SIGKILL."""
        name = "TERM" if number == signal.SIGTERM else "KILL"
        if name not in self.asked:
            self.asked.add(name)
            threading.Thread(target=self._deliver, args=(name,), daemon=True).start()

    def watch_hosts(self) -> None:
        """End all hosts of a job when one of them has failed, as SageMaker does; a host that is done waits for none."""
        threading.Thread(target=self._end_with_first_failure, daemon=True).start()

    def _end_with_first_failure(self) -> None:
        while not any(ending.code != 0 for ending in _endings(self.label)):
            if self.over:
                return
            time.sleep(_POLL_SECONDS)
        if self.asked:  # all of them have got the signal, and a second one would end them before they have saved
            return
        threading.Thread(target=self._deliver, args=("TERM",), daemon=True).start()
        ends = time.monotonic() + _STOP_GRACE_SECONDS
        while not self.over and time.monotonic() < ends:
            time.sleep(_POLL_SECONDS)
        self._deliver("KILL")

    def _deliver(self, name: str) -> None:
        """Send a signal to each container once; docker compose may not have started all of them yet."""
        told: set[str] = set()
        while not self.over:
            running = _docker("ps", "--quiet", "--filter", f"label={self.label}").split()
            new = set(running) - told
            if new:
                _docker("kill", "--signal", name, *new)
                told |= new
            time.sleep(_POLL_SECONDS)


def main(path: str) -> int:
    """Run the attempt and return its exit status."""
    order: Order = json.loads(Path(path).read_text(encoding="utf-8"))
    stop = Stop(order["job_label"])
    signal.signal(signal.SIGTERM, stop.ask)
    signal.signal(signal.SIGUSR1, stop.ask)
    _clean_environment()
    try:
        _run(order, stop)
    except RuntimeError as error:  # of the SDK: compose ended with another status than 0
        failure = str(error)
    else:
        failure = ""
    stop.over = True
    endings = _endings(order["job_label"])
    _remove_containers(order["job_label"])
    if "KILL" in stop.asked and not endings:
        os.kill(os.getpid(), signal.SIGKILL)
    if stop.asked and not endings:
        return _STOPPED
    if not endings:
        if not _docker("version", "--format", "{{.Server.Version}}"):
            _report_engine_gone(failure, order["request"].get("TrainingJobName"))
        else:
            _report_not_started(failure, Path(order["work"]))
        return 1
    return _exit_as(endings)


def _clean_environment() -> None:
    """Hide credentials from the SDK, and our import path from docker-compose.

    The SDK would write credentials into a file and hand them to the containers; docker-compose is a program in Python,
    and would import our libraries.
    """
    for name in list(os.environ):
        if name.startswith("AWS_") or name in {"PYTHONPATH", "PYTHONHOME"}:
            del os.environ[name]
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.environ["AWS_CONFIG_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


def _run(order: Order, stop: Stop) -> None:
    """Give the request to a local session of the SDK, and return when the containers have ended."""
    import boto3  # the SDK's own
    from sagemaker.core.local import entities, image, local_session

    image._stream_output = _stream_to_end  # noqa: SLF001
    # Imported by name: jobs are started by one of these modules, endpoints by the other.
    local_session._SageMakerContainer = entities._SageMakerContainer = _container_class(order)  # noqa: SLF001
    session = local_session.LocalSession(
        boto_session=boto3.Session(region_name=_REGION),
        sagemaker_config=_SDK_CONFIG,
    )
    serving = order["serving"]
    grace = _STOP_GRACE_SECONDS if serving is None else _SERVER_GRACE_SECONDS
    session.config = {
        "local": {
            "local_code": True,
            "container_root": order["work"],
            "container_config": {
                "user": order["user"],
                "labels": {name: text.replace("$", "$$") for name, text in order["labels"].items()},
                "init": True,  # forwards SIGTERM before the job has a handler of its own
                "stop_grace_period": f"{grace}s",
                "shm_size": _SHARED_MEMORY,
            },
        }
    }
    if stop.asked:
        return
    if serving is None:
        stop.watch_hosts()
        session.sagemaker_client.create_training_job(**order["request"])
    else:
        session.config["local"] |= {"serving_port": serving["port"], "health_check_timeout": _HEALTH_SECONDS}
        _serve(session.sagemaker_client, serving)


def _serve(client: Any, serving: Serving) -> None:
    """Create an endpoint and return when its container has ended; raises RuntimeError when compose failed."""
    from sagemaker.core.local import image

    ended = threading.Event()
    failures: list[str] = []

    def run(hosting: Any) -> None:
        hosting.process = subprocess.Popen(hosting.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            _stream_to_end(hosting.process)
        except RuntimeError as error:
            failures.append(str(error))
        ended.set()

    image._HostingContainer.run = run  # noqa: SLF001  (its own prints no errors, and loses the last lines)
    client.create_model("model", {"Image": serving["image"], "ModelDataUrl": "", "Environment": serving["environment"]})
    variant = {
        "VariantName": "all",
        "ModelName": "model",
        "InitialInstanceCount": 1,
        "InstanceType": serving["instance_type"],
    }
    client.create_endpoint_config("config", [variant])

    def create() -> None:
        try:
            client.create_endpoint("endpoint", "config")
        except Exception as error:  # noqa: BLE001  (whatever it is, it is told and ends the server)
            failures.append(str(error))
            ended.set()

    # The call returns when /ping answers; a container that ends before would have it wait on.
    threading.Thread(target=create, daemon=True).start()
    ended.wait()
    if failures:
        raise RuntimeError(failures[0])


_SDK_CONFIG = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}
"""The SDK would otherwise tell AWS of each call."""


def _container_class(order: Order) -> Any:  # a subclass of the SDK's class, which has no types
    """Return the SDK's class for the containers of a job, with our folders, users and log."""
    from sagemaker.core.local.image import _SageMakerContainer

    class JobContainers(_SageMakerContainer):  # type: ignore[misc]  # the SDK is not installed here
        def _prepare_training_volumes(self, data_dir: str, *_: Any) -> list["_Mount"]:
            """Mount channels, model and checkpoints; their names also have to exist below `input/data`."""
            mounts = []
            for channel, folder in order["channels"].items():
                Path(data_dir, channel).mkdir()
                mounts.append(_Mount(folder, f"/opt/ml/input/data/{channel}", read_only=True))
            return [*mounts, *_further_mounts(order)]

        def _prepare_serving_volumes(self, _model: str) -> list["_Mount"]:
            """Mount the model, and what the SDK has no place for: the base model, the code, later adapters."""
            Path(self.container_root, self.hosts[0]).mkdir()
            return _further_mounts(order)

        def _build_optml_volumes(self, host: str, subdirs: set[str]) -> list["_Mount"]:
            """Mount the rest of `/opt/ml`: by-products of the first host are the job's, others are thrown away."""
            if not subdirs:  # of an endpoint
                return []
            own = Path(self.container_root, host)
            return _job_mounts(order, own, is_first=host == self.hosts[0])

        def _create_docker_host(self, *given: Any, **named: Any) -> dict[str, Any]:
            """Leave out the terminal, which SageMaker has none of either."""
            made: dict[str, Any] = super()._create_docker_host(*given, **named)
            made["tty"] = made["stdin_open"] = False
            variables = [text.replace("$", "$$") for text in made["environment"]]
            more = [f"{name}={value}".replace("$", "$$") for name, value in order["variables"].items()]
            made["environment"] = [*variables, *more, *order["inherited"]]
            serving = order["serving"]
            if serving is not None:  # the SDK's would be open to the network
                port = serving["port"]
                made["ports"] = [f"127.0.0.1:{port}:{port}"]
            return made

        def _compose(self, detached: bool = False) -> list[str]:
            """Print lines as the containers print them, ours are events in JSON; let each host come to its end."""
            words: list[str] = super()._compose(detached)
            words.remove("--abort-on-container-exit")
            return [*words, "--no-color", "--no-log-prefix"]

        def retrieve_artifacts(self, *_: Any) -> str:
            """Leave the result where it is; the worker publishes it."""
            return order["folders"]["/opt/ml/model"]

    return JobContainers


def _job_mounts(order: Order, own: Path, *, is_first: bool) -> list["_Mount"]:
    """Mount `input` and `output` of a host of a job; `own` is the SDK's folder of the host."""
    output = Path(order["root"], "output") if is_first else own / "output"
    (output / "data").mkdir(parents=True, exist_ok=True)  # docker makes missing ones, as root's
    return [_Mount(str(own / "input"), "/opt/ml/input"), _Mount(str(output), "/opt/ml/output")]


def _further_mounts(order: Order) -> list["_Mount"]:
    """Mount what the order names: sources that are read, and folders that are written to."""
    mounts = [_Mount(folder, inside, read_only=True) for inside, folder in order["sources"].items()]
    return mounts + [_Mount(folder, inside) for inside, folder in order["folders"].items()]


class _Mount:
    """A folder of this machine in a container, as the SDK's `_Volume`."""

    def __init__(self, host_dir: str, container_dir: str, *, read_only: bool = False) -> None:
        self.host_dir = host_dir
        self.container_dir = container_dir
        options = ["ro"] if read_only else []
        if os.environ.get("SAGEMAKER_LOCAL_SELINUX_ENABLED", "").lower() in {"1", "true", "yes"}:
            options.append("z")
        parts = [host_dir.replace("$", "$$"), container_dir]  # compose replaces $NAME
        if options:
            parts.append(",".join(options))
        self.map = ":".join(parts)


def _stream_to_end(process: "subprocess.Popen[bytes]") -> int:
    """Print what containers and failures of docker compose say, and return its exit status.

    The SDK's function loses the last lines.
    """
    threading.Thread(target=_end_without_reader, args=(process,), daemon=True).start()
    output = process.stdout or ()
    try:
        for said in output:
            line = said.decode("utf-8", errors="replace")
            if _PROGRESS.match(line):
                continue
            sys.stdout.write(line)
            sys.stdout.flush()
    except BrokenPipeError:  # the worker is gone: nobody waits for the job
        process.terminate()
        raise
    code = process.wait()
    if code not in {0, 130}:
        raise RuntimeError(f"docker compose ended with {code}")
    return code


def _end_without_reader(process: "subprocess.Popen[bytes]") -> None:
    """End docker compose when the worker is gone, which a job that prints nothing for hours does not show otherwise."""
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)  # errors are told without being asked for
    while process.poll() is None:
        if reader.poll(1000 * _POLL_SECONDS):
            process.terminate()
            return


def _endings(label: str) -> list[_Ending]:
    """Return how the containers that were started ended, the first to end first."""
    found = []
    containers = _docker("ps", "--all", "--quiet", "--filter", f"label={label}").split()
    for container in containers:
        text = _docker("inspect", "--format", _INSPECTED, container)
        if not text:
            continue
        state = json.loads(text)
        if not state["ended"].startswith("0001"):  # docker's time of what has never run
            found.append(_Ending(state["ended"], state["code"], state["oom"]))
    return sorted(found)


def _exit_as(endings: Sequence[_Ending]) -> int:
    """Return the status of the first container that did not end well; end by SIGKILL if that is how it ended."""
    bad = [ending for ending in endings if ending.code != 0]
    if not bad:
        return 0
    first = bad[0]
    if first.code == _KILLED or first.out_of_memory:
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return first.code


def _report_not_started(failure: str, work: Path) -> None:
    """Say why no container was started, as an event of the log."""
    log = work.parent / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_EVIDENCE_LINES:]
    said = " ".join(line.strip() for line in lines)
    next_step = ""
    for sign, command in _SIGNS:
        if sign in said:
            next_step = command
    _report(f"Docker could not start the container ({failure}): {said}", next_step)


def _report_engine_gone(failure: str, job: str | None) -> None:
    """Say that it was not the container that failed; an endpoint has no job."""
    again = f"python -m orchestrator jobs retry {job}" if job else "deploy again"
    next_step = f"sudo systemctl start docker  (or open Docker Desktop; then: {again})"
    _report(f"The Docker engine ended while the container ran ({failure}).", next_step)


def _report(message: str, next_step: str) -> None:
    """Say why the job failed, as an event of the log."""
    event = {"event": "failed", "kind": "container", "message": message, "next_step": next_step}
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _remove_containers(label: str) -> None:
    """Remove all containers with a label, those that still run too."""
    containers = _docker("ps", "--all", "--quiet", "--filter", f"label={label}").split()
    if containers:
        _docker("rm", "--force", "--volumes", *containers)


def _docker(*words: str, seconds: float | None = None) -> str:
    """Return what docker prints; nothing when it fails, as for a container that is gone, or takes too long."""
    try:
        answer = subprocess.run(
            ["docker", *words],  # noqa: S607  (whichever docker the person has)
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
