"""Which words leave the machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coworkd.services.report_words import REMOVED, Words

WORDS = Words.of_this_program()


@pytest.fixture
def words() -> Words:
    return WORDS


@pytest.mark.parametrize(
    "sentence",
    [
        "the disk is full: No space left on device",
        "cannot accept on unix:///run/coworkd/coworkd.sock: Too many open files",
        "Listening on vsock://:5005, for 12.5 s (EMFILE)",
        "process.start failed with errno=24, after 3 tries; 100% of 64 MiB",
        "signal SIGKILL\n",
    ],
)
def test_what_coworkd_says_itself_stays(words: Words, sentence: str) -> None:
    assert words.scrub(sentence) == sentence


@pytest.mark.parametrize(
    ("sentence", "left"),
    [
        ("connect to http://bob:hunter2@proxy.corp.example:3128 failed", f"connect to {REMOVED} failed"),
        ("Authorization: Bearer sk-ant-0123456789abcdef", f"Authorization: Bearer {REMOVED}"),
        ("token=hunter2 pid=123", f"token={REMOVED} pid=123"),
        ("cannot open /home/alice/token: Permission denied", f"cannot open {REMOVED} Permission denied"),
        ("session 'payroll-2026' could not be opened", f"session '{REMOVED}' could not be opened"),
        ("10.1.2.3 and 2001:db8::7 refused", f"{REMOVED} and {REMOVED} refused"),
        ("1234567890123456", REMOVED),
        ("alice@example.org", REMOVED),
        ("C:\\Users\\alice", REMOVED),
        ("/etc/coworkd/../../home/secret", REMOVED),
    ],
)
def test_what_others_brought_in_goes(words: Words, sentence: str, left: str) -> None:
    assert words.scrub(sentence) == left


def test_what_goes_is_counted() -> None:
    words = Words({"a"})
    assert words.scrub("a b (c) a") == f"a {REMOVED} ({REMOVED}) a"
    assert words.removed == 2


def test_a_name_becomes_its_pseudonym_also_where_it_is_a_word_of_ours() -> None:
    words = Words({"work", "session", "is", "gone"})
    words.name("work", "name-1")
    words.name("pay.roll", "name-2")
    assert words.scrub("session work: pay.roll, (work) is gone") == "session name-1: name-2, (name-1) is gone"


@given(st.text())
def test_any_text_comes_out_in_words_that_pass(text: str) -> None:
    words = Words({"known"})
    for word in words.scrub(text).split():
        bare = word.replace(REMOVED, "").replace("known", "").replace("Known", "")
        assert not any(letter.isalpha() for letter in bare) or words.scrub(word) == word


@given(
    st.text(alphabet="0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/=_-", min_size=24, max_size=64)
)
def test_a_token_never_passes_whole(token: str) -> None:
    token = f"q9Zx{token}"
    for sentence in (token, f"token={token}", f"({token}),", f"https://u:{token}@h/", f"X-Api-Key:{token}"):
        assert token not in WORDS.scrub(sentence)
