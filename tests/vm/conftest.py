"""Guests as fixtures. A cold boot takes 10-20 s where it is emulated, a clone of the template one: prefer `guest`.

guest, client      a clone of the x86_64 template of one's own, and a client of it; takes disks and shares while it runs
clone              a function that gives more of them
cold_guest         one x86_64 guest a run, booted from its kernel on, session disk on NVMe, with a share: leave it as it was found
arm_guest          the same for aarch64, without a share
boot               a function that boots one of one's own, cold; dear
image, arm_image   the images themselves
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.client.sync import Client
from host_stub.words import Share
from tests.vm.guest_lab import Guest, booted
from tests.vm.image_lab import Image, image_of
from tests.vm.template_lab import Template, clone_of, template_of

LIMIT_S = 1200.0
"""How long a guest of one test may take: several times the longest, for an emulated one has been seen to stand still with both of its
CPUs in the kernel's timer interrupt."""
HERE = Path(__file__).resolve().parent
_NEEDS = {"image": "qemu-x86_64", "arm_image": "qemu-aarch64"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vm: boots a guest, or needs what guests need")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who asks for a guest needs what it is built and started with."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.vm)
        item.add_marker(pytest.mark.needs("root"))
        for fixture, capability in _NEEDS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.needs(capability, "mmdebstrap"))


@pytest.fixture(scope="session")
def image() -> Image:
    return image_of("x86_64")


@pytest.fixture(scope="session")
def arm_image() -> Image:
    return image_of("aarch64")


@pytest.fixture(scope="session")
def template(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    with template_of(image, tmp_path_factory.mktemp("template")) as made:
        yield made


@pytest.fixture
def clone(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Guest]]:
    with contextlib.ExitStack() as stack:

        def make() -> Guest:
            return _limited(stack, stack.enter_context(clone_of(template, tmp_path_factory.mktemp("clone") / "g")))

        yield make


def _limited(stack: contextlib.ExitStack, guest: Guest) -> Guest:
    timer = threading.Timer(LIMIT_S, guest.hang_up)
    timer.daemon = True
    timer.start()
    stack.callback(timer.cancel)
    return guest


@pytest.fixture
def guest(clone: Callable[[], Guest]) -> Guest:
    return clone()


@pytest.fixture
def client(guest: Guest) -> Client:
    return guest.connect()


@pytest.fixture
def boot(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Guest]]:
    """`boot(**fields)` with the fields of `guest_lab.spec_of`; `image=` another image, `directory=` one that was used before."""
    with contextlib.ExitStack() as stack:

        def start(*, directory: Path | None = None, image: Image = image, **fields: Any) -> Guest:
            place = tmp_path_factory.mktemp("boot") if directory is None else directory
            return _limited(stack, stack.enter_context(booted(image, place, **fields)))

        yield start


@pytest.fixture(scope="session")
def cold_guest(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    place = tmp_path_factory.mktemp("cold")
    shared = place / "host" / "shared"
    shared.mkdir(parents=True)
    (shared / "hello").write_text("from the host\n")
    with booted(image, place, session_bus="nvme", shares=(Share(path=shared.parent),)) as guest:
        yield guest


@pytest.fixture(scope="session")
def arm_guest(arm_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with booted(arm_image, tmp_path_factory.mktemp("arm")) as guest:
        yield guest
