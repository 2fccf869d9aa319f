"""What a session and its commands are held to, in the kernel's words."""

from __future__ import annotations

from msgspec import structs

from coworkd.model.limits import CgroupLimits, Rlimits
from coworkd.model.policy import LimitsRequest
from coworkd.sandbox.limits import process_limits, rlimits, session_limits, warn_not_kept
from tests.unit.sandbox.spawn_room import POLICY

LIMITS = structs.replace(POLICY.profile.limits, memory_max_bytes=1600, memory_high_bytes=1200)


def test_a_session_is_held_to_everything() -> None:
    assert session_limits(LIMITS) == CgroupLimits(
        memory_max_bytes=1600,
        memory_high_bytes=1200,
        swap_max_bytes=0,
        pids_max=1024,
        cpu_max=4.0,
        cpu_weight=100,
        io_weight=100,
    )


def test_the_kernel_slows_down_before_it_kills() -> None:
    assert session_limits(structs.replace(LIMITS, memory_high_bytes=1600)).memory_high_bytes == 1500
    assert session_limits(structs.replace(LIMITS, memory_high_bytes=1 << 60)).memory_high_bytes == 1500


def test_a_command_has_its_own_only_where_they_are_narrower() -> None:
    assert process_limits(LIMITS, LIMITS) == CgroupLimits()
    narrower = structs.replace(LIMITS, memory_max_bytes=800, cpu_max=0.5, pids_max=2000)
    assert process_limits(narrower, LIMITS) == CgroupLimits(memory_max_bytes=800, memory_high_bytes=750, cpu_max=0.5)


def test_a_command_has_all_of_its_own_where_the_sessions_are_not_known() -> None:
    assert process_limits(LIMITS, None) == session_limits(LIMITS)


def test_none_of_a_number_is_no_rlimit() -> None:
    assert rlimits(LIMITS) == Rlimits(nofile=4096, nproc=1024)
    some = structs.replace(LIMITS, fsize_max_bytes=5, cpu_time_s=6, core_max_bytes=7)
    assert rlimits(some) == Rlimits(nofile=4096, nproc=1024, fsize_bytes=5, cpu_s=6, core_bytes=7)


def test_what_no_controller_keeps_is_said() -> None:
    asked = LimitsRequest(memory_max=5, pids_max=6, nofile=7)
    [warning] = warn_not_kept(asked, CgroupLimits(pids_max=6))
    assert warning.startswith("memory_max: ")
    assert warn_not_kept(asked, CgroupLimits(memory_max_bytes=5, pids_max=6)) == ()
    assert warn_not_kept(LimitsRequest(nofile=7), CgroupLimits()) == ()
