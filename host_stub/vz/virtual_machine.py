"""The one VZVirtualMachine of this process and its vsock connections. Everything here happens on the main thread.

Rules
- One start in a life. A second one is refused, and so is anything before the first.
- Each request gets one answer: from here where it is refused, from VZ's completion handler otherwise.
- A VZVirtioSocketConnection is kept until its `Release`: VZ takes the guest's end down when the object closes, although the descriptor was
  handed on. At most `CONNECTIONS` at once; more are refused, to the guest as to the host.
- The guest gets a connection where somebody listens at `{vsock}_{port}` on the host, and is refused otherwise, as on any machine.
- An `orphaned` machine, whose back end is gone, is ended at once.

Sources: Apple, VZVirtualMachine, VZVirtioSocketDevice, VZVirtioSocketConnection; apple/containerization's note on keeping connections.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

from host_stub.vz import words
from host_stub.vz.configuration import compose_configuration
from host_stub.vz.delegate import delegates
from host_stub.vz.framework import Framework
from host_stub.vz.kernel import prepare_kernel
from host_stub.vz.nserrors import describe, trouble_from
from host_stub.vz.words import CONNECTIONS
from host_stub.words import MachineSpec, Trouble


class Send(Protocol):
    def __call__(self, message: words.Message, fds: tuple[int, ...] = ()) -> None:
        """Send to the back end; the descriptors stay the caller's."""


class VirtualMachine:
    """`guard` wraps what Objective-C calls; `on_end` is called once when the machine is no more."""

    def __init__(
        self, framework: Framework, send: Send, *, guard: Callable[..., Any], on_end: Callable[[], None]
    ) -> None:
        self._framework = framework
        self._send = send
        self._guard = guard
        self._on_end = on_end
        self._machine: Any = None
        self._kept: list[Any] = []
        """Delegates and listeners, which VZ holds weakly."""
        self._connections: dict[int, Any] = {}
        self._last_connection = 0
        self._vsock: str = ""
        self._ended = False

    def handle(self, request: Any, fds: list[int]) -> None:
        """One request of the back end; its descriptors are this one's now."""
        try:
            self._handle(request, fds)
        except Trouble as trouble:
            self._refuse(request, trouble)
        except OSError as error:
            self._refuse(
                request, Trouble("host_failed", f"{error}", remedy="look at the file it names, and at the disk")
            )

    def orphaned(self) -> None:
        """Nobody is there any more who could stop it: end it."""
        if self._machine is None or self._ended:
            self._end()
        else:
            self._machine.stopWithCompletionHandler_(self._guard(lambda _error: self._end()))

    # -- requests -----------------------------------------------------------------------------------------------

    def _handle(self, request: Any, fds: list[int]) -> None:
        if isinstance(request, words.Start):
            self._start(request, fds)
        elif isinstance(request, words.Release):
            self._release(request.connection)
        elif self._machine is None or self._ended:
            raise Trouble("not_running", "the machine does not run", remedy="start it first")
        elif isinstance(request, words.Connect):
            self._connect(request)
        elif isinstance(request, words.RequestStop):
            self._request_stop(request)
        elif isinstance(request, words.SetMemory):
            self._set_memory(request)
        else:
            self._ask_machine(request)

    def _ask_machine(self, request: words.Kill | words.Pause | words.Resume) -> None:
        done = self._completion(request)
        if isinstance(request, words.Kill):
            self._machine.stopWithCompletionHandler_(done)
        elif isinstance(request, words.Pause):
            self._machine.pauseWithCompletionHandler_(done)
        else:
            self._machine.resumeWithCompletionHandler_(done)

    def _start(self, request: words.Start, fds: list[int]) -> None:
        if self._machine is not None:
            _close_all(fds)
            raise Trouble("already_running", "this process has its machine", remedy="stop that first")
        framework, spec = self._framework, request.spec
        try:
            if not framework.vz.VZVirtualMachine.isSupported():
                raise no_hypervisor()
            spec.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            kernel = _kernel(spec)
        except BaseException:
            _close_all(fds)
            raise
        configuration, notes = compose_configuration(framework, spec, kernel=kernel, console=(fds[0], fds[1]))
        machine = framework.vz.VZVirtualMachine.alloc().initWithConfiguration_(configuration)
        self._machine, self._vsock = machine, str(spec.vsock)
        delegate = delegates(framework).machine.alloc().init()
        delegate.on_stopped = self._guard(self._stopped)
        machine.setDelegate_(delegate)
        self._kept.append(delegate)
        self._listen(request.guest_ports)
        machine.startWithCompletionHandler_(self._completion(request, tuple(notes)))

    def _request_stop(self, request: words.RequestStop) -> None:
        asked, error = self._machine.requestStopWithError_(None)
        if not asked:
            raise trouble_from(self._framework, error, "the guest cannot be asked to stop")
        self._send(words.Done(id=request.id))

    def _set_memory(self, request: words.SetMemory) -> None:
        devices = self._machine.memoryBalloonDevices()
        devices[0].setTargetVirtualMachineMemorySize_(request.target_bytes >> 20 << 20)
        self._send(words.Done(id=request.id))

    def _connect(self, request: words.Connect) -> None:
        if len(self._connections) >= CONNECTIONS:
            raise Trouble("too_many_connections", f"{CONNECTIONS} vsock connections are open", remedy="close some")

        def connected(connection: Any, error: Any) -> None:
            if connection is None:
                self._refuse(request, trouble_from(self._framework, error, f"port {request.port} does not answer"))
                return
            number = self._keep(connection)
            self._send(
                words.Connected(id=request.id, connection=number, local_port=int(connection.sourcePort())),
                (int(connection.fileDescriptor()),),
            )

        device = self._machine.socketDevices()[0]
        device.connectToPort_completionHandler_(request.port, self._guard(connected))

    def _release(self, number: int) -> None:
        connection = self._connections.pop(number, None)
        if connection is not None:
            connection.close()

    # -- from the guest -----------------------------------------------------------------------------------------

    def _listen(self, ports: tuple[int, ...]) -> None:
        device = self._machine.socketDevices()[0]
        for port in ports:
            delegate = delegates(self._framework).listener.alloc().init()
            delegate.on_connection = self._guard(self._incoming, failing=False)
            listener = self._framework.vz.VZVirtioSocketListener.alloc().init()
            listener.setDelegate_(delegate)
            device.setSocketListener_forPort_(listener, port)
            self._kept += [delegate, listener]

    def _incoming(self, connection: Any) -> bool:
        if len(self._connections) >= CONNECTIONS:
            return False
        port = int(connection.destinationPort())
        host = _dial(f"{self._vsock}_{port}")
        if host is None:
            return False
        with host:
            number = self._keep(connection)
            fds = int(connection.fileDescriptor()), host.fileno()
            self._send(words.Incoming(connection=number, port=port), fds)
        return True

    def _stopped(self, error: Any) -> None:
        self._send(words.Stopped(error="" if error is None else describe(error)))
        self._end()

    # -- inside -------------------------------------------------------------------------------------------------

    def _completion(self, request: words.Request, notes: tuple[str, ...] = ()) -> Callable[[Any], None]:
        def completed(error: Any) -> None:
            if error is not None:
                self._refuse(request, trouble_from(self._framework, error, f"it did not {_VERBS[type(request)]}"))
            else:
                self._send(words.Done(id=request.id, notes=notes))
            if isinstance(request, words.Kill if error is None else words.Start):
                self._end()

        return self._guard(completed)  # type: ignore[no-any-return]

    def _keep(self, connection: Any) -> int:
        self._last_connection += 1
        self._connections[self._last_connection] = connection
        return self._last_connection

    def _refuse(self, request: Any, trouble: Trouble) -> None:
        if isinstance(request, words.Request):
            self._send(
                words.Failed(
                    id=request.id,
                    code=trouble.code,
                    message=trouble.message,
                    remedy=trouble.remedy,
                    details=trouble.details,
                )
            )

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()
            self._on_end()


_VERBS: dict[type[words.Request], str] = {
    words.Start: "start",
    words.Kill: "stop",
    words.Pause: "pause",
    words.Resume: "resume",
}


def no_hypervisor() -> Trouble:
    return Trouble(
        "no_hypervisor",
        "this Mac has no hypervisor for Virtualization.framework",
        remedy="inside another virtual machine nesting must be enabled; otherwise use the back end qemu",
    )


def _kernel(spec: MachineSpec) -> Any:
    if spec.boot != "kernel" or spec.kernel is None:
        return None
    return prepare_kernel(spec.kernel, spec.architecture, spec.state_dir)


def _dial(path: str) -> socket.socket | None:
    """Whoever listens at `path`, without waiting; None where nobody does."""
    dialled = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dialled.setblocking(False)
    try:
        dialled.connect(path)
    except OSError:
        dialled.close()
        return None
    return dialled


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
