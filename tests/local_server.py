"""A web server in a test: an application is asked for each answer, and may be told to fail."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Attributes:
        cut: so many bytes of the body are sent, and then the connection is closed; None is all of them.
        pause: seconds between two thousands of bytes.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    pause: float = 0.0


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    home: str

    @property
    def json(self) -> Any:
        """The JSON that was sent."""
        return json.loads(self.body)


Fault = Callable[[Request], Answer | None]


class Application:
    """What answers requests.

    Attributes:
        requests: all that were asked.
        faults: asked before each answer; the first that gives one is answered instead.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.url = ""

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""
        self.requests.append(request)
        found = next((answer for fault in self.faults if (answer := fault(request)) is not None), None)
        return self.proper(request) if found is None else found

    def proper(self, request: Request) -> Answer:
        """Return the answer where nothing fails."""
        return Answer(status=404)


A = TypeVar("A", bound=Application)


class StaticHost(Application):
    """A static host: files by path, with ETag, conditions and ranges."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        super().__init__()
        self.files = dict(files or {})

    def proper(self, request: Request) -> Answer:
        """Return the file."""
        data = self.files.get(request.path.removeprefix("/"))
        if data is None:
            return Answer(status=404)
        etag = f'"{hash(data):x}"'
        if request.headers.get("if-none-match") == etag:
            return Answer(status=304, headers={"ETag": etag})
        fresh = request.headers.get("if-range", etag) == etag
        return ranged(data, {"ETag": etag}, request.headers.get("range", "") if fresh else "")


class Proxy(Application):
    """Hands requests on as they are, so that their signatures stay right."""

    def __init__(self, behind: str) -> None:
        super().__init__()
        self.behind = behind

    def proper(self, request: Request) -> Answer:
        """Return what the server behind answers."""
        connection = http.client.HTTPConnection(urlsplit(self.behind).netloc, timeout=60)
        query = urlencode([(name, value) for name, values in request.query.items() for value in values])
        path = f"{request.path}?{query}" if query else request.path
        headers = {name: value for name, value in request.headers.items() if name != "transfer-encoding"}
        with closing(connection):
            connection.request(
                request.method, path, request.body, {**headers, "content-length": str(len(request.body))}
            )
            answer = connection.getresponse()
            body = answer.read()
        left = {"transfer-encoding", "connection", "content-length"}
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in left}
        length = {"Content-Length": answer.headers["Content-Length"]} if request.method == "HEAD" else {}
        return Answer(body, answer.status, {**kept, **length})


def ranged(data: bytes, headers: Mapping[str, str], asked: str) -> Answer:
    """Return the part of data that was asked for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
    if match is None:
        return Answer(data, 200, headers)
    first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
    if first >= len(data):
        return Answer(b"", 416, headers)
    part = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
    return Answer(data[first : last + 1], 206, {**headers, **part})


def once(answer: Answer, path: str = "", times: int = 1) -> Fault:
    """Return a fault that answers so many times to requests whose path ends so."""
    left = [times]

    def fault(request: Request) -> Answer | None:
        if not request.path.endswith(path) or not left[0]:
            return None
        left[0] -= 1
        return answer

    return fault


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for an application."""

    protocol_version = "HTTP/1.1"
    # Head and body of an answer are sent one after the other, and would wait for each other.
    disable_nagle_algorithm = True
    application: Application

    def serve(self) -> None:
        """Answer one request."""
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        chunked = headers.get("transfer-encoding") == "chunked"
        body = self._chunks() if chunked else self.rfile.read(int(headers.get("content-length", 0)))
        query = parse_qs(parts.query, keep_blank_values=True)
        home = self.application.url
        answer = self.application.answer(Request(self.command, parts.path, query, headers, body, home))
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = serve  # noqa: N815 (the names that the class looks for)

    def _chunks(self) -> bytes:
        """Return a body that comes in pieces, each behind its length."""
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _send(self, answer: Answer) -> None:
        body = answer.body[: answer.cut]
        try:
            for start in range(0, len(body), 1000 if answer.pause else 1 << 20):
                self.wfile.write(body[start : start + (1000 if answer.pause else 1 << 20)])
                self.wfile.flush()
                time.sleep(answer.pause)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        self.close_connection = self.close_connection or answer.cut is not None

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def running(application: A) -> Iterator[A]:
    """Yield an application that answers at its url until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"application": application}))
    server.daemon_threads = True
    application.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield application
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int, *, seconds: float = 10.0) -> None:
    """Wait until somebody listens."""
    for _ in range(int(seconds * 20)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not start")
