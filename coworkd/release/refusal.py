"""Why a release is not taken: a word for programs and a sentence for people. Nothing else is ever raised for what a release holds."""

from __future__ import annotations

from typing import Literal

Why = Literal[
    "unsigned",
    "wrong_key",
    "bad_signature",
    "malformed",
    "unsafe_path",
    "too_big",
    "wrong_architecture",
    "wrong_python",
    "image_too_old",
    "not_newer",
    "wrong_words",
    "failed_before",
    "missing_file",
    "extra_file",
    "not_a_file",
    "wrong_size",
    "tampered",
    "unreadable",
]


class ReleaseRefused(Exception):
    """It is not what it should be; nothing of it is used."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why: Why = why
        self.message = message
