"""Seccomp filters: the base filter, OCI profiles, compilation, the check before use, explanations."""

from coworkd.seccomp.base_filter import load_base as load_base
from coworkd.seccomp.check import check_program as check_program
from coworkd.seccomp.numbers import Arch as Arch
from coworkd.seccomp.numbers import host_arch as host_arch
from coworkd.seccomp.numbers import host_kernel as host_kernel
from coworkd.seccomp.rules import RuleSet as RuleSet
