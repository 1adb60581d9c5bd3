"""Requests of one adapter cannot keep those of others waiting."""

from entrypoints.serving.fairness import FairQueue


def everything(queue: FairQueue[str]) -> list[str]:
    taken = []
    while (item := queue.take(lambda _: True)) is not None:
        taken.append(item)
    return taken


def test_flows_take_turns_however_much_one_of_them_asks_for() -> None:
    queue: FairQueue[str] = FairQueue(quantum=1)
    for number in range(6):
        queue.add("busy", f"busy {number}", 1)
    queue.add("quiet", "quiet 0", 1)
    queue.add("quiet", "quiet 1", 1)
    assert everything(queue)[:4] == ["busy 0", "quiet 0", "busy 1", "quiet 1"]


def test_a_flow_of_large_requests_gets_no_more_work_done_than_one_of_small_ones() -> None:
    queue: FairQueue[str] = FairQueue(quantum=2)
    for _ in range(10):
        queue.add("large", "large", 4)
    for _ in range(40):
        queue.add("small", "small", 1)
    first = everything(queue)[:15]
    assert abs(4 * first.count("large") - first.count("small")) <= 4


def test_who_does_not_fit_is_passed_over_and_keeps_its_place() -> None:
    queue: FairQueue[str] = FairQueue(quantum=1)
    queue.add("a", "large a", 1)
    queue.add("b", "small b", 1)
    assert queue.take(lambda item: item.startswith("small")) == "small b"
    assert queue.take(lambda item: item.startswith("small")) is None
    assert len(queue) == 1
    assert everything(queue) == ["large a"]


def test_a_flow_that_comes_back_has_saved_nothing() -> None:
    queue: FairQueue[str] = FairQueue(quantum=10)
    queue.add("a", "a", 1)
    assert everything(queue) == ["a"]
    for number in range(12):
        queue.add("a", f"a {number}", 1)
    queue.add("b", "b", 1)
    assert everything(queue).index("b") == 10


def test_requests_that_are_gone_are_taken_out_of_every_line() -> None:
    queue: FairQueue[str] = FairQueue(quantum=1)
    for flow in ("a", "b"):
        queue.add(flow, f"{flow} stays", 1)
        queue.add(flow, f"{flow} gone", 1)
    queue.add("c", "c gone", 1)
    assert sorted(queue.remove(lambda item: item.endswith("gone"))) == ["a gone", "b gone", "c gone"]
    assert sorted(everything(queue)) == ["a stays", "b stays"]
