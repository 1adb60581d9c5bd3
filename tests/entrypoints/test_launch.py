"""Several processes train as one: the same adapter, one report, one end. Real processes over gloo on this machine."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.api import SignalException

from entrypoints.launch import rendezvous, run_together
from entrypoints.runtime.stop import StopFlag, Stopped
from entrypoints.train import LAUNCHER_VARIABLE
from entrypoints.training.checkpoint import newest_first
from orchestrator.contract.environment import (
    EXIT_FAILED,
    EXIT_STOPPED,
    EXIT_WAITING,
    RANKS_VARIABLE,
    ROOT_VARIABLE,
    WAIT_VARIABLE,
    Environment,
    Hosts,
)
from orchestrator.contract.labels import EXCHANGE_FOLDER, LABELS_FOLDER, LABELS_PHASE, WAITS_FOR_LABELS, round_folder
from orchestrator.contract.rounds import read_round
from tests.labels.made import file_of, label

ROOT = Path(__file__).parents[2]
LORA = "pytorch_lora_weights.safetensors"
Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start a job's entry as the service does; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(environment: Environment, *, processes: int, **variables: str) -> subprocess.Popen[str]:
        own = {ROOT_VARIABLE: str(environment.root), RANKS_VARIABLE: str(processes), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "entrypoints.launch"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **own, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def outcome(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    output, errors = process.communicate(timeout=240)
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    for event in events:
        del event["at"]
    return process.returncode, events, errors


def steps_in(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "step"]


def failures_in(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "failed"]


def wait_for(process: subprocess.Popen[str], event: str) -> None:
    """Read a job's events until one of a kind comes."""
    assert process.stdout is not None
    for line in process.stdout:
        if f'"event":"{event}"' in line:
            return
    raise AssertionError(f"the job ended without the event {event}")


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(word) for word in found.stdout.split()]


def recipe(**fields: Any) -> Any:
    small = {"steps": 6, "evaluation_prompts": 0, "random_crop": True, "class_images": 4, "snr_gamma": 5.0}
    return tiny.dreambooth(**{**small, **fields})


def test_two_processes_train_what_one_trains_with_twice_the_batch(job: Any, launch: Launch) -> None:
    alone = job(recipe(batch_size=4), "alone")
    together = job(recipe(batch_size=2), "together")
    status, events_of_one, errors = outcome(launch(alone, processes=1))
    assert status == 0, errors
    status, events, errors = outcome(launch(together, processes=2))
    assert status == 0, errors
    steps, steps_of_one = steps_in(events), steps_in(events_of_one)
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]  # one reports
    losses = [step["loss"] for step in steps]
    assert losses == pytest.approx([step["loss"] for step in steps_of_one], abs=1e-4)  # and the loss is everyone's
    expected, found = load_file(alone.model / LORA), load_file(together.model / LORA)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)
    moved = [tensor.abs().max() for name, tensor in found.items() if "lora_B" in name or "lora.up" in name]
    assert max(moved) > 1e-3  # something was trained


@pytest.mark.parametrize("algorithm", ["ddpo", "nft"])
def test_two_processes_draw_the_rounds_of_one_with_twice_the_prompts(algorithm: str, job: Any, launch: Launch) -> None:
    fields = {"algorithm": algorithm, "evaluation_prompts": 0, "updates": 1, "kl_weight": 0.1}
    alone = job(tiny.rlhf(prompts_per_round=4, **fields), "alone")
    together = job(tiny.rlhf(prompts_per_round=2, **fields), "together")
    status, expected, errors = outcome(launch(alone, processes=1))
    assert status == 0, errors
    status, found, errors = outcome(launch(together, processes=2))
    assert status == 0, errors
    assert len(steps_in(found)) == len(steps_in(expected)) == 2
    # Another batch rounds otherwise, and a JPEG is some bytes longer. What draws the next round are weights in which
    # Adam's first step makes much of such rounding.
    one, two = steps_in(expected)[0]["measures"], steps_in(found)[0]["measures"]
    assert two["reward"] == pytest.approx(one["reward"], abs=0.02)
    assert two["reward_std"] == pytest.approx(one["reward_std"], abs=0.02)
    for step in steps_in(found) if algorithm == "ddpo" else ():
        assert step["measures"]["ratio_change"] == 0
    for name, weight in load_file(alone.model / LORA).items():
        assert torch.isfinite(weight).all()
        assert load_file(together.model / LORA)[name].shape == weight.shape


def test_two_processes_wait_for_people_together_and_learn_from_the_same_labels(job: Any, launch: Launch) -> None:
    rewards = ({"name": "human"},)
    environment = job(tiny.rlhf(rewards=rewards, prompts_per_round=1, rounds=1, updates=1, evaluation_prompts=0))
    status, events, errors = outcome(launch(environment, processes=2))
    assert status == EXIT_WAITING, errors
    (told,) = failures_in(events)
    assert told["kind"] == WAITS_FOR_LABELS
    assert "Round 0 waits for labels: 0 of 8 images" in told["message"]
    exchange = environment.checkpoints / EXCHANGE_FOLDER
    manifest = read_round(exchange, 0)
    assert manifest is not None
    assert [sample.group for sample in manifest.samples] == [0] * 4 + [1] * 4  # of the first process, then the second
    labels = [label(n, sample=one.id, rating=1 + n % 5) for n, one in enumerate(manifest.samples)]
    folder = exchange / round_folder(0) / LABELS_FOLDER
    folder.mkdir()
    (folder / "all.jsonl").write_bytes(file_of(*labels))
    status, events, errors = outcome(launch(environment, processes=2))
    assert status == 0, errors
    (step,) = steps_in(events)
    assert step["measures"]["reward"] == pytest.approx((1 + 2 + 3 + 4 + 5 + 1 + 2 + 3) / 8)


def test_a_job_that_waits_for_people_ends_when_nobody_records_it_any_more(job: Any, launch: Launch) -> None:
    rewards = ({"name": "human"},)
    environment = job(tiny.rlhf(rewards=rewards, prompts_per_round=1, rounds=1, updates=1, evaluation_prompts=0))
    process = launch(environment, processes=1, **{WAIT_VARIABLE: "hold"})
    assert process.stdout is not None
    for line in process.stdout:
        if LABELS_PHASE in line:
            break
    wait_for(process, "item")  # how many images have a label: the last word until there are more
    process.stdout.close()  # as when the worker is killed
    assert process.wait(timeout=60) == EXIT_FAILED


def test_another_number_of_processes_is_refused_with_words(job: Any, launch: Launch) -> None:
    environment = job(recipe(steps=2))
    assert outcome(launch(environment, processes=1))[0] == 0
    before = [path.name for path in newest_first(environment.checkpoints)]
    status, events, _ = outcome(launch(environment, processes=2))
    assert status == EXIT_FAILED
    (failure,) = failures_in(events)
    (again,) = failures_in(outcome(launch(environment, processes=2))[1])  # the failure file of the first is no cause
    assert again == failure
    assert failure["kind"] == "resume"
    assert "number of processes that train together (was 1, is 2)" in failure["message"]
    assert [path.name for path in newest_first(environment.checkpoints)] == before


def test_all_processes_agree_on_a_loss_that_is_not_finite(job: Any, launch: Launch) -> None:
    environment = job(recipe(steps=200, learning_rate=0.99, tuner="full", weight_decay=1e3, prior_preservation=False))
    status, events, errors = outcome(launch(environment, processes=2))
    assert status == EXIT_FAILED
    (failure,) = failures_in(events)  # said once
    assert failure["kind"] == "nan-loss", errors
    last = max(step["step"] for step in steps_in(events))
    assert f"at step {last + 1}; the checkpoint at step {last} is kept" in failure["message"]


def test_a_killed_launcher_takes_its_processes_along(job: Any, launch: Launch) -> None:
    environment = job(recipe(steps=4000, class_images=2))
    process = launch(environment, processes=2)
    wait_for(process, "step")
    workers = [os.pidfd_open(pid) for pid in workers_of(process)]
    assert len(workers) == 2
    process.kill()
    for worker in workers:
        readable, _, _ = select.select([worker], [], [], 30)  # readable when the process has ended
        assert readable
        os.close(worker)


def test_a_killed_process_is_reported_in_words(job: Any, launch: Launch) -> None:
    environment = job(recipe(steps=4000, class_images=2))
    process = launch(environment, processes=2)
    wait_for(process, "step")
    for worker in workers_of(process):
        os.kill(worker, signal.SIGKILL)
    status, events, errors = outcome(process)
    assert status == EXIT_FAILED
    (failure,) = failures_in(events)
    assert failure["kind"] == "lost-process", errors
    assert "was ended by SIGKILL" in failure["message"]
    assert "jobs retry" in failure["next_step"]
    assert failure["message"] in environment.failure_file.read_text()


@pytest.mark.parametrize("moment", ["class images", "validation"])
def test_all_processes_stop_while_one_draws(job: Any, launch: Launch, moment: str) -> None:
    long = {"inference_steps": 20, "class_images": 400}
    if moment == "validation":
        long = {"inference_steps": 20, "prior_preservation": False, "validation_prompts": ["a"] * 60}
    environment = job(recipe(steps=4000, validation_steps=1, **long))
    process = launch(environment, processes=2)
    assert process.stdout is not None
    times = {"class images": 1, "validation": 2}[moment]  # the first validation is before the first step
    for line in process.stdout:
        times -= f'"name":"{moment}"' in line
        if not times:
            break
    process.send_signal(signal.SIGTERM)
    status, events, errors = outcome(process)
    assert status == EXIT_STOPPED, errors
    assert failures_in(events) == []
    assert steps_in(events) == []  # none after the signal: nobody waited for the last image
    if moment == "validation":
        assert len([*newest_first(environment.checkpoints)]) == 1
    assert not environment.failure_file.exists()


@pytest.mark.parametrize("number", ["two", "0", "-1"])
def test_a_number_of_processes_that_is_none_is_refused(job: Any, launch: Launch, number: str) -> None:
    environment = job(recipe())
    status, events, errors = outcome(launch(environment, processes=1, **{RANKS_VARIABLE: number}))
    assert status == EXIT_FAILED
    (failure,) = failures_in(events)
    assert f'{RANKS_VARIABLE} is "{number}"' in failure["message"]
    assert "Traceback" not in errors


@pytest.mark.parametrize("text", ["{", '{"current_host": "algo-3", "hosts": ["algo-1", "algo-2"]}'])
def test_a_broken_list_of_hosts_is_reported_in_words(job: Any, launch: Launch, text: str) -> None:
    environment = job(recipe())
    environment.resource_config_file.write_text(text)
    status, events, errors = outcome(launch(environment, processes=1))
    assert status == EXIT_FAILED
    (failure,) = failures_in(events)
    assert "resourceconfig.json cannot be read" in failure["message"]
    assert "Traceback" not in errors


def hosts_of_loopback(job: Any, names: list[str], **fields: Any) -> list[Environment]:
    """Lay the same job out on each of two hosts, which are two addresses of this machine."""
    return laid_out_on(job, names, recipe(**fields))


def laid_out_on(job: Any, names: list[str], chosen: Any) -> list[Environment]:
    environments = []
    for name in names:
        environment = job(chosen, f"host-{name}")
        config = {"current_host": name, "hosts": names, "network_interface_name": "lo"}
        environment.resource_config_file.write_text(json.dumps(config))
        environments.append(environment)
    return environments


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_two_hosts_meet_stop_together_and_go_on(job: Any, launch: Launch) -> None:
    names = ["127.0.0.1", "127.0.0.2"]
    first, second = hosts_of_loopback(job, names, steps=4000, checkpoint_steps=2000, class_images=2)
    port = free_port()
    running = [launch(environment, processes=1, MASTER_PORT=port) for environment in (first, second)]
    assert running[0].stdout is not None
    for line in running[0].stdout:
        if '"event":"step"' in line and json.loads(line)["step"] >= 3:
            break
    running[1].send_signal(signal.SIGTERM)  # one host hears of it; the other stops at the same step
    statuses = [outcome(process)[0] for process in running]
    assert statuses == [EXIT_STOPPED, EXIT_STOPPED]
    assert [path.name for path in newest_first(second.checkpoints)] == []  # one host writes
    assert len([*newest_first(first.checkpoints)]) == 1
    assert not first.failure_file.exists()


def test_two_hosts_wait_for_people_together_and_go_on_with_the_labels_that_both_are_given(
    job: Any, launch: Launch
) -> None:
    asked = tiny.rlhf(rewards=({"name": "human"},), prompts_per_round=1, rounds=1, updates=1, evaluation_prompts=0)
    hosts = laid_out_on(job, ["127.0.0.1", "127.0.0.2"], asked)

    def run_both() -> list[tuple[int, list[dict[str, Any]], str]]:
        port = free_port()
        running = [launch(environment, processes=1, MASTER_PORT=port) for environment in hosts]
        return [outcome(process) for process in running]

    statuses = [status for status, _, _ in run_both()]
    assert statuses == [EXIT_WAITING, EXIT_WAITING]
    left = [read_round(host.checkpoints / EXCHANGE_FOLDER, 0) for host in hosts]
    assert left[1] is None  # the first host alone leaves pictures: in a bucket both would be in one place
    manifest = left[0]
    assert manifest is not None
    assert len(manifest.samples) == 8  # four of each host
    folder = hosts[0].checkpoints / EXCHANGE_FOLDER / round_folder(0) / LABELS_FOLDER
    folder.mkdir()
    labels = [label(n, sample=one.id, rating=1 + n % 5) for n, one in enumerate(manifest.samples)]
    (folder / "all.jsonl").write_bytes(file_of(*labels))
    shutil.copytree(hosts[0].checkpoints, hosts[1].checkpoints, dirs_exist_ok=True)  # as the service does
    (status, events, errors), (status_of_second, events_of_second, _) = run_both()
    assert (status, status_of_second) == (0, 0), errors
    (step,) = steps_in(events)
    assert step["measures"]["reward"] == pytest.approx((1 + 2 + 3 + 4 + 5 + 1 + 2 + 3) / 8)
    assert steps_in(events_of_second) == []  # one host reports


def test_each_host_of_a_complete_job_drops_its_older_checkpoints(job: Any, launch: Launch) -> None:
    names = ["127.0.0.1", "127.0.0.2"]
    first, second = hosts_of_loopback(job, names, steps=2, checkpoint_steps=1, prior_preservation=False)
    (second.checkpoints / "step-00000001").mkdir(parents=True)  # came with the bucket's, when the job was resumed
    port = free_port()
    running = [launch(environment, processes=1, MASTER_PORT=port) for environment in (first, second)]
    assert [outcome(process)[0] for process in running] == [0, 0]
    assert [path.name for path in newest_first(first.checkpoints)] == ["step-00000002"]
    assert [path.name for path in newest_first(second.checkpoints)] == []


def test_hosts_with_different_data_are_refused(job: Any, launch: Launch) -> None:
    environments = hosts_of_loopback(job, ["127.0.0.1", "127.0.0.2"])
    (environments[1].root / "input" / "data" / "training" / "0.png").unlink()
    port = free_port()
    running = [launch(environment, processes=1, MASTER_PORT=port) for environment in environments]
    for status, events, _ in [outcome(process) for process in running]:
        assert status == EXIT_FAILED
        (failure,) = failures_in(events)
        assert "do not hold the same data" in failure["message"]


def test_a_host_that_is_lost_fails_the_job_with_words(job: Any, launch: Launch) -> None:
    names = ["127.0.0.1", "127.0.0.2"]
    environments = hosts_of_loopback(job, names, steps=4000, class_images=2)
    port = free_port()
    running = [launch(environment, processes=1, MASTER_PORT=port) for environment in environments]
    wait_for(running[0], "step")
    for pid in workers_of(running[1]):
        os.kill(pid, signal.SIGKILL)
    running[1].communicate()
    status, events, _ = outcome(running[0])
    assert status == EXIT_FAILED
    (failed,) = failures_in(events)
    assert failed["kind"] == "lost-process"
    assert "jobs retry" in failed["next_step"]


@pytest.mark.parametrize("current", ["algo-1", "algo-2"])
def test_the_services_hosts_are_the_rendezvous(current: str) -> None:
    hosts = Hosts.model_validate({"current_host": current, "hosts": ["algo-1", "algo-2"], "other": 1})
    found = rendezvous(hosts)
    assert found["rdzv_backend"] == "static"
    assert found["rdzv_endpoint"].startswith("algo-1:")
    assert found["rdzv_configs"] == {"rank": ["algo-1", "algo-2"].index(current)}


@pytest.mark.parametrize(
    ("earlier", "during", "is_done"),
    [(False, True, True), (True, True, True), (True, False, False), (False, False, False)],
    ids=["published now", "published anew", "published by an earlier attempt", "not published"],
)
def test_a_request_to_end_is_too_late_only_when_this_attempt_has_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool, during: bool, is_done: bool
) -> None:
    environment = Environment(root=tmp_path)
    environment.model.mkdir()
    manifest = environment.model / "adapter.json"
    if earlier:
        manifest.touch()
        os.utime(manifest, ns=(10**18, 10**18))

    def torchrun(*_: Any) -> Callable[..., None]:
        def run(*_: str) -> None:
            if during:
                manifest.touch()
            raise SignalException("asked to end", signal.SIGTERM)

        return run

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", torchrun)
    monkeypatch.setenv(LAUNCHER_VARIABLE, "0")  # which the code under test sets: it must not stay in this process
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if is_done:
            run_together(environment, Hosts(), 2, StopFlag())
        else:
            with pytest.raises(Stopped):
                run_together(environment, Hosts(), 2, StopFlag())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
