"""Makes the vectors: `python tests/vectors/make_vectors.py` writes every .bin beside it and vectors.toml.

The bytes come from the msgpack library or are written as they are; `coworkd.wire` is not imported, so that a fault of its
encoder cannot hide in what it is checked against. `tests/conformance/test_vectors.py` runs them through both ends.

Kinds of expectation
- `event`: the receiving end accepts what the msgpack library reads in the bytes; where `encode` is true the sending end must
  send these very bytes for it.
- `breach`: the receiving end refuses with this rule of `coworkd.wire.connection`, for good.
- `more`: the receiving end waits for more bytes.
- `code`: a guest answers the last request, or where there is none tells by `link.error`, with this code (`OK`: a result).
  `after_hello` says whether a good hello was exchanged before; `closes` whether the guest closes the link then.
- `handshake`: what is said before a link begins, with port 5005 and the nonce 00 01 … 0f.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent
MIB = 1024 * 1024


class Vector(NamedTuple):
    """One file of bytes. `sender` is `host`, `guest` or `both` (wrong, or right, from either)."""

    name: str
    rules: tuple[str, ...]
    sender: str
    data: bytes
    says: str
    expect: str
    value: str = ""
    """For `breach` the rule, for `code` the code."""
    after_hello: bool = True
    encode: bool = False
    closes: bool = False


def pack(*message: Any) -> bytes:
    return bytes(msgpack.packb(list(message)))


def good(name: str, rules: str, sender: str, says: str, *message: Any) -> Vector:
    return Vector(name, tuple(rules.split()), sender, pack(*message), says, "event", encode=True)


def fine(name: str, rules: str, sender: str, says: str, data: bytes, after_hello: bool = True) -> Vector:
    """Accepted, though our own end would not send it so."""
    return Vector(name, tuple(rules.split()), sender, data, says, "event", after_hello=after_hello)


def bad(name: str, rules: str, sender: str, says: str, rule: str, data: bytes, after_hello: bool = True) -> Vector:
    return Vector(name, tuple(rules.split()), sender, data, says, "breach", rule, after_hello)


def answered(name: str, rules: str, says: str, code: str, data: bytes, **flags: bool) -> Vector:
    return Vector(name, tuple(rules.split()), "host", data, says, "code", code, **flags)


def call(request_id: int, method: Any, params: Any) -> bytes:
    return pack(0, request_id, method, [params])


def hello(minimum: int = 1, maximum: int = 1, **more: Any) -> bytes:
    return call(1, "hello", {"client": "vector", "protocol": {"min": minimum, "max": maximum}, **more})


def shapes() -> Iterator[Vector]:
    ping = pack(0, 7, "ping", [{}])
    yield good("request", "W-2 W-5", "host", "a call without parameters", 0, 0, "ping", [{}])
    yield good("response", "W-2 W-8", "guest", "an answer", 1, 0, None, {"time": 1.5, "monotonic": 2.5})
    yield good(
        "notification", "W-2 N-1 N-2", "guest", "a published event", 2, "session.created", [{"seq": 1, "at": 1.5}]
    )
    both = ping + pack(0, 8, "info", [{}])
    yield fine("two-at-once", "W-1", "host", "two values in one piece, no prefix between", both)
    yield Vector("half", ("W-1",), "host", ping[:-2], "a value that is not all there", "more")
    yield fine("id-largest", "W-3", "host", "the largest id", pack(0, 2**32 - 1, "ping", [{}]))
    yield bad("id-too-large", "W-3", "host", "an id of 2^32", "id", pack(0, 2**32, "ping", [{}]))
    yield bad("id-negative", "W-3", "host", "an id of -1", "id", pack(0, -1, "ping", [{}]))
    yield bad("id-text", "W-3", "host", "an id that is text", "id", pack(0, "1", "ping", [{}]))
    yield bad("id-reused", "W-3", "host", "an id used again before it was answered", "id-reused", ping + ping)
    yield fine("method-bin", "W-4", "host", "a method that is bin", pack(0, 1, b"ping", [{}]))
    yield bad("method-number", "W-4", "host", "a method that is a number", "message-shape", pack(0, 1, 5, [{}]))
    yield fine("params-empty", "W-5", "host", "no map in the array", pack(0, 1, "ping", []))
    yield bad("params-two", "W-5", "host", "two maps", "params", pack(0, 1, "ping", [{}, {}]))
    yield bad("params-bare-map", "W-5", "host", "a map without its array", "params", pack(0, 1, "ping", {}))
    yield bad("params-key-number", "W-5", "host", "a key that is a number", "map-key", pack(0, 1, "ping", [{1: 2}]))
    twice = b"\x94\x00\x01\xa4ping\x91\x82\xa1a\x01\xa1a\x02"
    yield bad("params-key-twice", "W-5", "host", "a key that stands twice", "map-key", twice)
    yield bad("five-values", "W-2", "both", "an array of five", "message-shape", pack(0, 1, "ping", [{}], 0))
    yield bad("kind-three", "W-2", "both", "a message of kind 3", "message-shape", pack(3, 1, "ping", [{}]))
    yield bad("kind-true", "W-2 W-10", "both", "true is no integer", "message-shape", pack(True, 1, None, {}))
    yield bad("kind-float", "W-2 W-10", "both", "0.0 is no integer", "message-shape", pack(0.0, 1, "ping", [{}]))
    yield bad("no-array", "W-2", "both", "text of another protocol", "message-shape", b"GET / HTTP/1.1\r\n\r\n")
    yield bad("never-used-byte", "W-2", "both", "byte 0xc1", "format", b"\x94\x00\x01\xc1")
    yield bad("request-of-guest", "W-9", "guest", "guests ask nothing", "direction", ping)
    yield bad("response-of-host", "W-9", "host", "hosts answer nothing", "direction", pack(1, 1, None, {}))
    yield bad("response-unasked", "W-8", "guest", "an answer to nothing", "id-unknown", pack(1, 99, None, {}))
    both_set = pack(1, 0, {"code": "INTERNAL", "message": "m", "details": {}}, {})
    yield bad("error-and-result", "W-8", "guest", "an error and a result", "result", both_set)
    yield bad("result-list", "W-8", "guest", "a result that is no map", "result", pack(1, 0, None, [1]))
    yield bad("both-nil", "W-8", "guest", "neither error nor result", "result", pack(1, 0, None, None))
    yield bad("error-text", "W-8", "guest", "an error that is text", "result", pack(1, 0, "no", None))


def texts() -> Iterator[Vector]:
    start = {"session": "work", "argv": ["cat", b"\xff\xfe", "é"]}
    yield good("bytes-and-text", "W-6", "host", "an argument that is not UTF-8 is bin", 0, 0, "process.start", [start])
    latin = b"\x94\x00\x01\xa4ping\x91\x81\xa1a\xa1\xff"
    yield bad("text-not-utf-8", "W-6", "host", "a str that is not UTF-8", "utf-8", latin)
    timestamp = b"\x94\x00\x01\xa4ping\x91\x81\xa1a\xd6\xff\x00\x00\x00\x00"
    yield bad("timestamp", "W-7", "both", "an extension type", "extension", timestamp)
    output = {"process": "p1", "stream": "stdout", "offset": 5, "data": b"\x00\xff"}
    yield good("output", "W-6 P-4", "guest", "output is bin at its offset", 2, "process.output", [output])
    behind = {"process": "p1", "stream": "stdout", "offset": 4096, "dropped": [7, 4096], "data": b"x"}
    yield good("output-dropped", "P-4 P-10", "guest", "output behind bytes that went", 2, "process.output", [behind])
    last = {"process": "p1", "stream": "stdout", "offset": 7, "eof": True, "data": b""}
    yield good("output-eof", "P-5", "guest", "the end of a stream, without data", 2, "process.output", [last])
    record = {
        "process": "p1", "session": "work", "exit": {"code": None, "signal": "KILL", "reason": "killed"},
        "output": "complete", "bytes": {"stdout": 7, "stderr": 0}, "rusage": None, "started_at": 1.5, "ended_at": 2.5,
    }  # fmt: skip
    yield good("exit", "P-6 P-8 N-4 W-10", "guest", "an exit to an attached link", 2, "process.exit", [record])
    fault = {"code": "NOT_FOUND", "message": "there is no session 'x'; session.list names all", "details": {}}
    yield good("error", "C-3 W-8", "guest", "an error", 1, 0, fault, None)
    stage = {
        "code": "FAILED_PRECONDITION",
        "message": "no such command: nope",
        "details": {"stage": "not_found", "errno": 2},
    }
    yield good("error-start", "P-3 C-3", "guest", "a command that cannot be started", 1, 0, stage, None)
    unknown = {"code": "FROM_THE_FUTURE", "message": "m", "details": {"new": 1}, "more": 2}
    yield good("error-unknown", "C-6", "guest", "what a host does not know is kept or ignored", 1, 0, unknown, None)
    last_words = {"code": "RESOURCE_EXHAUSTED", "message": "too deep", "details": {"rule": "depth"}}
    yield good("link-error", "V-1", "guest", "why the guest closes the link", 2, "link.error", [last_words])
    decision = {
        "session": "work", "connection": 7, "protocol": "connect", "host": "blocked.example", "port": 443,
        "allowed": False, "reason": "no rule allows it", "count": 3, "seq": 9, "at": 1.5,
    }  # fmt: skip
    yield good("egress-decision", "G-8 G-9 N-2", "guest", "three refusals, told once", 2, "egress.decision", [decision])
    status = {"status": "NOT_CONNECTED", "upstream": "direct", "devices": [], "routes": [], "seq": 10, "at": 2.5}
    yield good("network-status", "G-11 N-2", "guest", "a guest without a network", 2, "network.status", [status])
    yield good("events-missed", "N-3", "guest", "events that are gone", 2, "events.missed", [{"missed": 3, "next": 9}])


def streams() -> Iterator[Vector]:
    data = {"stream": "s1", "offset": 5, "data": b"\x00\xff"}
    yield good("stream-data", "W-6 T-2", "guest", "data of a stream, at its offset", 2, "stream.data", [data])
    last = {"stream": "s1", "offset": 7, "eof": True, "data": b""}
    yield good("stream-eof", "T-2", "guest", "the other side has ended", 2, "stream.data", [last])
    fault = {"code": "UNAVAILABLE", "message": "session work was closed", "details": {"session": "work"}}
    lost = {"stream": "s1", "offset": 7, "eof": True, "error": fault, "data": b""}
    yield good("stream-lost", "T-2 C-3", "guest", "the other side was lost", 2, "stream.data", [lost])
    write = {"stream": "s1", "offset": 0, "data": b"\x00\xff"}
    yield good("stream-write", "W-6 T-3", "host", "bytes for a stream are bin", 0, 0, "stream.write", [write])
    window = {"session": "work", "port": 8000, "window": 65_536}
    odd = {"session": "work", "path": b"notes/\xff", "data": b"hello", "create": "new"}
    yield good("file-write", "W-6 I-1 I-3", "host", "a path that is not UTF-8 is bin", 0, 0, "file.write", [odd])
    tree = {"session": "work", "path": "src", "tar": True, "window": 65_536}
    yield good("file-download", "I-9 T-5", "host", "a tree as an archive, in a window", 0, 0, "file.download", [tree])
    lacking = {"stage": "left_out", "omitted": 1, "left_out": ["agent.sock: neither file nor directory"]}
    fault = {"code": "FAILED_PRECONDITION", "message": "left out: agent.sock", "details": lacking}
    last = {"stream": "s1", "offset": 10_240, "eof": True, "error": fault, "data": b""}
    yield good("stream-left-out", "I-9 T-2", "guest", "an archive that lacks an entry", 2, "stream.data", [last])
    yield good("forward-open", "T-5 T-7", "host", "a stream with a window", 0, 0, "forward.open", [window])


def limits() -> Iterator[Vector]:
    def write(size: int) -> bytes:
        empty = len(call(1, "process.write_stdin", {"data": b"\0" * MIB})) - MIB
        return call(1, "process.write_stdin", {"data": b"\0" * (size - empty)})

    def write_small(size: int) -> bytes:
        empty = len(call(1, "hello", {"data": b"\0" * 4096})) - 4096
        return call(1, "hello", {"data": b"\0" * (size - empty)})

    assert len(write(MIB)) == MIB
    assert len(write_small(16384)) == 16384
    yield fine("frame-largest", "L-1", "host", "exactly 1 MiB", write(MIB))
    yield bad("frame-too-large", "L-1", "host", "1 MiB and a byte", "frame-bytes", write(MIB + 1))
    yield fine("fresh-largest", "L-2", "host", "exactly 16 KiB", write_small(16384), after_hello=False)
    yield bad(
        "fresh-too-large", "L-2", "host", "16 KiB and a byte before hello", "frame-bytes", write_small(16385), False
    )
    four = b"\x93\x02\xa1x\x91\x81\xa1d\xc6" + (4 * MIB).to_bytes(4, "big")
    yield bad("guest-too-large", "L-3", "guest", "a header of 4 MiB of bin", "frame-bytes", four)
    deep: Any = {}
    for _ in range(29):
        deep = [deep]
    yield fine("depth-largest", "L-4", "host", "32 levels", pack(0, 1, "ping", [{"a": deep}]))
    yield bad("depth-too-large", "L-4", "host", "33 levels", "depth", pack(0, 1, "ping", [{"a": [deep]}]))
    yield fine("items-largest", "L-5", "host", "4,096 items", pack(0, 1, "ping", [{"a": [0] * 4096}]))
    head = b"\x94\x00\x01\xa4ping\x91\x81\xa1a"
    yield bad("items-too-many", "L-5", "host", "an array header of 4,097", "items", head + b"\xdc\x10\x01")
    yield bad("items-4-gib", "L-5", "both", "a map header of 4,294,967,295", "items", head + b"\xdf\xff\xff\xff\xff")
    many = {"a": [[0] * 4095] * 17}
    yield bad("values-too-many", "L-5", "host", "more than 65,536 values in all", "values", pack(0, 1, "ping", [many]))
    yield bad(
        "bin-4-gib", "L-6", "both", "a bin header of 4,294,967,295", "frame-bytes", head + b"\xc6\xff\xff\xff\xff"
    )
    yield bad(
        "text-4-gib", "L-6", "both", "a str header of 4,294,967,295", "frame-bytes", head + b"\xdb\xff\xff\xff\xff"
    )


def exchanges() -> Iterator[Vector]:
    yield answered("hello", "H-1 H-2 H-3", "a good hello", "OK", hello(), after_hello=False)
    yield answered(
        "hello-future", "H-2", "a host that speaks newer versions as well", "OK", hello(1, 9), after_hello=False
    )
    yield answered("call-before-hello", "H-1", "a call before hello; the link stays", "UNAUTHENTICATED",
                   call(1, "ping", {}), after_hello=False)  # fmt: skip
    yield answered("hello-no-version", "H-2", "no common version", "FAILED_PRECONDITION", hello(2, 9),
                   after_hello=False, closes=True)  # fmt: skip
    yield answered("hello-bad-token", "H-4", "a wrong token", "UNAUTHENTICATED", hello(token="wrong"),
                   after_hello=False, closes=True)  # fmt: skip
    yield answered("hello-twice", "H-5", "a second hello changes nothing", "FAILED_PRECONDITION", hello())
    yield answered("unknown-method", "C-1", "the nearest method is named", "UNIMPLEMENTED", call(2, "process.rum", {}))
    misspelt = {"session": "work", "argv": ["true"], "timeout": 5}
    yield answered("unknown-param", "C-2", "the nearest parameter is named", "INVALID_ARGUMENT",
                   call(2, "process.run", misspelt))  # fmt: skip
    yield answered("missing-param", "C-2", "a parameter that must be there", "INVALID_ARGUMENT",
                   call(2, "process.run", {"session": "work"}))  # fmt: skip
    yield answered("bool-for-int", "W-10 C-2", "a boolean is no integer", "INVALID_ARGUMENT",
                   call(2, "process.resize", {"process": "p1", "rows": True, "cols": 80}))  # fmt: skip
    yield answered("int-for-float", "W-10", "an integer is taken for a float", "OK",
                   call(2, "process.wait", {"process": "p1", "timeout_s": 1}))  # fmt: skip
    yield answered("nul-in-argument", "C-7", "a NUL in an argument", "INVALID_ARGUMENT",
                   call(2, "process.run", {"session": "work", "argv": ["a\0b"]}))  # fmt: skip
    yield answered("notification-of-host", "W-9 N-1", "is ignored; the call behind it is answered", "OK",
                   pack(2, "anything", [{}]) + call(2, "ping", {}))  # fmt: skip
    same = {"session": "work", "argv": ["true"], "request_id": "r1"}
    yield answered("request-id-twice", "C-4", "the second gets the first's answer, and nothing runs twice", "OK",
                   call(2, "process.run", same) + call(3, "process.run", same))  # fmt: skip
    yield answered(
        "breach", "V-1", "link.error has the code, then the link ends", "INVALID_ARGUMENT", b"\xc1", closes=True
    )
    yield answered(
        "breach-limit", "V-1", "a limit that is passed has its own code", "RESOURCE_EXHAUSTED", b"\x94\xdd\xff\xff\xff\xff",
        closes=True,
    )  # fmt: skip


def handshakes() -> Iterator[Vector]:
    mark = b"\xc1" + bytes(range(16))
    yield Vector("hybrid-connect", ("E-4",), "host", b"CONNECT 5005\n", "what a hybrid socket is asked", "handshake")
    yield Vector("hybrid-ok", ("E-4",), "guest", b"OK 1073741824\n", "and how it says yes", "handshake")
    yield Vector("resync-mark", ("E-5",), "host", mark, "the mark of a virtio-serial link", "handshake")
    stale = b"\x94\x00\x07\xa4pi" + b"\xc1" + bytes(16) + b"\x93\x02"
    yield Vector(
        "resync-answer", ("E-5",), "guest", stale + mark, "old halves, another's mark, then the answer", "handshake"
    )


def vectors() -> list[Vector]:
    """All of them, in the order of the index."""
    return [*handshakes(), *shapes(), *texts(), *streams(), *limits(), *exchanges()]


def index_of(made: list[Vector]) -> str:
    """vectors.toml."""
    lines = ["# Made by make_vectors.py; docs/protocol.md has the rules. Do not edit.", ""]
    for vector in made:
        rules = ", ".join(f'"{rule}"' for rule in vector.rules)
        lines += [
            "[[vector]]",
            f'name = "{vector.name}"',
            f'file = "{vector.name}.bin"',
            f"rules = [{rules}]",
            f'from = "{vector.sender}"',
            f'says = "{vector.says}"',
            f'expect = "{vector.expect}"',
        ]
        if vector.expect in ("breach", "code"):
            lines.append(f'{"rule" if vector.expect == "breach" else "code"} = "{vector.value}"')
        for flag in ("after_hello", "encode", "closes"):
            lines.append(f"{flag} = {str(getattr(vector, flag)).lower()}")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    made = vectors()
    for vector in made:
        (HERE / f"{vector.name}.bin").write_bytes(vector.data)
    (HERE / "vectors.toml").write_text(index_of(made))


if __name__ == "__main__":
    main()
