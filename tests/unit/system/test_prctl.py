from __future__ import annotations

import ctypes
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from coworkd.system import prctl


class Prctl:
    def __init__(self, result: int = 0) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.result = result

    def __call__(self, *words: Any) -> int:
        self.calls.append(tuple(word.value if isinstance(word, ctypes.Array) else word for word in words))
        return self.result


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Prctl:
    """The kernel, reached by number: as where python-prctl does not import."""
    made = Prctl()
    monkeypatch.setattr(prctl, "_module", None)
    monkeypatch.setattr(prctl, "_libc_prctl", made)
    return made


def test_every_call_has_the_kernels_number(kernel: Prctl) -> None:
    prctl.set_pdeathsig(9)
    prctl.set_no_new_privs()
    prctl.set_child_subreaper()
    prctl.set_undumpable()
    assert kernel.calls == [(1, 9, 0, 0, 0), (38, 1, 0, 0, 0), (36, 1, 0, 0, 0), (4, 0, 0, 0, 0)]


def test_python_prctl_is_used_where_it_has_the_call(kernel: Prctl, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, int]] = []
    monkeypatch.setattr(
        prctl, "_module", SimpleNamespace(set_pdeathsig=lambda value: called.append(("set_pdeathsig", value)))
    )
    prctl.set_pdeathsig(9)
    prctl.set_no_new_privs()
    assert (called, kernel.calls) == ([("set_pdeathsig", 9)], [(38, 1, 0, 0, 0)])


def test_set_name_is_cut_at_what_the_kernel_keeps(kernel: Prctl) -> None:
    prctl.set_name("a-name-of-twenty-one")
    assert kernel.calls == [(15, b"a-name-of-twent", 0, 0, 0)]


def test_a_refused_call_is_told(kernel: Prctl) -> None:
    kernel.result = -1
    with pytest.raises(OSError):
        prctl.set_no_new_privs()


def test_no_new_privs_holds_in_this_kernel() -> None:
    program = (
        "from coworkd.system import prctl; prctl.set_no_new_privs(); prctl.set_name('renamed');"
        "print(open('/proc/self/status').read(), open('/proc/self/comm').read())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "NoNewPrivs:\t1" in said
    assert said.strip().endswith("renamed")


def test_load_python_prctl_is_none_where_it_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prctl", None)
    assert prctl.load_python_prctl() is None


def test_load_python_prctl_gives_the_module_where_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prctl", sys)
    assert prctl.load_python_prctl() is sys
