"""A real S3 server, moto's, that checks signatures; and a line to it that can be cut."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import boto3

from conftest import ENVIRONMENT

UNSIGNED = 3  # requests that the server takes from anyone, to make its first user
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


class Line(ThreadingTCPServer):
    """Hands on what clients and the server say, and counts its bytes, until it is cut."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.url, self.port = f"http://127.0.0.1:{self.server_address[1]}", port
        self.passed, self.end = 0, sys.maxsize

    @property
    def whole(self) -> bool:
        return self.passed <= self.end

    @contextmanager
    def cut(self, after: int) -> Iterator[None]:
        """Until the end of the block, hand on so many bytes more and then nothing."""
        self.end = self.passed + after
        yield
        self.end = sys.maxsize


class Call(BaseRequestHandler):
    server: Line

    def handle(self) -> None:
        if not self.server.whole:
            return
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port)) as there:
            back = threading.Thread(target=self.hand_on, args=(there, self.request), daemon=True)
            back.start()
            self.hand_on(self.request, there)
            back.join()

    def hand_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while self.server.whole and (said := source.recv(4096)):
                self.server.passed += len(said)
                if self.server.whole:
                    target.sendall(said)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Store:
    """The keys of a server's only user, the line to it, its log, and its bucket."""

    def __init__(self, line: Line, log: Path) -> None:
        self.line, self.log = line, log
        self.key, self.secret = "anyone", "nothing"
        iam = self.client("iam")
        iam.create_user(UserName="user")
        made = iam.create_access_key(UserName="user")["AccessKey"]
        iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=json.dumps(ALL))
        self.key, self.secret = made["AccessKeyId"], made["SecretAccessKey"]
        self.client("s3").create_bucket(Bucket="bucket")

    def client(self, name: str) -> Any:
        keys = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret}
        return boto3.client(name, endpoint_url=f"http://127.0.0.1:{self.line.port}", region_name="us-east-1", **keys)

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Return what is in the bucket."""
        s3 = self.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {key: s3.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys}

    def access(self, **other: str) -> dict[str, str]:
        """Return the variables that Snakemake's plugin reads, through the line, but for others."""
        values = {"endpoint_url": self.line.url, "access_key": self.key, "secret_key": self.secret} | other
        return {f"SNAKEMAKE_STORAGE_S3_{name.upper()}": value for name, value in values.items()}


@contextmanager
def s3(folder: Path) -> Iterator[Store]:
    """Serve until the end of the block."""
    log, environment = folder / "s3.log", {**ENVIRONMENT, "INITIAL_NO_AUTH_ACTION_COUNT": str(UNSIGNED)}
    command = [sys.executable, "-u", "-m", "moto.server", "--port", "0"]
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
    try:
        with Line(port(process, log)) as line:
            threading.Thread(target=line.serve_forever, args=(0.01,), daemon=True).start()
            yield Store(line, log)
            line.shutdown()
    finally:
        process.kill()
        process.wait()


def port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Return at which port the server listens, once it says so."""
    until = time.monotonic() + 120
    while not (found := re.search(r"Running on http://127\.0\.0\.1:(\d+)", log.read_text())):
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    return int(found[1])
