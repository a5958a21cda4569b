"""A local object store that implements the part of S3 that Snakemake's plugin needs."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from servers import Local, Quiet


@dataclass
class Bucket:
    """Objects by their keys, each with the time it was put; and the methods that were asked for."""

    url: str
    objects: dict[str, tuple[bytes, datetime]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


class Handler(Quiet):
    server: "Server"

    def handle_any(self) -> None:
        address = urlsplit(self.path)
        _, _, key = unquote(address.path).lstrip("/").partition("/")
        self.server.bucket.asked.append(f"{self.command} {key}")
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        getattr(self, self.command.lower())(key, parse_qs(address.query), sent)

    do_GET = do_HEAD = do_PUT = do_DELETE = handle_any

    def head(self, key: str, query: dict[str, list[str]], _: bytes) -> None:
        self.get(key, query, b"")

    def get(self, key: str, query: dict[str, list[str]], _: bytes) -> None:
        objects = self.server.bucket.objects
        if not key:
            self.answer(200, listing(objects, query.get("prefix", [""])[0]) if self.command == "GET" else b"")
        elif key in objects:
            content, put = objects[key]
            if span := self.headers.get("Range"):
                first, last = span.removeprefix("bytes=").split("-")
                content = content[int(first) : int(last or len(content)) + 1]
            self.answer(206 if span else 200, content, Last_Modified=format_datetime(put, usegmt=True))
        else:
            self.answer(404, b"")

    def put(self, key: str, query: dict[str, list[str]], sent: bytes) -> None:
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            self.answer(501, b"")
            return
        if key:
            self.server.bucket.objects[key] = sent, datetime.now(UTC)
        self.answer(200, b"", ETag=f'"{hashlib.md5(sent).hexdigest()}"')

    def delete(self, key: str, query: dict[str, list[str]], _: bytes) -> None:
        self.server.bucket.objects.pop(key, None)
        self.answer(204, b"")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.start(status, len(body), **headers)
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(Local):
    bucket: Bucket


def listing(objects: dict[str, tuple[bytes, datetime]], prefix: str) -> bytes:
    """Return the answer to ListObjects, all keys at once."""
    found = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
        f"<LastModified>{put:%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
        for key, (content, put) in sorted(objects.items())
        if key.startswith(prefix)
    )
    start = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    return f"{start}<IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()


@contextmanager
def bucket() -> Iterator[Bucket]:
    server = Server(Handler)
    server.bucket = Bucket(server.address)
    with server.running():
        yield server.bucket
