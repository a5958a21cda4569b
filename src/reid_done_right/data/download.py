"""Resumable downloads over HTTP, with the library requests."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import tenacity
import urllib3
from tqdm import tqdm
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError

from reid_done_right.artifacts import InputError, write_text

CHUNK = 1 << 18
AGAIN = (408, 429, 500, 502, 503, 504)


class Unreachable(InputError):
    """No connection to the server: no network, or the server is gone."""


class Interrupted(Exception):
    """A transfer that can be resumed. `gained`: it made progress; `retry_after`: seconds requested by the server."""

    def __init__(self, reason: object, gained: bool = False, retry_after: float | None = None) -> None:
        super().__init__(f"{reason}")
        self.gained = gained
        self.retry_after = retry_after


@dataclass(frozen=True)
class Patience:
    """Waiting times in seconds, and the number of consecutive attempts without progress."""

    connect: float = 5
    read: float = 60
    attempts: int = 6
    first_wait: float = 1
    longest_wait: float = 300


PATIENCE = Patience()


def download(url: str, part: Path, limit: int, patience: Patience = PATIENCE) -> None:
    """Download `url` to `part`, resuming an earlier download if the server still has the same file.

    limit    largest size of the file in bytes
    Beside an unfinished `part`, `<part>.json` holds the address, length and validator (ETag or date) needed to resume
    safely; without a validator, or with another file or address, the download starts over. Retries back off, or wait as
    long as the server asks (Retry-After). Redirects from https to http are refused.
    Raises Unreachable at once if there is no connection, and InputError if the server refuses, serves a web page or
    too many bytes, if the disk is too small, or after `patience.attempts` attempts in a row that got no further.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    fruitless = 0

    def give_up(state: tenacity.RetryCallState) -> bool:
        nonlocal fruitless
        error = _error(state)
        fruitless = 0 if error.gained else fruitless + 1
        return fruitless >= patience.attempts or (error.retry_after or 0) > patience.longest_wait

    backoff = tenacity.wait_exponential_jitter(
        multiplier=patience.first_wait, max=patience.longest_wait, jitter=patience.first_wait
    )

    def wait(state: tenacity.RetryCallState) -> float:
        asked = _error(state).retry_after
        return backoff(state) if asked is None else asked

    transfer = _Transfer(url, part, limit, patience)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Interrupted), stop=give_up, wait=wait, reraise=True
    )
    try:
        with closing(transfer):
            retrying(transfer.go_on)
    except Interrupted as error:
        asked = f"; it asks to wait {error.retry_after:.0f} s" if error.retry_after else ""
        raise InputError(
            f"{url}: {error}; attempts in a row without progress: {fruitless}{asked}; run the same command later, "
            "it resumes"
        ) from None


def _error(state: tenacity.RetryCallState) -> Interrupted:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Interrupted)
    return error


class _Transfer:
    """The attempts at one download: their connection, their progress bar, and whether the server ever answered."""

    def __init__(self, url: str, part: Path, limit: int, patience: Patience) -> None:
        self.url, self.part, self.limit = url, part, limit
        self.note = part.with_name(f"{part.name}.json")
        self.timeout = (patience.connect, patience.read)
        self.session = requests.Session()
        if url.startswith("https://"):
            del self.session.adapters["http://"]  # so that no redirect can lead there
        self.answered = False
        self.furthest = 0
        self.bar: tqdm[Any] | None = None

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.session.close()

    def go_on(self) -> None:
        """Request the missing bytes and append them. Raises Interrupted if another attempt makes sense."""
        known = self._known()
        have = self.part.stat().st_size if known.get("validator") and self.part.is_file() else 0
        if have and have == known["bytes"]:
            self.note.unlink(missing_ok=True)
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
        with closing(self._ask(headers)) as response:
            whole = response.status_code == 200
            start, total = (0, _length(response)) if whole else _content_range(response)
            if not whole and (start, total) != (have, known.get("bytes")):
                self.part.unlink(missing_ok=True)
                raise Interrupted(f"the server continued another file, from byte {start} of {total}")
            self._check(total)
            if whole:
                self.part.write_bytes(b"")  # before the note, so that no note ever vouches for another file's bytes
                note = {"url": self.url, "bytes": total, "validator": _validator(response) if total else None}
                write_text(self.note, json.dumps(note, indent=1) + "\n")
            self._append(response, start, total)
        self.note.unlink(missing_ok=True)

    def _known(self) -> dict[str, Any]:
        """Return the notes of an earlier attempt at this address."""
        with suppress(OSError, ValueError):
            note = json.loads(self.note.read_text(encoding="utf-8"))
            if isinstance(note, dict) and note.get("url") == self.url:
                return note
        return {}

    def _ask(self, headers: Mapping[str, str]) -> requests.Response:
        try:
            response = self.session.get(self.url, headers=headers, stream=True, timeout=self.timeout)
        except requests.exceptions.SSLError as error:
            raise InputError(f"{self.url}: its certificate is not trusted ({error}); nothing was downloaded") from None
        except requests.exceptions.InvalidSchema as error:
            raise InputError(f"{self.url}: redirects to an address that is not https ({error}); refused") from None
        except requests.exceptions.TooManyRedirects:
            raise InputError(f"{self.url}: redirects without end; the address is dead, use another") from None
        except requests.exceptions.ConnectionError as error:
            reason = getattr(error.args[0], "reason", error.args[0]) if error.args else error
            if not self.answered and isinstance(reason, (NewConnectionError, ConnectTimeoutError, ProxyError)):
                raise Unreachable(f"no connection to {urlsplit(self.url).netloc}") from None
            raise Interrupted(f"the connection broke ({reason})") from None
        except requests.exceptions.RequestException as error:
            raise Interrupted(f"the server did not answer ({error})") from None
        self.answered = True
        self._judge(response)
        return response

    def _judge(self, response: requests.Response) -> None:
        """Raise if the response is not the file."""
        status = f"{response.status_code} {response.reason}"
        if response.status_code == 416:
            self.part.unlink(missing_ok=True)
            raise Interrupted("the server's file is shorter than what is here of it")
        if response.status_code in AGAIN:
            asked = response.headers.get("Retry-After")
            seconds = urllib3.Retry().parse_retry_after(asked) if asked else None
            raise Interrupted(f"the server says {status}", retry_after=seconds)
        if response.status_code not in (200, 206):
            raise InputError(
                f"{self.url}: the server says {status}; the address is dead or needs a log-in, use another"
            )
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise InputError(
                f"{self.url}: is a web page, not the file; open it in a browser and download the file there"
            )

    def _check(self, total: int | None) -> None:
        have = self.part.stat().st_size if self.part.is_file() else 0
        if (total or 0) > self.limit:
            raise InputError(f"{self.url}: has {total} bytes, more than the {self.limit} expected; not downloaded")
        free = shutil.disk_usage(self.part.parent).free
        if (total or 0) - have > free:
            raise InputError(
                f"{self.part.parent}: {free} bytes free, but {self.url} needs {total}; free some, run again"
            )

    def _append(self, response: requests.Response, start: int, total: int | None) -> None:
        name = self.part.name.removesuffix(".part")
        bar = self.bar = self.bar or tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024)
        bar.total, bar.n = total, start
        have = start
        try:
            with self.part.open("ab") as opened:
                while chunk := response.raw.read1(CHUNK, decode_content=False):
                    have += len(chunk)
                    if have > self.limit:
                        raise InputError(f"{self.url}: goes on beyond the {self.limit} bytes expected; stopped")
                    opened.write(chunk)
                    bar.update(len(chunk))
                opened.flush()
                os.fsync(opened.fileno())
        except HTTPError as error:
            gained, self.furthest = have > self.furthest, max(have, self.furthest)
            raise Interrupted(f"the connection broke after {have} of {total} bytes ({error})", gained) from None
        except OSError as error:
            raise InputError(
                f"{self.part}: {error.strerror}; fix that and run the same command again, it resumes"
            ) from None


def _validator(response: requests.Response) -> str | None:
    """Return a validator of this version of the file: a strong ETag, or the modification date."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length")
    return int(length) if length is not None and length.isdecimal() else None


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """Read first byte and whole length from a Content-Range such as "bytes 5-9/10"."""
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    return (int(first) if first.isdecimal() else -1), (int(total) if total.isdecimal() else None)
