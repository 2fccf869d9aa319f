"""What a command has made of the terminal, read from the bytes it sent: to undo it when we leave, to do it again when we come back. Pure.

Rules
- Only what outlives the program and spoils what comes after it is followed: the alternate screen, a hidden cursor, colours, line drawing,
  a region that scrolls alone, a title that never ended, reports of the mouse and of pastes, keys that are sent in another way. Everything
  else in the bytes is the terminal's affair.
- Only what is on is undone: to leave an alternate screen that nobody entered would move the cursor.
- A sequence may be cut anywhere between two pieces.

Source: ctlseqs of xterm (DECSET, IRM, SGR, RIS, SCS, DECSTBM, DECSCUSR, XTMODKEYS); the keyboard protocol of kitty.
"""

from __future__ import annotations

import re

_ALTERNATE = ("47", "1047", "1049")
_MOUSE_AND_PASTE = ("9", "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1015", "1016", "2004")
_OFF_BY_DEFAULT = frozenset(("1", "5", "6", "69", "2026", "2031", "2048", "9001", *_MOUSE_AND_PASTE, *_ALTERNATE))
_ON_BY_DEFAULT = frozenset(("7", "25"))
_SEQUENCE = re.compile(
    rb"\x1b(?:\[\?(?P<modes>[0-9;]{1,64})(?P<set>[hl])|\[(?P<colours>[0-9;:]{0,64})m|\[(?P<cursor>[0-9]{0,2}) q"
    rb"|\[>4(?:;(?P<keys>[0-9]{1,2}))?m|\[>(?P<push>[0-9]{1,3})u|\[<(?P<pop>[0-9]{0,3})u|(?P<keypad>[=>])|(?P<reset>c)"
    rb"|\[(?P<region>[0-9;]{0,16})r|\[4(?P<insert>[hl])|\((?P<letters>[0-9A-Za-z]))|(?P<shift>[\x0e\x0f])"
)
_UNFINISHED = re.compile(rb"\x1b(?:\[[?<>]?[0-9;: ]{0,64}|\()?\Z")
_STRING_OPENS = (b"]", b"P", b"X", b"^", b"_")
_STRING_ENDS = re.compile(rb"[\x07\x18\x1a]")
_STARTS = re.compile(rb"[\x0e\x0f\x1b]")
_PUSHED_LIMIT = 64


class Screen:
    """What was changed and not changed back."""

    def __init__(self) -> None:
        self._rest = b""
        self._forget()

    def _forget(self) -> None:
        self._modes: dict[str, None] = {}
        self._coloured = False
        self._cursor = b""
        self._keys = b""
        self._keypad = self._region = self._insert = self._letters = self._shifted = self._string = False
        self._pushed: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """The next bytes that the terminal gets."""
        if not self._rest and not self._string and not _STARTS.search(data):
            return
        data = self._rest + data
        for found in _SEQUENCE.finditer(data):
            self._take(found)
        self._follow_string(data)
        cut = _UNFINISHED.search(data, max(0, len(data) - 80))
        self._rest = cut[0] if cut else b""

    @property
    def alternate(self) -> bool:
        """A full-screen program has the screen."""
        return any(mode in self._modes for mode in _ALTERNATE)

    def undo(self) -> bytes:
        """What puts the terminal back; empty where nothing is to be."""
        undone = [b"\x1b\\"] if self._string else []
        undone += [b"\x1b[<%du" % len(self._pushed)] if self._pushed else []
        undone += [b"\x1b[>4m"] if self._keys else []
        undone += [b"\x1b>"] if self._keypad else []
        undone += [b"\x1b[0 q"] if self._cursor else []
        undone += [_private(mode, mode in _ON_BY_DEFAULT) for mode in reversed(self._modes)]
        undone += [b"\x1b7\x1b[r\x1b8"] if self._region else []  # which moves the cursor
        undone += [b"\x1b[4l"] if self._insert else []
        undone += [b"\x0f"] if self._shifted else []
        undone += [b"\x1b(B"] if self._letters else []
        undone += [b"\x1b[m"] if self._coloured else []
        return b"".join(undone)

    def redo(self) -> bytes:
        """What makes a fresh terminal as this one is, but for how it writes (colours, letters, where it scrolls) and what stands on it."""
        done = [_private(mode, mode not in _ON_BY_DEFAULT) for mode in self._modes]
        done += [b"\x1b[%s q" % self._cursor] if self._cursor else []
        done += [b"\x1b="] if self._keypad else []
        done += [b"\x1b[>4;%sm" % self._keys] if self._keys else []
        done += [b"\x1b[>%su" % flags for flags in self._pushed]
        return b"".join(done)

    def _take(self, found: re.Match[bytes]) -> None:
        kind = found.lastgroup
        if kind == "set":
            for mode in found["modes"].decode().split(";"):
                self._set(mode, found["set"] == b"h")
        elif kind == "colours":
            self._coloured = found["colours"].rpartition(b";")[2].strip(b"0") != b""
        elif kind == "cursor":
            self._cursor = found["cursor"].strip(b"0")
        elif kind == "push":
            self._pushed = [*self._pushed, found["push"]][-_PUSHED_LIMIT:]
        elif kind == "pop":
            self._pushed = self._pushed[: max(0, len(self._pushed) - int(found["pop"] or 1))]
        elif kind == "keypad":
            self._keypad = found["keypad"] == b"="
        elif kind == "reset":
            self._forget()
        elif kind == "region":
            self._region = found["region"].strip(b";") != b""
        elif kind == "insert":
            self._insert = found["insert"] == b"h"
        elif kind == "letters":
            self._letters = found["letters"] != b"B"
        elif kind == "shift":
            self._shifted = found["shift"] == b"\x0e"
        else:
            self._keys = (found["keys"] or b"").strip(b"0")

    def _follow_string(self, data: bytes) -> None:
        """A title or the like, which the terminal reads, and does not show, until its end or the next sequence."""
        begins = data.rfind(b"\x1b")
        if begins >= 0:
            self._string = data[begins + 1 : begins + 2] in _STRING_OPENS and not _STRING_ENDS.search(data, begins + 2)
        elif self._string:
            self._string = not _STRING_ENDS.search(data)

    def _set(self, mode: str, on: bool) -> None:
        if mode in _OFF_BY_DEFAULT or mode in _ON_BY_DEFAULT:
            self._modes.pop(mode, None)
            if on is not (mode in _ON_BY_DEFAULT):
                self._modes[mode] = None


def _private(mode: str, on: bool) -> bytes:
    return b"\x1b[?%s%s" % (mode.encode(), b"h" if on else b"l")


def screenful(data: bytes, rows: int) -> bytes:
    """The last of `data` that a terminal of `rows` rows shows; whole lines."""
    start = len(data)
    for _ in range(rows):
        start = data.rfind(b"\n", 0, start)
        if start < 0:
            return data
    return data[start + 1 :]


class Replay:
    """What a terminal that comes to a command is shown of the bytes before `end`: the last screenful, in the modes that hold."""

    def __init__(self, end: int, rows: int) -> None:
        self._end = end
        self._rows = rows
        self._old = bytearray()
        self._over = False

    def feed(self, offset: int, data: bytes) -> bytes:
        """What is to be shown now, of the next bytes of the command, which begin at `offset`."""
        if self._over:
            return data
        left = max(0, self._end - offset)
        self._old += data[:left]
        return b"" if len(data) < left else self.finish() + data[left:]

    def finish(self) -> bytes:
        """Nothing more comes."""
        shown, self._over = b"" if self._over else self._shown(bytes(self._old)), True
        return shown

    def _shown(self, old: bytes) -> bytes:
        screen = Screen()
        screen.feed(old)
        # A full-screen program draws anew when it is told of the size; half of what it drew before is noise.
        return screen.redo() + (b"\x1b[2J\x1b[H" if screen.alternate else screenful(old, self._rows))
