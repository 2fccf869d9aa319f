from __future__ import annotations

import trio

from coworkd.model.calls_boot import BootTime
from coworkd.services.boot_times import BootTimes, compose_manager_steps, compose_unit_steps
from coworkd.services.health import Health

MANAGER = {
    "UserspaceTimestampMonotonic": 2.0,
    "UnitsLoadStartTimestampMonotonic": 2.5,
    "UnitsLoadFinishTimestampMonotonic": 3.0,
    "FinishTimestampMonotonic": 9.0,
}


def fail() -> dict[str, float]:
    raise OSError(2, "there is no systemctl here")


def make(*, in_guest: bool, fails: bool = False) -> BootTime:
    moment = [5.0]
    health = Health(boot_id="b", state_dir="/s", monotonic=lambda: moment[0])
    with health.stage("storage"):
        moment[0] = 6.0
    health.all_here()
    times = BootTimes(
        health,
        boot_id="b",
        in_guest=in_guest,
        manager=fail if fails else lambda: MANAGER,
        units=lambda: [("coworkd.service", 4.0, 4.001), ("quick.service", 4.0, 4.001), ("slow.mount", 3.0, 3.5)],
        started=lambda: 4.0,
    )
    return trio.run(times.boot_time)


def test_a_guest_tells_from_the_kernel_on_in_order() -> None:
    told = make(in_guest=True)
    assert [(step.group, step.start_s, step.took_s) for step in told.steps] == [
        ("kernel", 0.0, 2.0),
        ("system", 2.0, 7.0),
        ("system", 2.5, 0.5),
        ("unit", 3.0, 0.5),
        ("unit", 4.0, told.steps[4].took_s),
        ("coworkd", 4.0, 1.0),
        ("coworkd", 5.0, 1.0),
    ]
    assert (told.ready_s, told.notes) == (6.0, ())


def test_on_somebodys_machine_only_our_own_part_is_told() -> None:
    told = make(in_guest=False)
    assert {step.group for step in told.steps} == {"coworkd"}
    assert len(told.notes) == 1


def test_a_manager_that_does_not_answer_is_said() -> None:
    told = make(in_guest=True, fails=True)
    assert {step.group for step in told.steps} == {"coworkd"}
    assert told.notes == ("systemd could not be asked: there is no systemctl here",)


def test_an_initrd_of_systemds_own_is_a_span() -> None:
    steps = compose_manager_steps({**MANAGER, "InitRDTimestampMonotonic": 1.5})
    assert [(step.name, step.start_s, step.took_s) for step in steps[:2]] == [
        ("kernel", 0.0, 1.5),
        ("initrd", 1.5, 0.5),
    ]


def test_of_a_manager_that_tells_nothing_nothing_is_told() -> None:
    assert compose_manager_steps({}) == []


def test_units_that_took_no_time_are_left_out_but_ours() -> None:
    steps = compose_unit_steps([("a.service", 1.0, 1.0), ("coworkd-egress.service", 1.0, 1.0), ("b.service", 1.0, 2.0)])
    assert [step.name for step in steps] == ["coworkd-egress.service", "b.service"]
