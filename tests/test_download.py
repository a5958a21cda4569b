"""Downloads from a server that drops, stalls, lies, redirects and limits its rate, and after a kill."""

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import servers
from reid_done_right.artifacts import InputError
from reid_done_right.data import download as module
from reid_done_right.data.download import Patience, Unreachable, download
from reid_done_right.data.fetch import find_file, obtain_file
from reid_done_right.data.sources import File
from servers import Server

CONTENT = np.random.default_rng(0).bytes(100_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HASTY = Patience(connect=2, read=0.3, attempts=3, first_wait=0.01, longest_wait=0.05)
LIMIT = 200_000


@pytest.fixture
def server() -> Iterator[Server]:
    with servers.serving(CONTENT) as running:
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.zip.part"


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for headers in server.asked]


# --- transfers


def test_file_comes_whole(server: Server, part: Path) -> None:
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT and ranges(server) == [None]
    assert [path.name for path in part.parent.iterdir()] == [part.name]


def test_dropped_connection_resumes(server: Server, part: Path) -> None:
    server.script = [servers.drops_at(30_000), servers.hangs_up, servers.drops_at(70_000)]
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=30000-", "bytes=30000-", "bytes=70000-"]
    assert {headers.get("If-Range") for headers in server.asked[1:]} == {'"one"'}


def test_drops_do_not_count_while_bytes_are_gained(server: Server, part: Path) -> None:
    server.script = [servers.drops_at(upto) for upto in range(10_000, 100_000, 10_000)]  # nine, with patience for three
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT and len(server.asked) == 10


def test_later_run_resumes_earlier_one(server: Server, part: Path) -> None:
    server.script = [servers.drops_at(30_000), *[servers.hangs_up] * 3]
    with pytest.raises(
        InputError, match="attempts in a row without progress: 3; run the same command later, it resumes"
    ):
        download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT[:30_000]
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT and ranges(server)[-1] == "bytes=30000-"


def test_server_that_ignores_ranges_restarts_cleanly(server: Server, part: Path) -> None:
    server.script = [servers.drops_at(30_000), servers.ignores_ranges]
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT and len(server.asked) == 2


def test_another_version_of_the_file_is_not_glued_to_the_first(server: Server, part: Path) -> None:
    def changes(handler: servers.Handler) -> None:
        server.content, server.etag = CONTENT[::-1], '"two"'
        servers.serve(handler)

    server.script = [servers.drops_at(30_000), changes]
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT[::-1]


def test_range_of_another_place_is_not_appended(server: Server, part: Path) -> None:
    server.script = [servers.drops_at(30_000), servers.continues_at(40_000)]
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT and ranges(server) == [None, "bytes=30000-", None]


def test_download_without_validator_starts_over(server: Server, part: Path) -> None:
    server.etag = 'W/"weak"'
    server.script = [servers.drops_at(30_000)]
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT and ranges(server) == [None, None]


def test_server_that_never_gets_further_is_given_up(server: Server, part: Path) -> None:
    """Each attempt brings bytes, but always the same, as nothing allows to go on."""
    server.etag = 'W/"weak"'
    server.script = [servers.drops_at(30_000)] * 99
    with pytest.raises(InputError, match=r"broke after 30000 of 100000 bytes .*without progress: 3"):
        download(server.url(), part, LIMIT, HASTY)
    assert len(server.asked) == 4  # one that got further than nothing, and three


def test_download_from_other_address_starts_over(server: Server, part: Path) -> None:
    server.script = [servers.drops_at(30_000), *[servers.hangs_up] * 3]
    with pytest.raises(InputError):
        download(server.url(), part, LIMIT, HASTY)
    download(server.url("other.zip"), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT and ranges(server)[-1] is None


def test_stalled_server_is_retried(server: Server, part: Path) -> None:
    server.script = [servers.stalls_at(30_000, 1.0)]
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT and ranges(server) == [None, "bytes=30000-"]


def test_short_body_is_reported(server: Server, part: Path) -> None:
    server.script = [servers.claims(150_000), *[servers.answers(416)] * 9]
    with pytest.raises(InputError, match="attempts in a row without progress: 3"):
        download(server.url(), part, LIMIT, HASTY)
    server.script = [servers.claims(150_000)] * 9
    part.unlink(missing_ok=True)
    with pytest.raises(InputError, match="broke after 100000 of 150000 bytes"):
        download(server.url(), part, LIMIT, replace(HASTY, attempts=1))


def test_file_of_unknown_length_comes_whole(server: Server, part: Path) -> None:
    server.script = [servers.without_length]
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("behaviour", [servers.serve, servers.without_length])
def test_more_bytes_than_expected_are_rejected(server: Server, part: Path, behaviour: servers.Behaviour) -> None:
    server.script = [behaviour]
    with pytest.raises(
        InputError, match=r"has 100000 bytes, more than the 5000 expected|beyond the 5000 bytes expected"
    ):
        download(server.url(), part, 5000, HASTY)
    assert not part.exists() or part.stat().st_size <= 5000


def test_small_disk_is_reported_before_download(server: Server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 99_999})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=f"{part.parent}: 99999 bytes free, but .*file.zip needs 100000; free some"):
        download(server.url(), part, LIMIT, HASTY)
    assert not part.exists()


HOSTILE = st.one_of(
    st.integers(0, 99_999).map(servers.drops_at),
    st.integers(0, 99_999).map(servers.continues_at),
    st.integers(100_001, 150_000).map(servers.claims),
    st.sampled_from(
        [servers.hangs_up, servers.ignores_ranges, servers.without_length, servers.answers(503), servers.answers(416)]
    ),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(HOSTILE, max_size=6))
def test_whatever_happens_on_the_way_the_bytes_are_the_files(script: list[servers.Behaviour]) -> None:
    with servers.serving(CONTENT) as server, tempfile.TemporaryDirectory() as folder:
        server.script = script
        part = Path(folder) / "file.zip.part"
        download(server.url(), part, LIMIT, Patience(read=2, attempts=9, first_wait=0.001, longest_wait=0.001))
        assert part.read_bytes() == CONTENT


# --- what servers say


def test_rate_limit_is_waited_for(server: Server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(module.tenacity.nap.time, "sleep", waited.append)
    server.script = [servers.answers(429, Retry_After="2"), servers.answers(503)]
    download(server.url(), part, LIMIT, replace(HASTY, longest_wait=5))
    assert part.read_bytes() == CONTENT
    asked, grown = (seconds for seconds in waited if seconds)  # the server sleeps 0
    assert asked == 2 and 0 < grown < 1


def test_waits_grow(server: Server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(module.tenacity.nap.time, "sleep", waited.append)
    server.script = [servers.answers(503)] * 4
    download(server.url(), part, LIMIT, Patience(attempts=5))
    assert [int(np.log2(seconds)) for seconds in waited if seconds] == [0, 1, 2, 3]  # the server sleeps 0


def test_server_that_asks_for_an_hour_is_left(server: Server, part: Path) -> None:
    server.script = [servers.answers(429, Retry_After="3600")]
    with pytest.raises(
        InputError, match=r"says 429 Too Many Requests; .* it asks to wait 3600 s; run the same command later"
    ):
        download(server.url(), part, LIMIT, HASTY)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (servers.answers(404), "says 404 Not Found; the address is dead or needs a log-in"),
        (servers.answers(403), "says 403 Forbidden; the address is dead or needs a log-in"),
        (servers.answers(200, b"<html>", Content_Type="text/html; charset=utf-8"), "is a web page, not the file"),
    ],
)
def test_download_rejects_html_page(server: Server, part: Path, behaviour: servers.Behaviour, message: str) -> None:
    server.script = [behaviour]
    with pytest.raises(InputError, match=message):
        download(server.url(), part, LIMIT, HASTY)
    assert not part.exists() and len(server.asked) == 1


def test_redirects_are_followed(server: Server, part: Path) -> None:
    server.script = [
        servers.answers(302, Location="/there.zip"),
        servers.drops_at(30_000),
        servers.answers(301, Location="/x"),
    ]
    download(server.url(), part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT and ranges(server)[-1] == "bytes=30000-"


def test_redirects_without_end_are_reported(server: Server, part: Path) -> None:
    server.script = [servers.answers(302, Location="/there.zip")] * 99
    with pytest.raises(InputError, match="redirects without end; the address is dead"):
        download(server.url(), part, LIMIT, HASTY)


@pytest.fixture
def secure(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server over https, with a certificate that requests trusts here."""
    files = [str(tmp_path / name) for name in ("key.pem", "certificate.pem")]
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", files[1])
    return server


def test_https_serves_and_is_never_downgraded(secure: Server, part: Path) -> None:
    address = secure.url().replace("http://", "https://")
    download(address, part, LIMIT, HASTY)
    assert part.read_bytes() == CONTENT
    part.unlink()
    with servers.serving(CONTENT) as plain:
        secure.script = [servers.answers(302, Location=plain.url())]
        with pytest.raises(InputError, match=r"redirects to an address that is not https .*refused"):
            download(address, part, LIMIT, HASTY)
        assert plain.asked == [] and not part.exists()


def test_untrusted_certificate_is_reported(secure: Server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(InputError, match=r"its certificate is not trusted .*nothing was downloaded"):
        download(secure.url().replace("http://", "https://"), part, LIMIT, HASTY)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/f.zip", "http://no-such-host.invalid/f.zip"])
def test_no_connection_is_reported_at_once(part: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(module.tenacity.nap.time, "sleep", waited.append)
    with pytest.raises(Unreachable, match=r"no connection to (127.0.0.1:|no-such-host.invalid)"):
        download(address.format(port=closed_port()), part, LIMIT, Patience())
    assert not any(waited) and not part.exists()


def test_missing_proxy_is_reported_at_once(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(Unreachable, match=r"no connection to a.invalid"):
        download("https://a.invalid/f.zip", part, LIMIT, Patience())


# --- files verified


def zip_file(server: Server, folder: Path, **known: object) -> File:
    return replace(File(folder / "file.zip", (server.url(),)), **known)  # type: ignore[arg-type]


def test_file_is_fetched_once_and_then_found(server: Server, tmp_path: Path) -> None:
    file = zip_file(server, tmp_path, sha256=SHA256, bytes=100_000)
    assert find_file(file, "").state == "to fetch" and find_file(file, "").bytes == 100_000
    assert obtain_file(file, "") == obtain_file(file, "", offline=True) == SHA256
    assert find_file(file, "").state == "there"
    assert file.path.read_bytes() == CONTENT and len(server.asked) == 1


@pytest.mark.parametrize("digits", [64, 8])
def test_wrong_bytes_never_get_the_name(server: Server, tmp_path: Path, digits: int) -> None:
    server.content = CONTENT[::-1]
    file = zip_file(server, tmp_path, sha256=SHA256[:digits].upper())
    with pytest.raises(
        InputError,
        match=rf"(?s)file.zip: no such file; http://.*: its SHA-256 is \w+, but {SHA256[:digits].upper()} is published; what came was discarded; .*; or download .* and put it at",
    ):
        obtain_file(file, "")
    assert not file.path.exists() and not list(tmp_path.glob("*.part*"))


def test_mirror_serves_where_the_first_address_does_not(server: Server, tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{closed_port()}/file.zip"
    server.script = [servers.answers(404)]
    file = zip_file(server, tmp_path, urls=(dead, server.url("gone.zip"), server.url()), sha256=SHA256)
    obtain_file(file, "")
    assert file.path.read_bytes() == CONTENT


def test_first_digest_seen_is_recorded_and_compared_from_then_on(server: Server, tmp_path: Path) -> None:
    file, record = zip_file(server, tmp_path), tmp_path / "file.zip.sha256"
    obtain_file(file, "")
    assert record.read_text() == f"{SHA256}  file.zip\n"
    subprocess.run(["sha256sum", "--check", "--quiet", record.name], cwd=tmp_path, check=True)

    file.path.write_bytes(CONTENT[::-1])
    with pytest.raises(
        InputError,
        match=rf"file.zip: its SHA-256 is \w+, but was {SHA256} when it was first seen \(.*file.zip.sha256\); obtain it again, or delete that record if you trust the new one",
    ):
        obtain_file(file, "")
    file.path.unlink()
    server.content = CONTENT[::-1]  # the server changes too
    with pytest.raises(InputError, match="what came was discarded; use another address, or delete that record"):
        obtain_file(file, "")
    assert not file.path.exists()
    record.unlink()
    obtain_file(file, "")
    assert file.path.read_bytes() == CONTENT[::-1]


def test_damaged_file_with_a_published_digest_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file.zip").write_bytes(b"damaged")
    with pytest.raises(InputError, match=rf"file.zip: its SHA-256 is \w+, but {SHA256} is published; obtain it again"):
        obtain_file(File(tmp_path / "file.zip", sha256=SHA256), "")
    assert (tmp_path / "file.zip").read_bytes() == b"damaged"


def test_unrecordable_digest_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("reid_done_right.data.fetch.write_text", denied)
    (tmp_path / "file.zip").write_bytes(CONTENT)
    with pytest.raises(InputError, match=r"file.zip.sha256: Permission denied; make its folder writable, or give"):
        obtain_file(File(tmp_path / "file.zip"), "")
    assert obtain_file(File(tmp_path / "file.zip", sha256=SHA256), "") == SHA256


def test_offline_fetch_reports_missing_files(server: Server, tmp_path: Path) -> None:
    file = zip_file(server, tmp_path, bytes=100_000_000)
    message = rf"{file.path}: no such file, and nothing is fetched offline; download {server.url()} \(100 MB\) where there is a network and put it at {file.path}$"
    with pytest.raises(InputError, match=message):
        obtain_file(file, "", offline=True)
    assert server.asked == []
    unreachable = replace(file, urls=(f"http://127.0.0.1:{closed_port()}/file.zip",))
    with pytest.raises(InputError, match=r"no such file; no connection to 127.0.0.1:\d+; or download http"):
        obtain_file(unreachable, "")
    with pytest.raises(InputError, match=f"no such file; ask them; put it at {file.path}"):
        obtain_file(replace(file, urls=()), "ask them")


def test_size_of_a_known_file_bounds_its_download(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 100000 bytes, more than the 90900 expected"):
        obtain_file(zip_file(server, tmp_path, bytes=90_000), "")
    obtain_file(zip_file(server, tmp_path, bytes=99_500), "")


KILLED = """
import sys
from pathlib import Path
from reid_done_right.data.fetch import obtain_file
from reid_done_right.data.sources import File
print(obtain_file(File(Path(sys.argv[1]), (sys.argv[2],)), ""))
"""


def test_killed_download_resumes(server: Server, tmp_path: Path) -> None:
    path, part = tmp_path / "file.zip", tmp_path / "file.zip.part"
    server.script = [lambda handler: servers.serve(handler, pace=0.02)]
    running = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), server.url()],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not (part.is_file() and part.stat().st_size > 0):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    left = part.stat().st_size
    assert 0 < left < len(CONTENT) and not path.exists()
    assert json.loads((tmp_path / "file.zip.part.json").read_text())["bytes"] == len(CONTENT)
    obtain_file(File(path, (server.url(),)), "")
    assert path.read_bytes() == CONTENT and ranges(server) == [None, f"bytes={left}-"]
