from __future__ import annotations

from coworkd.release.refusal import ReleaseRefused


def test_a_refusal_has_a_word_and_a_sentence() -> None:
    refused = ReleaseRefused("unsigned", "there is no signature")
    assert (refused.why, refused.message, str(refused)) == (
        "unsigned",
        "there is no signature",
        "there is no signature",
    )
