"""Strict reading of our own TOML files: findings with file, line and key, typed values, nothing unknown."""

from coworkd.settings.findings import BadFile, Finding, nearest
from coworkd.settings.tables import Given, read_tables
from coworkd.settings.values import BadValue, Parser

__all__ = ["BadFile", "BadValue", "Finding", "Given", "Parser", "nearest", "read_tables"]
