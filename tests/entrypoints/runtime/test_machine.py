"""What a resumed run says of the machine it goes on with."""

from entrypoints.runtime.machine import Machine

BEFORE = Machine(device="cpu (AVX2)", threads=4, libraries={"torch": "2.10", "peft": "0.21"})


def test_a_machine_differs_from_another_by_what_changed_alone() -> None:
    now = BEFORE.model_copy(update={"threads": 2, "libraries": {"torch": "2.10", "diffusers": "0.42"}})
    assert BEFORE.differences(now) == [
        "diffusers (was none, is 0.42)",
        "peft (was 0.21, is none)",
        "threads (was 4, is 2)",
    ]
    assert BEFORE.differences(BEFORE) == []
