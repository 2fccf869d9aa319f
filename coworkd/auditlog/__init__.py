"""The audit log as bytes: records, their chain, their proof. Pure; `services.audit` writes the files."""

from coworkd.auditlog.chain import GENESIS, Head
from coworkd.auditlog.kinds import KINDS, admit
from coworkd.auditlog.query import Filter, tail
from coworkd.auditlog.rotation import RotationLimits
from coworkd.auditlog.verify import Verdict, verify

__all__ = ["GENESIS", "KINDS", "Filter", "Head", "RotationLimits", "Verdict", "admit", "tail", "verify"]
