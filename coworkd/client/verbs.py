"""Every method as a Python method of the blocking client: keyword arguments in, a typed answer out.

The names, parameters and answers are those of `methods`; nothing is decided here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, overload

from msgspec import Struct

from coworkd.client import methods
from coworkd.client.methods import Method, P
from coworkd.client.pending import read_answer
from coworkd.client.process import Process
from coworkd.model.calls import ProcessStarted
from coworkd.wire.convert import compose_answer

A = TypeVar("A", bound=Struct)


class _Verb(Generic[P, A]):
    """A `Method` as a method of `Verbs`: keyword arguments in, typed answer out."""

    def __init__(self, method: Method[P, A]) -> None:
        self._method = method

    @overload
    def __get__(self, client: None, owner: type) -> _Verb[P, A]: ...

    @overload
    def __get__(self, client: Verbs, owner: type) -> Callable[P, A]: ...

    def __get__(self, client: Verbs | None, owner: type) -> Any:
        if client is None:
            return self
        method = self._method

        def verb(*args: Any, **fields: Any) -> Any:
            answer = client.call(method.name, compose_answer(method.build(*args, **fields)))
            return read_answer(method.name, answer, method.answer)

        return verb


class _Start(Generic[P]):
    """`process.start` as a method of `Verbs`: keyword arguments in, a `Process` out."""

    def __init__(self, method: Method[P, ProcessStarted]) -> None:
        self._method = method

    @overload
    def __get__(self, client: None, owner: type) -> _Start[P]: ...

    @overload
    def __get__(self, client: Verbs, owner: type) -> Callable[P, Process]: ...

    def __get__(self, client: Verbs | None, owner: type) -> Any:
        if client is None:
            return self

        def start(*args: Any, **fields: Any) -> Process:
            return client.start_process(self._method.build(*args, **fields))

        return start


class Verbs(ABC):
    """What `Client` inherits; `call` and `start_process` are the client's."""

    @abstractmethod
    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """The raw answer of any method."""

    @abstractmethod
    def start_process(self, request: Struct) -> Process:
        """Send `process.start`, attached where it asks for that."""

    run = _Verb(methods.PROCESS_RUN)
    start = _Start(methods.PROCESS_START)
    ping = _Verb(methods.PING)
    info = _Verb(methods.INFO)
    stats = _Verb(methods.STATS)
    doctor = _Verb(methods.DOCTOR)
    report = _Verb(methods.REPORT)
    logs = _Verb(methods.LOGS)
    set_log_level = _Verb(methods.SET_LOG_LEVEL)
    shutdown = _Verb(methods.SHUTDOWN)
    sync_clock = _Verb(methods.SYNC_CLOCK)
    boot_time = _Verb(methods.BOOT_TIME)
    session_ensure = _Verb(methods.SESSION_ENSURE)
    session_get = _Verb(methods.SESSION_GET)
    session_list = _Verb(methods.SESSION_LIST)
    session_delete = _Verb(methods.SESSION_DELETE)
    session_set_policy = _Verb(methods.SESSION_SET_POLICY)
    session_policy = _Verb(methods.SESSION_POLICY)
    session_set_limits = _Verb(methods.SESSION_SET_LIMITS)
    session_pause = _Verb(methods.SESSION_PAUSE)
    session_resume = _Verb(methods.SESSION_RESUME)
    session_usage = _Verb(methods.SESSION_USAGE)
    session_prune = _Verb(methods.SESSION_PRUNE)
    session_retention = _Verb(methods.SESSION_RETENTION)
    folder_mount = _Verb(methods.FOLDER_MOUNT)
    folder_unmount = _Verb(methods.FOLDER_UNMOUNT)
    folder_set_mode = _Verb(methods.FOLDER_SET_MODE)
    folder_list = _Verb(methods.FOLDER_LIST)
    folder_changes = _Verb(methods.FOLDER_CHANGES)
    folder_commit = _Verb(methods.FOLDER_COMMIT)
    folder_discard = _Verb(methods.FOLDER_DISCARD)
    approval_list = _Verb(methods.APPROVAL_LIST)
    approval_answer = _Verb(methods.APPROVAL_ANSWER)
    process_detach = _Verb(methods.PROCESS_DETACH)
    process_ack = _Verb(methods.PROCESS_ACK)
    process_write_stdin = _Verb(methods.PROCESS_WRITE_STDIN)
    process_close_stdin = _Verb(methods.PROCESS_CLOSE_STDIN)
    process_resize = _Verb(methods.PROCESS_RESIZE)
    process_signal = _Verb(methods.PROCESS_SIGNAL)
    process_kill = _Verb(methods.PROCESS_KILL)
    process_wait = _Verb(methods.PROCESS_WAIT)
    process_get = _Verb(methods.PROCESS_GET)
    process_set_limits = _Verb(methods.PROCESS_SET_LIMITS)
    process_list = _Verb(methods.PROCESS_LIST)
    process_forget = _Verb(methods.PROCESS_FORGET)
    egress_check = _Verb(methods.EGRESS_CHECK)
    egress_log = _Verb(methods.EGRESS_LOG)
    egress_allow = _Verb(methods.EGRESS_ALLOW)
    egress_status = _Verb(methods.EGRESS_STATUS)
    egress_presets = _Verb(methods.EGRESS_PRESETS)
    ca_install = _Verb(methods.CA_INSTALL)
    ca_list = _Verb(methods.CA_LIST)
    ca_remove = _Verb(methods.CA_REMOVE)
    audit_tail = _Verb(methods.AUDIT_TAIL)
    audit_query = _Verb(methods.AUDIT_QUERY)
    audit_export = _Verb(methods.AUDIT_EXPORT)
    audit_verify = _Verb(methods.AUDIT_VERIFY)
    events_unsubscribe = _Verb(methods.EVENTS_UNSUBSCRIBE)
    policy_show = _Verb(methods.POLICY_SHOW)
    policy_reload = _Verb(methods.POLICY_RELOAD)
    file_read = _Verb(methods.FILE_READ)
    file_write = _Verb(methods.FILE_WRITE)
    file_list = _Verb(methods.FILE_LIST)
    file_stat = _Verb(methods.FILE_STAT)
    file_mkdir = _Verb(methods.FILE_MKDIR)
    file_move = _Verb(methods.FILE_MOVE)
    file_remove = _Verb(methods.FILE_REMOVE)
    stream_write = _Verb(methods.STREAM_WRITE)
    stream_close_write = _Verb(methods.STREAM_CLOSE_WRITE)
    stream_ack = _Verb(methods.STREAM_ACK)
    stream_close = _Verb(methods.STREAM_CLOSE)
    bridge_open = _Verb(methods.BRIDGE_OPEN)
    bridge_list = _Verb(methods.BRIDGE_LIST)
    bridge_close = _Verb(methods.BRIDGE_CLOSE)
    tool_install = _Verb(methods.TOOL_INSTALL)
    tool_list = _Verb(methods.TOOL_LIST)
    tool_remove = _Verb(methods.TOOL_REMOVE)
    storage_usage = _Verb(methods.STORAGE_USAGE)
    storage_trim = _Verb(methods.STORAGE_TRIM)
    storage_grow = _Verb(methods.STORAGE_GROW)
    update_status = _Verb(methods.UPDATE_STATUS)
    update_apply = _Verb(methods.UPDATE_APPLY)
    update_rollback = _Verb(methods.UPDATE_ROLLBACK)
