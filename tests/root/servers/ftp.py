"""An FTP server of one file, passive mode only: as much of RFC 959 and RFC 2428 as curl asks for."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.root.servers.seen import Seen, plain

PORT = 21
NAME, CONTENT = "hello.txt", b"hello from ftp\n"
_WAIT_S = 20


class Conversation:
    """One control connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._control = connection
        self._listener: socket.socket | None = None
        self.uploaded = b""

    def run(self) -> None:
        self._say("220 lab")
        with self._control.makefile("rb") as lines:
            for line in lines:
                verb, _, argument = line.decode().strip().partition(" ")
                if not self._obey(verb.upper(), argument):
                    return

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def _say(self, line: str) -> None:
        self._control.sendall(f"{line}\r\n".encode())

    def _obey(self, verb: str, argument: str) -> bool:
        plain_answers = {"USER": "331 any", "PASS": "230 in", "PWD": '257 "/"', "TYPE": "200 so", "CWD": "250 so"}
        if verb in plain_answers:
            self._say(plain_answers[verb])
        elif verb in ("EPSV", "PASV"):
            self._listen(verb)
        elif verb == "SIZE":
            self._say(f"213 {len(CONTENT)}")
        elif verb in ("RETR", "STOR", "LIST", "NLST"):
            self._transfer(verb, argument)
        elif verb == "QUIT":
            self._say("221 bye")
            return False
        else:
            self._say("502 not here")
        return True

    def _listen(self, verb: str) -> None:
        self.close()
        self._listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self._listener.settimeout(_WAIT_S)
        port = self._listener.getsockname()[1]
        if verb == "EPSV":
            self._say(f"229 Entering Extended Passive Mode (|||{port}|)")
        else:
            host = plain(self._control.getsockname()).replace(".", ",")
            self._say(f"227 Entering Passive Mode ({host},{port >> 8},{port & 255})")

    def _transfer(self, verb: str, argument: str) -> None:
        if self._listener is None:
            self._say("425 no data connection")
            return
        if verb == "RETR" and argument.lstrip("/") != NAME:
            self._say("550 no such file")
            return
        self._say("150 now")
        data, _ = self._listener.accept()
        with data:
            if verb == "RETR":
                data.sendall(CONTENT)
            elif verb == "STOR":
                while piece := data.recv(65536):
                    self.uploaded += piece
            else:
                data.sendall(f"{NAME}\r\n".encode())
        self._say("226 done")


def serve_ftp(listener: socket.socket, seen: Seen) -> None:
    """A thread per connection, for ever."""

    def run(connection: socket.socket) -> None:
        conversation = Conversation(connection)
        with connection, contextlib.closing(conversation), contextlib.suppress(OSError):
            seen.connection("ftp", connection)
            conversation.run()
        seen.write(server="ftp", uploaded=conversation.uploaded.decode("latin-1"))

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=run, args=(connection,), daemon=True).start()
