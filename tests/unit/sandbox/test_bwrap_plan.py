from __future__ import annotations

import pytest
from msgspec import structs

from coworkd.model.errors import SandboxSetupFailed
from coworkd.model.layout import BwrapFeatures
from coworkd.sandbox.bwrap_plan import REQUIRED_OPTIONS, plan_command, plan_walls, refuse_writable_destinations
from tests.unit.sandbox.spawn_room import BWRAPS, MERGED, OPTIONS_0_6_1, OPTIONS_0_8_0

WRITABLE = (b"/tmp", b"/dev/shm", b"/sessions/bob")


def plan(features: BwrapFeatures) -> tuple[bytes, ...]:
    return plan_walls(b"/sessions/bob", b"claude", MERGED, features)


@pytest.mark.parametrize("version", sorted(BWRAPS))
def test_plan_names_only_options_that_bubblewrap_has(version: str) -> None:
    named = {word.decode() for word in plan(BWRAPS[version]) if word.startswith(b"--")}
    assert named <= BWRAPS[version].options


@pytest.mark.parametrize("option", REQUIRED_OPTIONS)
def test_plan_refuses_a_bubblewrap_without_a_protecting_option(option: str) -> None:
    lacking = BwrapFeatures(path="/usr/bin/bwrap", version="bubblewrap 0.3", options=OPTIONS_0_6_1 - {option})
    with pytest.raises(SandboxSetupFailed, match=option) as caught:
        plan(lacking)
    assert caught.value.details["stage"] == "sandbox_setup"


def test_plan_disables_user_namespaces_only_where_it_can() -> None:
    assert b"--disable-userns" not in plan(BWRAPS["0.6.1"])
    assert b"--disable-userns" in plan(BWRAPS["0.8.0"])


def test_plan_isolates_every_namespace_and_drops_every_capability() -> None:
    options = plan(BWRAPS["0.6.1"])
    for option in (b"user", b"pid", b"ipc", b"uts", b"cgroup"):
        assert b"--unshare-" + option in options
    assert options[options.index(b"--cap-drop") + 1] == b"ALL"
    assert {b"--clearenv", b"--new-session", b"--die-with-parent"} <= set(options)


def test_plan_makes_the_root_read_only_after_everything_else() -> None:
    options = plan(BWRAPS["0.12.0"])
    last = len(options) - 1 - options[::-1].index(b"--remount-ro")
    assert options[last + 1] == b"/"
    assert not {b"--bind", b"--ro-bind", b"--symlink", b"--dev", b"--proc"} & set(options[last:])


def test_plan_of_a_command_takes_variables_as_they_are() -> None:
    assert plan_command(b"/tmp", (b"A=--bind", b"B=", b"C=a=b")) == (
        *(b"--chdir", b"/tmp"),
        *(b"--setenv", b"A", b"--bind"),
        *(b"--setenv", b"B", b""),
        *(b"--setenv", b"C", b"a=b"),
    )


def test_plan_refuses_a_home_above_what_it_makes() -> None:
    with pytest.raises(SandboxSetupFailed):
        plan_walls(b"/usr", b"h", structs.replace(MERGED, directories=(b"/usr/share",)), BWRAPS["0.8.0"])


@pytest.mark.parametrize(
    "options",
    [
        (b"--bind", b"/srv", b"/tmp/x"),
        (b"--ro-bind", b"/dev/null", b"/sessions/bob/.bashrc"),
        (b"--symlink", b"a", b"/dev/shm/a"),
        (b"--remount-ro", b"/tmp/x"),
        (b"--proc", b"/sessions/bob/proc"),
        (b"--hostname", b"--dev", b"--dev", b"/tmp/dev"),
    ],
)
def test_refuse_writable_destinations_refuses_what_lies_below(options: tuple[bytes, ...]) -> None:
    with pytest.raises(SandboxSetupFailed, match="below"):
        refuse_writable_destinations(options, writable=WRITABLE)


@pytest.mark.parametrize("destination", [b"/tmp/../etc", b"/usr//tmp", b"//tmp/x", b"tmp", b"", b"/usr/", b"/./usr"])
def test_refuse_writable_destinations_refuses_what_is_not_normal(destination: bytes) -> None:
    with pytest.raises(SandboxSetupFailed, match="absolute and normal"):
        refuse_writable_destinations((b"--bind", b"/srv", destination), writable=WRITABLE)


@pytest.mark.parametrize(
    "options", [(b"--tmpfs", b"/tmp/x"), (b"--overlay",), (b"--bind", b"/srv"), (b"--setenv", b"A", b"b")]
)
def test_refuse_writable_destinations_refuses_options_it_does_not_know_whole(options: tuple[bytes, ...]) -> None:
    with pytest.raises(SandboxSetupFailed, match="not one that is planned"):
        refuse_writable_destinations(options, writable=WRITABLE)


def test_refuse_writable_destinations_takes_the_writable_places_themselves() -> None:
    refuse_writable_destinations((b"--bind", b"/tmp", b"/tmp", b"--dev", b"/tmpfs"), writable=WRITABLE)


def test_required_options_are_of_every_supported_release() -> None:
    assert set(REQUIRED_OPTIONS) <= OPTIONS_0_6_1 < OPTIONS_0_8_0
