"""Virtualization.framework with a guest in it, over `fake_objc`: what each selector does, and threads that play the guest.

The guest listens on `ECHO_PORT` (says back what it hears) and on `ORDER_PORT`, where a line is an order: `poweroff`, `crash TEXT`,
`panic`, `wake`, or `dial PORT`, after which the connection is joined to what answers there, or closed. Its console shows a line at boot and
says back what is typed. `Plan` says what goes wrong.

As on a Mac: delegates are weak; a connection that is closed or forgotten takes the guest's end down, whoever holds its descriptor;
completions come later, on the main thread; a machine that nobody holds is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import socket
import threading
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from host_stub.vz.framework import Framework
from tests.unit.host_stub.vz.fake_objc import BadCall, World

ECHO_PORT, ORDER_PORT, SILENT_PORT = 5005, 7000, 7001
STOPPED, RUNNING, PAUSED = 0, 1, 2


class Plan(Struct, frozen=True, kw_only=True):
    """What this Mac and this guest are like."""

    macos: tuple[int, int] = (14, 5)
    supported: bool = True
    entitled: bool = True
    appkit: bool = True
    cpus: tuple[int, int] = (1, 8)
    memory_mib: tuple[int, int] = (4, 16384)
    start_error: int = 0
    start_hangs: bool = False
    ignores_power_button: bool = False
    stop_hangs: bool = False
    stop_error: int = 0
    bug_on_start: bool = False
    orphan_s: float = 0.3


class FakeMac(World):
    """A world with its main queue."""

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        super().__init__(macos=self.plan.macos, behaviours=BEHAVIOURS)
        self.work: queue.Queue[Callable[[], Any]] = queue.Queue()
        self.observers: list[tuple[weakref.ref[Any], str]] = []
        self.machine: weakref.ref[Any] | None = None

    @property
    def framework(self) -> Framework:
        return Framework(
            objc=self.objc, foundation=self.foundation, vz=self.vz, appkit=self.appkit if self.plan.appkit else None
        )

    def run_main(self, timeout_s: float = 0.0) -> bool:
        """Do the next thing of the main queue."""
        try:
            work = self.work.get(timeout=timeout_s) if timeout_s > 0 else self.work.get_nowait()
        except queue.Empty:
            return False
        work()
        return True

    def error(self, code: int, text: str, domain: str = "VZErrorDomain", reason: str = "") -> Any:
        return self.make("NSError", domain=domain, code=code, text=text, reason=reason)

    def wake(self) -> None:
        for reference, selector in self.observers:
            observer = reference()
            if observer is not None:
                getattr(observer, selector)(None)


# -- Foundation ---------------------------------------------------------------------------------------------------


def _data(mac: FakeMac, _kind: Any, content: bytes, length: int) -> Any:
    if length != len(content):
        raise BadCall("dataWithBytes:length: with another length")
    return mac.make("NSData", bytes=content)


def _file_handle(mac: FakeMac, handle: Any, fd: int, close: bool) -> Any:
    os.fstat(fd)
    handle._values["fd"] = fd
    if close:
        weakref.finalize(handle, os.close, fd)
    return handle


def _add_observer(mac: FakeMac, _centre: Any, observer: Any, selector: bytes, _name: str, _object: None) -> None:
    method = selector.decode().replace(":", "_")
    if not callable(vars(type(observer)).get(method)):
        raise BadCall(f"the observer has no {method}")
    mac.observers.append((weakref.ref(observer), method))


def _run_mode(mac: FakeMac, _loop: Any, _mode: str, until: Any) -> bool:
    mac.run_main(until._values["seconds"])
    return True


# -- configuration ------------------------------------------------------------------------------------------------


def _attachment(mac: FakeMac, made: Any, url: Any, *rest: Any) -> Any:
    if not Path(url._values["path"]).is_file():
        return None, mac.error(5, "Invalid disk image.", reason="The disk image could not be opened.")
    made._values.update(url=url, readonly=rest[0])
    return made, None


def _store_new(mac: FakeMac, made: Any, url: Any, _options: int) -> Any:
    path = Path(url._values["path"])
    if path.exists() or not path.parent.is_dir():
        return None, mac.error(1, "Internal error.", reason="The variable store could not be created.")
    path.write_bytes(b"efi")
    return _store(mac, made, url), None


def _store(_mac: FakeMac, made: Any, url: Any) -> Any:
    made._values["url"] = url
    return made


def _identifier_new(_mac: FakeMac, made: Any) -> Any:
    made._values["bytes"] = b"identifier:" + uuid.uuid4().bytes
    return made


def _identifier_from(_mac: FakeMac, made: Any, data: Any) -> Any:
    made._values["bytes"] = bytes(data)
    return made if bytes(data).startswith(b"identifier:") else None


def _mac_from(_mac: FakeMac, made: Any, text: str) -> Any:
    made._values["string"] = text
    return made if len(text.split(":")) == 6 else None


def _check_serial(mac: FakeMac, _kind: Any, text: str) -> Any:
    fits = text.isascii() and len(text) <= 20
    return fits, None if fits else mac.error(2, "Invalid block device identifier.")


def _check_tag(mac: FakeMac, _kind: Any, text: str) -> Any:
    fits = 0 < len(text.encode()) <= 36
    return fits, None if fits else mac.error(2, "Invalid tag.")


def _validate(mac: FakeMac, configuration: Any) -> Any:
    values = configuration._values
    wrong = _what_is_wrong(mac, values)
    if wrong:
        return False, mac.error(2, "Invalid virtual machine configuration.", reason=wrong)
    values["valid"] = True
    return True, None


def _what_is_wrong(mac: FakeMac, values: dict[str, Any]) -> str:
    if not mac.plan.entitled:
        return "The process doesn’t have the “com.apple.security.virtualization” entitlement."
    if values.get("bootloader") is None:
        return "The boot loader is not set."
    if not mac.plan.cpus[0] <= values["cpucount"] <= mac.plan.cpus[1]:
        return "The number of CPUs is out of range."
    if (
        values["memorysize"] % (1 << 20)
        or not mac.plan.memory_mib[0] <= values["memorysize"] >> 20 <= mac.plan.memory_mib[1]
    ):
        return "The memory size is invalid."
    disks = [one._values["initWithAttachment:"][0]._values["url"]._values["path"] for one in values["storagedevices"]]
    if len(set(disks)) != len(disks):
        return "Two storage devices use the same attachment."
    if any(port._values.get("attachment") is None for port in values["serialports"]):
        return "A serial port has no attachment."
    return ""


# -- the machine --------------------------------------------------------------------------------------------------


class Guest:
    """Threads that play the guest, until its sockets end."""

    def __init__(self, mac: FakeMac, machine: Any) -> None:
        self._mac = mac
        self._machine = weakref.ref(machine)
        port = machine._values["configuration"]._values["serialports"][0]._values["attachment"]
        # Duplicates: the handles close theirs when the machine goes.
        self._typed, self._shown = (os.dup(handle._values["fd"]) for handle in next(iter(port._values.values())))
        os.write(self._shown, b"[    0.000000] Linux version 6.1 (fake)\r\n")
        self._thread(self._console)

    def connect(self, port: int, end: socket.socket) -> bool:
        if port not in (ECHO_PORT, ORDER_PORT):
            return False
        self._thread(self._echo if port == ECHO_PORT else self._obey, end)
        return True

    def _thread(self, target: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _console(self) -> None:
        while data := os.read(self._typed, 4096):
            os.write(self._shown, b"> " + data)
        os.close(self._typed)
        os.close(self._shown)

    def _echo(self, end: socket.socket) -> None:
        with end:
            _carry(end, end)

    def _obey(self, end: socket.socket) -> None:
        with end, contextlib.suppress(OSError):
            for line in end.makefile("rb", buffering=0):
                word, _, rest = line.decode().strip().partition(" ")
                if word == "dial":
                    self._dial(end, int(rest))
                    break
                self._order(word, rest)
            end.shutdown(socket.SHUT_RDWR)

    def _order(self, word: str, rest: str) -> None:
        mac, machine = self._mac, self._machine()
        if word == "panic":
            os.write(self._shown, b"[    9.000000] Kernel panic - not syncing: fake\r\n")
        elif word == "wake":
            mac.work.put(mac.wake)
        elif word == "poweroff":
            mac.work.put(lambda: _guest_stopped(mac, machine, None))
        elif word == "crash":
            mac.work.put(lambda: _guest_stopped(mac, machine, mac.error(1, rest)))

    def _dial(self, end: socket.socket, port: int) -> None:
        answered: queue.Queue[socket.socket | None] = queue.Queue()
        self._mac.work.put(lambda: answered.put(_dial_host(self._mac, self._machine(), port)))
        far = answered.get(timeout=10)
        if far is None:
            return
        with far:
            end.sendall(b"accepted\n")
            down = threading.Thread(target=_carry, args=(far, end), daemon=True)
            down.start()
            _carry(end, far)
            down.join(60)


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _machine(mac: FakeMac, machine: Any, configuration: Any) -> Any:
    if not configuration._values.get("valid"):
        raise BadCall("a machine from a configuration that was not validated throws")
    device = mac.make("VZVirtioSocketDevice", listeners={}, machine=weakref.ref(machine))
    balloon = mac.make("VZVirtioTraditionalMemoryBalloonDevice")
    machine._values.update(
        configuration=configuration, state=STOPPED, socketdevices=[device], memoryballoondevices=[balloon]
    )
    mac.machine = weakref.ref(machine)
    return machine


def _start(mac: FakeMac, machine: Any, completed: Any) -> None:
    if machine._values["state"] != STOPPED:
        raise BadCall("a machine is started in another state than stopped")
    if mac.plan.bug_on_start:
        raise RuntimeError("a bug in a callback")
    if mac.plan.start_hangs:
        return

    def happen() -> None:
        if mac.plan.start_error:
            completed(mac.error(mac.plan.start_error, "The virtual machine failed to start."))
            return
        machine._values["state"] = RUNNING
        machine._values["guest"] = Guest(mac, machine)
        completed(None)

    mac.work.put(happen)


def _stop(mac: FakeMac, machine: Any, completed: Any) -> None:
    if mac.plan.stop_hangs:
        return
    refused = mac.plan.stop_error or (4 if machine._values["state"] == STOPPED else 0)
    if refused:
        mac.work.put(lambda: completed(mac.error(refused, "Invalid state transition.")))
        return
    machine._values["state"] = STOPPED
    mac.work.put(lambda: completed(None))


def _change(old: int, new: int) -> Callable[..., None]:
    def change(mac: FakeMac, machine: Any, completed: Any) -> None:
        fits = machine._values["state"] == old
        if fits:
            machine._values["state"] = new
        mac.work.put(lambda: completed(None if fits else mac.error(4, "Invalid state transition.")))

    return change


def _request_stop(mac: FakeMac, machine: Any) -> Any:
    if machine._values["state"] != RUNNING:
        return False, mac.error(3, "Invalid virtual machine state.")
    if not mac.plan.ignores_power_button:
        mac.work.put(lambda: _guest_stopped(mac, machine, None))
    return True, None


def _guest_stopped(mac: FakeMac, machine: Any, error: Any) -> None:
    if machine is None or machine._values["state"] != RUNNING:
        return
    machine._values["state"] = STOPPED
    reference = machine._values.get("delegate")
    delegate = None if reference is None else reference()
    if delegate is not None and error is None:
        delegate.guestDidStopVirtualMachine_(machine)
    elif delegate is not None:
        delegate.virtualMachine_didStopWithError_(machine, error)


def _set_weak(_mac: FakeMac, holder: Any, delegate: Any) -> None:
    holder._values["delegate"] = weakref.ref(delegate)


# -- vsock --------------------------------------------------------------------------------------------------------


def _make_connection(mac: FakeMac, source: int, destination: int) -> tuple[Any, socket.socket]:
    """VZ's object and the guest's end of a connection."""
    ours, guest = socket.socketpair()
    service = guest.dup()  # VZ's service, which takes the guest's end down with the object
    connection = mac.make("VZVirtioSocketConnection", source=source, destination=destination, fd=ours.detach())
    connection._values["down"] = weakref.finalize(connection, _take_down, connection._values["fd"], service)
    return connection, guest


def _take_down(fd: int, service: socket.socket) -> None:
    os.close(fd)
    with service:
        try:
            service.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise


def _close_connection(_mac: FakeMac, connection: Any) -> None:
    connection._values["down"]()
    connection._values["fd"] = -1


def _connect(mac: FakeMac, device: Any, port: int, completed: Any) -> None:
    machine = device._values["machine"]()
    if machine is None or machine._values["state"] != RUNNING:
        raise BadCall("a connection to a machine that does not run")
    if port == SILENT_PORT:
        threading.Timer(0.3, lambda: mac.work.put(lambda: _answer_late(mac, port, completed))).start()
        return
    connection, end = _make_connection(mac, 1024 + port, port)
    if machine._values["guest"].connect(port, end):
        mac.work.put(lambda: completed(connection, None))
    else:
        end.close()
        refused = mac.error(errno.ECONNRESET, "Connection reset by peer", domain="NSPOSIXErrorDomain")
        mac.work.put(lambda: completed(None, refused))


def _answer_late(mac: FakeMac, port: int, completed: Any) -> None:
    connection, end = _make_connection(mac, 1024, port)
    end.close()
    completed(connection, None)


def _set_listener(_mac: FakeMac, device: Any, listener: Any, port: int) -> None:
    device._values["listeners"][port] = weakref.ref(listener)


def _dial_host(mac: FakeMac, machine: Any, port: int) -> socket.socket | None:
    device = machine._values["socketdevices"][0]
    listener = device._values["listeners"].get(port, lambda: None)()
    delegate = None if listener is None else listener._values.get("delegate", lambda: None)()
    if delegate is None:
        return None
    connection, end = _make_connection(mac, 2048, port)
    taken = delegate.listener_shouldAcceptNewConnection_fromSocketDevice_(listener, connection, device)
    if type(taken) is not bool:
        raise BadCall(f"shouldAcceptNewConnection gave {taken!r}")
    if not taken:
        end.close()
        return None
    return end


def _now(_mac: FakeMac, _kind: Any, seconds: float) -> Any:
    return _mac.make("NSDate", seconds=seconds)


BEHAVIOURS: dict[str, Callable[..., Any]] = {
    "+NSURL fileURLWithPath:": lambda mac, _kind, path: mac.make("NSURL", path=path),
    "+NSData dataWithBytes:length:": _data,
    "+NSProcessInfo processInfo": lambda mac, _kind: mac.make("NSProcessInfo"),
    "-NSProcessInfo operatingSystemVersion": lambda mac, _info: (*mac.macos, 0),
    "+NSOperationQueue mainQueue": lambda mac, _kind: mac.make("NSOperationQueue"),
    "-NSOperationQueue addOperationWithBlock:": lambda mac, _queue, work: mac.work.put(work),
    "+NSRunLoop currentRunLoop": lambda mac, _kind: mac.make("NSRunLoop"),
    "-NSRunLoop runMode:beforeDate:": _run_mode,
    "+NSDate dateWithTimeIntervalSinceNow:": _now,
    "-NSFileHandle initWithFileDescriptor:closeOnDealloc:": _file_handle,
    "-NSError domain": lambda _mac, error: error._values["domain"],
    "-NSError code": lambda _mac, error: error._values["code"],
    "-NSError localizedDescription": lambda _mac, error: error._values["text"],
    "-NSError localizedFailureReason": lambda _mac, error: error._values["reason"] or None,
    "+NSWorkspace sharedWorkspace": lambda mac, _kind: mac.make("NSWorkspace"),
    "-NSWorkspace notificationCenter": lambda mac, _workspace: mac.make("NSNotificationCenter"),
    "-NSNotificationCenter addObserver:selector:name:object:": _add_observer,
    "-VZDiskImageStorageDeviceAttachment initWithURL:readOnly:cachingMode:synchronizationMode:error:": _attachment,
    "-VZEFIVariableStore initCreatingVariableStoreAtURL:options:error:": _store_new,
    "-VZEFIVariableStore initWithURL:": _store,
    "-VZGenericMachineIdentifier init": _identifier_new,
    "-VZGenericMachineIdentifier initWithDataRepresentation:": _identifier_from,
    "-VZGenericMachineIdentifier dataRepresentation": lambda mac, one: mac.make("NSData", bytes=one._values["bytes"]),
    "+VZMACAddress randomLocallyAdministeredAddress": lambda mac, _kind: mac.make(
        "VZMACAddress", string="da:7e:" + ":".join(f"{byte:02x}" for byte in os.urandom(4))
    ),
    "-VZMACAddress initWithString:": _mac_from,
    "+VZVirtioBlockDeviceConfiguration validateBlockDeviceIdentifier:error:": _check_serial,
    "+VZVirtioFileSystemDeviceConfiguration validateTag:error:": _check_tag,
    "+VZVirtualMachineConfiguration minimumAllowedCPUCount": lambda mac, _kind: mac.plan.cpus[0],
    "+VZVirtualMachineConfiguration maximumAllowedCPUCount": lambda mac, _kind: mac.plan.cpus[1],
    "+VZVirtualMachineConfiguration minimumAllowedMemorySize": lambda mac, _kind: mac.plan.memory_mib[0] << 20,
    "+VZVirtualMachineConfiguration maximumAllowedMemorySize": lambda mac, _kind: mac.plan.memory_mib[1] << 20,
    "-VZVirtualMachineConfiguration validateWithError:": _validate,
    "+VZVirtualMachine isSupported": lambda mac, _kind: mac.plan.supported,
    "-VZVirtualMachine initWithConfiguration:": _machine,
    "-VZVirtualMachine setDelegate:": _set_weak,
    "-VZVirtualMachine startWithCompletionHandler:": _start,
    "-VZVirtualMachine stopWithCompletionHandler:": _stop,
    "-VZVirtualMachine pauseWithCompletionHandler:": _change(RUNNING, PAUSED),
    "-VZVirtualMachine resumeWithCompletionHandler:": _change(PAUSED, RUNNING),
    "-VZVirtualMachine requestStopWithError:": _request_stop,
    "-VZVirtioSocketListener setDelegate:": _set_weak,
    "-VZVirtioSocketDevice setSocketListener:forPort:": _set_listener,
    "-VZVirtioSocketDevice connectToPort:completionHandler:": _connect,
    "-VZVirtioSocketConnection close": _close_connection,
    "-VZVirtioSocketConnection fileDescriptor": lambda _mac, one: one._values["fd"],
    "-VZVirtioSocketConnection sourcePort": lambda _mac, one: one._values["source"],
    "-VZVirtioSocketConnection destinationPort": lambda _mac, one: one._values["destination"],
}
