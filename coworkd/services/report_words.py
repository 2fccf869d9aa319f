"""Which words of a sentence may leave the machine: those that coworkd itself says, and numbers. An allow-list, not a list of secrets.

Rules
- A word passes where it stands in a string, a name or a docstring of coworkd's own code, or among the system's own words for errors and
  signals. What somebody else brought in (paths, names, hosts, tokens, arguments) is none of these, and becomes `REMOVED`.
- Numbers pass up to nine digits, with a unit or without, longer ones may be anything; addresses of vsock pass, which hold nothing else.
- A name that has a pseudonym becomes the pseudonym, so that what belongs together can still be seen.
- A password that is an English word of our documentation looks like that word: nobody can tell the two apart.

Pure, but for reading our own code once.
"""

from __future__ import annotations

import errno
import os
import pkgutil
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType

REMOVED = "[removed]"
_BLANKS = re.compile(r"(\s+)")
_EDGES = ".,;:!?()[]{}<>'\"`…"
_JOINTS = re.compile(r"([=:,;()\[\]{}<>'\"`]+)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}(?:\.[0-9]{1,9}){0,2}(?:%|s|ms|us|[KMGT]|[KMGT]?i?B)?\Z")
_VSOCK = re.compile(r"vsock://[0-9]{0,10}:[0-9]{1,10}\Z")
_MARKS = re.compile(r"[-+*/|=~&#…–—→.,;:!?()\[\]{}<>'\"`]*\Z")


class Words:
    """The words that pass, and the pseudonyms of names."""

    def __init__(self, known: Iterable[str], pseudonyms: Mapping[str, str] | None = None) -> None:
        self._known = frozenset(known)
        self._pseudonyms = dict(pseudonyms or {})
        self.removed = 0
        """How many words did not pass, so far."""

    @classmethod
    def of_this_program(cls) -> Words:
        """Those of coworkd's code and of the C library. A second or less."""
        import coworkd

        return cls({*_code_words(coworkd.__path__[0]), *_system_words()})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._pseudonyms)

    def name(self, name: str, pseudonym: str) -> None:
        """From now on `name` becomes `pseudonym`, wherever it stands as a word."""
        self._pseudonyms[name] = pseudonym

    def scrub(self, text: str) -> str:
        """`text` with every word that may not pass replaced."""
        return "".join(
            piece if not piece or piece.isspace() else self._scrub_word(piece) for piece in _BLANKS.split(text)
        )

    def _scrub_word(self, word: str) -> str:
        passed = self._pass(word)
        if passed is not None:
            return passed
        core = word.strip(_EDGES)
        passed = self._pass(core)
        start = word.find(core)
        if passed is not None:
            return word[:start] + passed + word[start + len(core) :]
        # A path or an address is one thing: its parts, each for itself a word of ours, could tell where it leads.
        if any(mark in word for mark in ("/", "@", "\\")) or core.count(":") > 1:
            return self._remove()
        pieces = _JOINTS.split(word)
        if len(pieces) == 1:
            return self._remove()
        return "".join(
            piece if not piece or _MARKS.match(piece) else self._pass(piece) or self._remove() for piece in pieces
        )

    def _pass(self, word: str) -> str | None:
        if word in self._pseudonyms:
            return self._pseudonyms[word]
        if word in self._known or word[:1].lower() + word[1:] in self._known:
            return word
        return word if _NUMBER.match(word) or _VSOCK.match(word) or _MARKS.match(word) else None

    def _remove(self) -> str:
        self.removed += 1
        return REMOVED


def _code_words(directory: str) -> Iterator[str]:
    for code in _modules(directory, "coworkd"):
        yield from _words_of(code)


def _modules(directory: str, package: str) -> Iterator[CodeType]:
    """The code of every module below `directory`; nothing is imported."""
    for found in pkgutil.iter_modules([directory]):
        spec = found.module_finder.find_spec(found.name, None)
        loader = None if spec is None else spec.loader
        get_code = getattr(loader, "get_code", None)
        code = None if get_code is None else get_code(found.name)
        if code is not None:
            yield code
        if found.ispkg:
            yield from _modules(os.path.join(directory, found.name), f"{package}.{found.name}")


def _words_of(code: CodeType) -> Iterator[str]:
    yield code.co_name
    yield from code.co_names
    for constant in code.co_consts:
        yield from _words_in(constant)


def _words_in(constant: object) -> Iterator[str]:
    if isinstance(constant, CodeType):
        yield from _words_of(constant)
    elif isinstance(constant, str):
        for word in constant.split():
            yield word
            core = word.strip(_EDGES)
            yield core
            if "/" not in core:
                yield from _JOINTS.split(core)
    elif isinstance(constant, tuple | frozenset):
        for member in constant:
            yield from _words_in(member)


def _system_words() -> Iterator[str]:
    for number, name in errno.errorcode.items():
        yield name
        for word in os.strerror(number).split():
            yield word
            yield word.lower()
    yield from (each.name for each in signal.Signals)
