"""A local web server that misbehaves on demand, for the download tests."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler"], None]


class Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def start(self, status: int, length: int | None, **headers: str) -> None:
        """Send status and headers, of names such as Content_Range."""
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


class Local(ThreadingHTTPServer):
    """At a port that is free."""

    daemon_threads = True

    def __init__(self, handler: type[Quiet]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()


class Handler(Quiet):
    """Serves `content`, ranges included, unless the next scripted behaviour does something else."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers))
        script = self.server.script
        with suppress(ConnectionError):  # of clients that hang up, or are killed
            (script.pop(0) if script else serve)(self)

    def hang_up(self) -> None:
        self.close_connection = True


class Server(Local):
    def __init__(self, content: bytes) -> None:
        super().__init__(Handler)
        self.content, self.etag = content, '"one"'
        self.script: list[Behaviour] = []
        self.asked: list[dict[str, str]] = []

    def url(self, name: str = "file.zip") -> str:
        return f"{self.address}/{name}"


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    server = Server(content)
    with server.running():
        yield server


def serve(handler: Handler, upto: int | None = None, pace: float = 0) -> None:
    """Serve as a sound server does; `upto` bytes of the file, then hang up; `pace` seconds for each kilobyte."""
    content, etag = handler.server.content, handler.server.etag
    span = handler.headers.get("Range")
    if span and handler.headers.get("If-Range") == etag:
        start = int(span.removeprefix("bytes=").rstrip("-"))
        handler.start(
            206, len(content) - start, ETag=etag, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}"
        )
    else:
        start = 0
        handler.start(200, len(content), ETag=etag)
    for first in range(start, len(content) if upto is None else upto, 1024):
        handler.wfile.write(content[first : min(first + 1024, upto or len(content))])
        handler.wfile.flush()
        time.sleep(pace)
    if upto is not None:
        handler.hang_up()


def drops_at(upto: int) -> Behaviour:
    return lambda handler: serve(handler, upto)


def hangs_up(handler: Handler) -> None:
    handler.hang_up()


def ignores_ranges(handler: Handler) -> None:
    handler.start(200, len(handler.server.content), ETag=handler.server.etag)
    handler.wfile.write(handler.server.content)


def continues_at(wrong: int) -> Behaviour:
    def behave(handler: Handler) -> None:
        content = handler.server.content
        handler.start(206, len(content) - wrong, Content_Range=f"bytes {wrong}-{len(content) - 1}/{len(content)}")
        handler.wfile.write(content[wrong:])

    return behave


def claims(length: int) -> Behaviour:
    """Say another length than the body has, then hang up."""

    def behave(handler: Handler) -> None:
        handler.start(200, length, ETag=handler.server.etag)
        handler.wfile.write(handler.server.content)
        handler.hang_up()

    return behave


def without_length(handler: Handler) -> None:
    handler.start(200, None, Connection="close")
    handler.wfile.write(handler.server.content)
    handler.hang_up()


def stalls_at(upto: int, seconds: float) -> Behaviour:
    def behave(handler: Handler) -> None:
        serve(handler, upto)
        time.sleep(seconds)

    return behave


def answers(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.start(status, len(body), **headers)
        handler.wfile.write(body)

    return behave


class HubHandler(Quiet):
    """Answers as the Hugging Face hub does to its client: metadata of a file by HEAD, its content by GET."""

    server: "Hub"

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, whole: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        owner, name, resolve, revision, file = [*self.path.strip("/").split("/"), *[""] * 5][:5]
        repository = f"{owner}/{name}"
        if repository in self.server.gated:
            return self.refuse(401, "GatedRepo", whole)
        if repository not in self.server.repositories or resolve != "resolve":
            return self.refuse(401, "RepoNotFound", whole)
        if revision not in ("main", COMMIT):
            return self.refuse(404, "RevisionNotFound", whole)
        content = self.server.repositories[repository].get(file)
        if content is None:
            return self.refuse(404, "EntryNotFound", whole)
        about = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        self.start(200, len(content), **about)
        if whole:
            self.wfile.write(content)

    def refuse(self, status: int, why: str, whole: bool) -> None:
        body = b"{}" if whole else b""
        self.start(status, len(body), X_Error_Code=why, X_Error_Message=why, X_Repo_Commit=COMMIT)
        self.wfile.write(body)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(Local):
    """Stands in for the hub: repositories of files, some of which ask for permission."""

    def __init__(self) -> None:
        super().__init__(HubHandler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
