from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from coworkd.launcher.warm import walls_of
from coworkd.model.errors import InvalidParams, SandboxSetupFailed, StartFailed
from coworkd.model.launch import Spawn
from coworkd.model.layout import BwrapFeatures
from coworkd.model.process import ProcessSpec, TtySize
from coworkd.sandbox import compose as room
from coworkd.sandbox.bwrap_plan import plan_command
from coworkd.sandbox.compose import MAX_ARGUMENT_BYTES, MAX_ARGUMENTS_BYTES, MAX_WORDS, Composer, compose
from tests.unit.sandbox.spawn_room import (
    BWRAPS,
    CASES,
    MERGED,
    POLICY,
    SESSION,
    UNMERGED,
    compose_case,
    golden_path,
    render,
    spec,
)


def composed(wanted: ProcessSpec) -> Spawn:
    return compose(wanted, SESSION, POLICY, layout=MERGED, features=BWRAPS["0.8.0"])


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("version", sorted(BWRAPS))
def test_compose_gives_the_golden_options(version: str, case: str) -> None:
    assert render(compose_case(version, case)) == golden_path(version, case).read_text()


def test_composer_composes_for_its_guest() -> None:
    assert Composer(MERGED, BWRAPS["0.8.0"])(spec(b"id"), SESSION, POLICY) == composed(spec(b"id"))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"argv": (b"ls", b"-l")},
        {"process": "other"},
        {"env": {"A": "2"}},
        {"cwd": b"/tmp"},
        {"stdin": True},
        {"tty": TtySize(rows=2, cols=2)},
    ],
)
def test_composer_forgets_nothing_that_makes_a_difference(changed: dict[str, Any]) -> None:
    compose_here = Composer(MERGED, BWRAPS["0.8.0"])
    first = spec(b"id")
    compose_here(first, SESSION, POLICY)
    second = structs.replace(first, **changed)
    assert compose_here(second, SESSION, POLICY) == composed(second)


def test_composer_sees_another_session_and_another_policy() -> None:
    compose_here = Composer(MERGED, BWRAPS["0.8.0"])
    compose_here(spec(b"id"), SESSION, POLICY)
    session = structs.replace(SESSION, env={"NEW": "1"})
    assert b"NEW=1" in compose_here(spec(b"id"), session, POLICY).environment
    profile = structs.replace(POLICY.profile, sandbox=structs.replace(POLICY.profile.sandbox, warm=7))
    assert compose_here(spec(b"id"), session, structs.replace(POLICY, profile=profile)).warm == 7


def test_composer_refuses_a_second_command_as_it_does_a_first() -> None:
    compose_here = Composer(MERGED, BWRAPS["0.8.0"])
    compose_here(spec(b"id"), SESSION, POLICY)
    with pytest.raises(InvalidParams):
        compose_here(spec(b"a\0"), SESSION, POLICY)
    with pytest.raises(StartFailed):
        compose_here(spec(b"id", b"x" * (MAX_ARGUMENT_BYTES + 1)), SESSION, POLICY)


def test_compose_names_both_filters_base_first() -> None:
    assert composed(spec(b"id")).filters == ("b" * 64, "a" * 64)


def test_compose_gives_the_session_and_its_limits() -> None:
    spawn = composed(spec(b"cat", stdin=True))
    assert (spawn.session, spawn.uid, spawn.gid, spawn.process) == ("bob", 1001, 1001, "p1")
    assert (spawn.rlimits.nofile, spawn.rlimits.nproc) == (4096, 1024)
    assert (spawn.limits.pids_max, spawn.limits.memory_max_bytes) == (1024, 2800 << 20)
    assert spawn.stdin
    assert spawn.tty is None


def test_compose_names_what_executes_the_shim_where_there_is_one() -> None:
    assert composed(spec(b"id")).shim == (b"/usr/bin/python3", b"-I", b"-S")
    assert compose(spec(b"id"), SESSION, POLICY, layout=UNMERGED, features=BWRAPS["0.8.0"]).shim == ()


def test_commands_of_a_session_have_the_same_walls_whatever_they_are() -> None:
    terminal = spec(b"sh", env={"A": "b"}, cwd=b"/tmp", stdin=True, tty=TtySize(rows=1, cols=1))
    assert walls_of(composed(terminal)) == walls_of(composed(spec(b"id")))


@pytest.mark.parametrize("change", [{"uid": 1002}, {"filters": ("c" * 64, "a" * 64)}, {"bwrap_args": ()}, {"shim": ()}])
def test_other_walls_are_told_apart(change: dict[str, Any]) -> None:
    spawn = composed(spec(b"id"))
    assert walls_of(structs.replace(spawn, **change)) != walls_of(spawn)


def test_compose_gives_the_variables_in_order() -> None:
    variables = composed(spec(b"id", env={"A": "b=c", "USER": "me"})).environment
    assert variables[:2] == (b"HOME=/sessions/bob", b"USER=me")
    assert variables[-1] == b"A=b=c"


def test_compose_refuses_a_terminal_without_python() -> None:
    with pytest.raises(StartFailed, match="python3") as caught:
        compose(spec(b"sh", tty=TtySize(rows=1, cols=1)), SESSION, POLICY, layout=UNMERGED, features=BWRAPS["0.8.0"])
    assert caught.value.details["stage"] == "sandbox_setup"


@pytest.mark.parametrize("fields", [{"uid": 0}, {"gid": 0}, {"uid": 1000}])
def test_compose_refuses_a_system_uid(fields: dict[str, int]) -> None:
    with pytest.raises(SandboxSetupFailed, match="1001"):
        compose(spec(b"id"), structs.replace(SESSION, **fields), POLICY, layout=MERGED, features=BWRAPS["0.8.0"])


def test_compose_refuses_a_bubblewrap_that_cannot_filter() -> None:
    old = BwrapFeatures(path="b", version="bubblewrap 0.4", options=frozenset())
    with pytest.raises(SandboxSetupFailed, match="--add-seccomp-fd"):
        compose(spec(b"id"), SESSION, POLICY, layout=MERGED, features=old)


@pytest.mark.parametrize(
    ("wanted", "key"),
    [
        (structs.replace(spec(b"id"), argv=()), "argv"),
        (spec(b""), "argv"),
        (spec(b"a", b"b\0c"), "argv[1]"),
        (spec(b"a", cwd=b"tmp"), "cwd"),
        (spec(b"a", cwd=b""), "cwd"),
        (spec(b"a", cwd=b"/a\0b"), "cwd"),
        (spec(b"a", env={"": "x"}), "env"),
        (spec(b"a", env={"A=B": "x"}), "env"),
        (spec(b"a", env={"A": "x\0y"}), "env.A"),
    ],
)
def test_compose_refuses_what_cannot_be_meant(wanted: ProcessSpec, key: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        composed(wanted)
    assert caught.value.details["key"] == key


def test_compose_takes_the_longest_argument_the_kernel_takes() -> None:
    argument = b"x" * MAX_ARGUMENT_BYTES
    assert composed(spec(b"a", argument)).argv == (b"a", argument)


@pytest.mark.parametrize(
    "wanted",
    [
        spec(b"a", b"x" * (MAX_ARGUMENT_BYTES + 1)),
        spec(b"a", env={"A": "x" * (MAX_ARGUMENT_BYTES - 1)}),
        spec(b"a", env={"A": "ü" * (MAX_ARGUMENT_BYTES // 2)}),
    ],
)
def test_compose_tells_one_word_that_is_too_big(wanted: ProcessSpec) -> None:
    with pytest.raises(StartFailed, match=str(MAX_ARGUMENT_BYTES)) as caught:
        composed(wanted)
    assert (caught.value.details["stage"], caught.value.details["errno"]) == ("too_big", 7)


def test_compose_tells_words_that_are_too_big_together() -> None:
    words = [b"x" * MAX_ARGUMENT_BYTES] * (MAX_ARGUMENTS_BYTES // MAX_ARGUMENT_BYTES + 1)
    with pytest.raises(StartFailed, match=str(MAX_ARGUMENTS_BYTES)) as caught:
        composed(spec(*words))
    assert caught.value.details["stage"] == "too_big"


def test_compose_counts_the_words_bubblewrap_takes() -> None:
    plain = composed(spec(b"a"))
    options = len(plain.bwrap_args) + len(plan_command(plain.cwd, plain.environment))
    most = (b"a",) * (MAX_WORDS - options)
    assert len(composed(spec(*most)).argv) == MAX_WORDS - options
    with pytest.raises(StartFailed, match="words") as caught:
        composed(spec(*most, b"a"))
    assert caught.value.details["stage"] == "too_big"


def test_max_argument_leaves_room_for_its_nul() -> None:
    assert room.MAX_ARGUMENT_BYTES + 1 == 32 * 4096
