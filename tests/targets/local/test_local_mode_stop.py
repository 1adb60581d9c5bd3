"""Signals for the containers of a job: each gets one, also those that docker compose has not started yet."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.targets.local import local_mode
from orchestrator.targets.local.local_mode import Stop

SECONDS = 20
PROGRAM = f"""#!{sys.executable}
import sys
from pathlib import Path
folder = Path(__file__).parent
if sys.argv[1] == "ps":
    print((folder / "running").read_text())
elif sys.argv[1] == "inspect":
    print((folder / "inspected").read_text())
else:
    with (folder / "sent").open("a") as file:
        file.write(" ".join(sys.argv[1:]) + "\\n")
"""


class Engine:
    """A program called docker, which says what is told it and keeps the signals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "docker").write_text(PROGRAM)
        (folder / "docker").chmod(0o755)
        (folder / "sent").touch()
        self.run()

    def run(self, *containers: str) -> None:
        """Have these containers run from now on."""
        fresh = self.folder / "fresh"
        fresh.write_text("\n".join(containers))
        fresh.replace(self.folder / "running")

    def wait_for(self, *sent: str) -> None:
        """Wait until so many signals were sent, and compare them."""
        ticks = threading.Event()
        for _ in range(SECONDS * 20):
            if len(self.sent()) >= len(sent):
                break
            ticks.wait(0.05)
        assert self.sent() == list(sent)

    def sent(self) -> list[str]:
        return (self.folder / "sent").read_text().splitlines()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("PATH", str(tmp_path))
    return Engine(tmp_path)


@pytest.fixture
def stop() -> Iterator[Stop]:
    made = Stop("job=1")
    yield made
    made.over = True


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "TERM"), (signal.SIGUSR1, "KILL")])
def test_a_host_that_starts_after_the_others_is_stopped_too(
    engine: Engine, stop: Stop, number: signal.Signals, name: str
) -> None:
    stop.ask(number, None)
    engine.run("first")
    engine.wait_for(f"kill --signal {name} first")
    engine.run("first", "second")
    engine.wait_for(f"kill --signal {name} first", f"kill --signal {name} second")


def test_a_second_stop_sends_nothing_again_and_a_kill_does(engine: Engine, stop: Stop) -> None:
    engine.run("first")
    stop.ask(signal.SIGTERM, None)
    engine.wait_for("kill --signal TERM first")
    stop.ask(signal.SIGTERM, None)
    stop.ask(signal.SIGUSR1, None)
    engine.wait_for("kill --signal TERM first", "kill --signal KILL first")


def test_docker_compose_ends_when_the_worker_is_gone_though_the_job_prints_nothing() -> None:
    script = (
        "import subprocess\n"
        "from orchestrator.targets.local.local_mode import _stream_to_end\n"
        "_stream_to_end(subprocess.Popen(['sleep', '600'], stdout=subprocess.PIPE))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
        assert worker.stdout is not None
        worker.stdout.close()
        assert worker.wait(timeout=60) != 0


def test_a_host_that_starts_after_another_has_failed_is_ended_too(engine: Engine, stop: Stop) -> None:
    ended = '{"code": 3, "ended": "2026", "oom": false}'
    (engine.folder / "inspected").write_text(ended)
    engine.run("first")
    stop.watch_hosts()
    engine.wait_for("kill --signal TERM first")
    engine.run("first", "second")
    engine.wait_for("kill --signal TERM first", "kill --signal TERM second")


@pytest.mark.parametrize(
    "said",
    [
        "Creating nfnf-algo-1-zbq9v ... done",
        "Attaching to nfnf-algo-1-zbq9v",
        "nfnf-algo-1-zbq9v exited with code 137",
        "Aborting on container exit...",
        " Container nfnf-algo-1-zbq9v  Created",  # of version 2
    ],
)
def test_what_docker_compose_says_of_itself_is_not_of_the_log(said: str, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [said, "Creating latents ... done", "ERROR: for nfnf-algo-1-zbq9v  No such image"]
    text = "\n".join(lines)
    with subprocess.Popen(["printf", "%s\n", text], stdout=subprocess.PIPE) as process:
        assert local_mode._stream_to_end(process) == 0
    assert capfd.readouterr().out.splitlines() == lines[1:]
