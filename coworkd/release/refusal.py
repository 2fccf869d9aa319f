"""Why a release is not taken: a word for programs and a sentence for people. Nothing else is ever raised for what a release holds."""

from __future__ import annotations

from coworkd.model.update import Why


class ReleaseRefused(Exception):
    """It is not what it should be; nothing of it is used."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why: Why = why
        self.message = message
