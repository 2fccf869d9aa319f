"""The one exception of the builder."""

from __future__ import annotations


class Trouble(Exception):
    """What went wrong and what to do about it, for the person who builds. The command prints it and ends with status 1."""
