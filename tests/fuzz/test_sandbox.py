"""The sandbox's plans over any guest and any words: what must never be, and failures that always have a stage."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from coworkd.model.errors import START_STAGES, CoworkError, SandboxSetupFailed
from coworkd.model.launch import TreeBind, TreeFileBind
from coworkd.model.layout import GuestLayout
from coworkd.sandbox.bwrap_plan import plan_command, plan_walls, refuse_writable_destinations
from coworkd.sandbox.compose import compose
from coworkd.sandbox.failure import parse_failure
from coworkd.sandbox.tree import compose_tree
from tests.unit.sandbox.spawn_room import BWRAPS, POLICY, SESSION, spec

EXAMPLES = settings(max_examples=80, deadline=None)
WRITABLE = (b"/tmp", b"/dev/shm", SESSION.home)

parts = st.sampled_from(
    [b"usr", b"tmp", b"dev", b"shm", b"sessions", b"bob", b"proc", b"..", b".", b"", b"x", b"--bind"]
)
paths = st.lists(parts, max_size=4).map(lambda found: b"/" + b"/".join(found))
path_tuples = st.lists(paths, max_size=3).map(tuple)
layouts = st.builds(
    GuestLayout,
    links=st.lists(st.tuples(paths, paths), max_size=3).map(tuple),
    directories=path_tuples,
    etc_directories=path_tuples,
    etc_files=path_tuples,
    cpu_files=st.just(()),
    proc_masked=path_tuples,
    proc_emptied=path_tuples,
    proc_read_only=path_tuples,
    python=st.sampled_from([b"/usr/bin/python3", None]),
    java_net_properties=st.lists(st.tuples(paths, st.binary(max_size=9)), max_size=2).map(tuple),
)
values = st.one_of(st.text(max_size=12), st.sampled_from(["--bind", "--tmpfs", "--args", "--"]))
environments = st.dictionaries(st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,8}\Z"), values, max_size=4)

# bwrap(1): every option that makes something, and which of the words after it says where.
MAKES = {
    "--bind": 2,
    "--bind-try": 2,
    "--dev-bind": 2,
    "--ro-bind": 2,
    "--ro-bind-try": 2,
    "--remount-ro": 1,
    "--proc": 1,
    "--dev": 1,
    "--tmpfs": 1,
    "--mqueue": 1,
    "--dir": 1,
    "--file": 2,
    "--bind-data": 2,
    "--ro-bind-data": 2,
    "--symlink": 2,
    "--chmod": 2,
}
OTHERS = {"--hostname": 1, "--cap-drop": 1, "--chdir": 1, "--setenv": 2}


def destinations(options: tuple[bytes, ...]) -> list[bytes]:
    """Where bubblewrap would make something, read as bubblewrap reads it."""
    found = []
    words = iter(options)
    for word in words:
        option = word.decode()
        taken = list(itertools.islice(words, MAKES.get(option, OTHERS.get(option, 0))))
        if option in MAKES:
            found.append(taken[-1])
    return found


@EXAMPLES
@given(layout=layouts, environment=environments, features=st.sampled_from(sorted(BWRAPS)))
def test_no_destination_is_below_what_the_session_can_write(
    layout: GuestLayout, environment: dict[str, str], features: str
) -> None:
    try:
        walls = plan_walls(SESSION.home, b"claude", layout, BWRAPS[features])
    except SandboxSetupFailed:
        return
    variables = tuple(f"{name}={value}".encode() for name, value in environment.items())
    for destination in destinations((*walls, *plan_command(b"/tmp", variables))):
        assert b".." not in destination.split(b"/")
        assert not any(destination.startswith(path + b"/") for path in WRITABLE)


@EXAMPLES
@given(st.lists(st.one_of(paths, st.sampled_from([name.encode() for name in (*MAKES, *OTHERS)])), max_size=8))
def test_refuse_writable_destinations_refuses_or_reads_as_bubblewrap_does(words: list[bytes]) -> None:
    options = tuple(words)
    try:
        refuse_writable_destinations(options, writable=WRITABLE)
    except SandboxSetupFailed:
        return
    assert not any(found.startswith(path + b"/") for found in destinations(options) for path in WRITABLE)


@EXAMPLES
@given(
    argv=st.lists(st.binary(max_size=20), max_size=4).map(tuple),
    environment=st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3),
    cwd=st.one_of(st.none(), st.binary(max_size=8)),
)
def test_compose_gives_a_spawn_with_two_filters_or_a_typed_error(
    argv: tuple[bytes, ...], environment: dict[str, str], cwd: bytes | None
) -> None:
    guest = GuestLayout(
        links=(),
        directories=(b"/usr",),
        etc_directories=(),
        etc_files=(),
        cpu_files=(),
        proc_masked=(),
        proc_emptied=(),
        proc_read_only=(),
        python=None,
    )
    wanted = structs.replace(spec(b"x"), argv=argv, env=environment, cwd=cwd)
    try:
        spawn = compose(wanted, SESSION, POLICY, layout=guest, features=BWRAPS["0.6.1"])
    except CoworkError:
        return
    assert spawn.argv == argv
    assert spawn.filters == (POLICY.base_filter.sha256, POLICY.admin_filter.sha256)
    assert not any(b"\0" in word for word in (*spawn.bwrap_args, *spawn.argv))


@EXAMPLES
@given(stderr=st.binary(max_size=200), command=st.binary(min_size=1, max_size=20))
def test_any_words_of_bubblewrap_have_a_stage(stderr: bytes, command: bytes) -> None:
    stage, number, said = parse_failure(stderr, command)
    assert stage in START_STAGES
    assert number is None or number > 0
    assert said


@EXAMPLES
@given(layout=layouts, trust=st.sampled_from([None, b"/srv/trust"]))
def test_trees_bind_nothing_writable_but_the_home(layout: GuestLayout, trust: bytes | None) -> None:
    entries = compose_tree(name="bob", uid=1001, home=b"/s/bob", tmp_max_bytes=1 << 20, layout=layout, trust=trust)
    binds = [entry for entry in entries if isinstance(entry, TreeBind | TreeFileBind)]
    assert {entry.path for entry in binds if not entry.read_only} == {b"/sessions/bob"}
