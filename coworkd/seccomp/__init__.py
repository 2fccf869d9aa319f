"""Seccomp filters: the base filter, OCI profiles, compilation, the check before use, explanations."""

from coworkd.seccomp.base_filter import load_base as load_base
from coworkd.seccomp.check import check_program as check_program
from coworkd.seccomp.compile import Compilation as Compilation
from coworkd.seccomp.compile import compile_program as compile_program
from coworkd.seccomp.compile import compile_ruleset as compile_ruleset
from coworkd.seccomp.explain import Explanation as Explanation
from coworkd.seccomp.explain import explain as explain
from coworkd.seccomp.numbers import Arch as Arch
from coworkd.seccomp.numbers import host_arch as host_arch
from coworkd.seccomp.numbers import host_kernel as host_kernel
from coworkd.seccomp.oci import load_oci as load_oci
from coworkd.seccomp.rules import RuleSet as RuleSet
