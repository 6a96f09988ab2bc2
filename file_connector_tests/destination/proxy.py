"""A TCP proxy in front of Postgres that cuts the line at a chosen moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import make_url


class CuttingProxy:
    """Forwards bytes until ``should_cut`` says so of something the client sent.

    ``cut_after``: what was sent still reaches the server, and its answer is awaited but never
    delivered; otherwise what was sent is lost too. Cuts ``times`` connections, then behaves.
    """

    def __init__(
        self, url: str, should_cut: Callable[[bytes], bool], *, cut_after: bool, times: int = 1
    ) -> None:
        self._target = make_url(url)
        self._should_cut = should_cut
        self._cut_after = cut_after
        self._left = times
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._spawn(self._accept)
        self.url = self._target.set(port=self._listener.getsockname()[1]).render_as_string(
            hide_password=False
        )

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._sockets:
            _close(line)
        for thread in self._threads:
            thread.join()

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((self._target.host, self._target.port))  # type: ignore[arg-type]
            self._sockets += [client, server]
            muted = threading.Event()
            self._spawn(self._to_server, client, server, muted)
            self._spawn(self._to_client, server, client, muted)

    def _to_server(
        self, client: socket.socket, server: socket.socket, muted: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self._left and self._should_cut(data):
                    self._left -= 1
                    self.cuts += 1
                    if not self._cut_after:
                        break
                    muted.set()
                server.sendall(data)
        _close(client)
        _close(server)

    def _to_client(
        self, server: socket.socket, client: socket.socket, muted: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if muted.is_set():
                    break
                client.sendall(data)
        _close(client)
        _close(server)


def _close(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()
