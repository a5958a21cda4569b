"""The store: results are computed once, then linked, and stay intact after failures, kills and races."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reid_done_right.artifacts import HOST, InputError
from reid_done_right.store import make, objects

STAGE = "index"  # any stage: only its name and its code count


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_STORE", raising=False)
    Path("in.txt").write_text("input")
    return tmp_path


class Writer:
    """Writes its text into every output and counts its calls."""

    def __init__(self, *names: str, text: str = "made") -> None:
        self.names, self.text, self.calls = names or ("out.txt",), text, 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        for name in self.names:
            (folder / name).write_text(self.text)


def ask(compute: Callable[[Path], None], *outputs: str, **changes: Any) -> bool:
    """Ask the store for `outputs` of one fixed job, with changes."""
    job: dict[str, Any] = {"parameters": {"k": 1}, "inputs": {"a": Path("in.txt")}}
    places = [Path(output) for output in outputs or ("out.txt",)]
    return make(**{"stage": STAGE, **job, "outputs": places, "compute": compute, **changes})


def kept() -> list[Path]:
    """Return the folders of finished results in the store."""
    return list(Path(".store").glob("*/??/*"))


def files() -> set[str]:
    """Return everything outside the store, but the copy of the ledger beside a report."""
    return {path.as_posix() for path in Path().rglob("*") if ".store" not in path.parts} - {"in.txt", "ledger.json"}


# --- once, then never again


def test_computes_once_and_links_the_second_time() -> None:
    writer = Writer()
    assert ask(writer)
    first = Path("out.txt").stat().st_ino
    Path("out.txt").unlink()
    assert not ask(writer)
    assert writer.calls == 1
    assert Path("out.txt").read_text() == "made"
    assert Path("out.txt").stat().st_ino == first


def test_one_result_serves_many_places() -> None:
    writer = Writer()
    ask(writer)
    assert not ask(writer, "elsewhere/deep/out.txt")
    assert Path("elsewhere/deep/out.txt").samefile("out.txt")


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": {"k": 2}},
        {"parameters": {"k": 1, "j": 1}},
        {"inputs": {"a": Path("other.txt")}},
        {"inputs": {"b": Path("in.txt")}},
        {"inputs": {"a": [Path("in.txt")]}},
        {"inputs": {"a": [Path("other.txt"), Path("in.txt")]}},
        {"stage": "dataset"},
    ],
)
def test_another_key_computes_again(changes: dict[str, Any]) -> None:
    Path("other.txt").write_text("another")
    ask(Writer(text="old"))
    assert ask(Writer(text="new"), **changes)
    assert Path("out.txt").read_text() == "new"
    assert len(kept()) == 2


def test_order_of_files_in_an_input_counts() -> None:
    Path("other.txt").write_text("another")
    ask(Writer(), inputs={"a": [Path("in.txt"), Path("other.txt")]})
    assert ask(Writer(), inputs={"a": [Path("other.txt"), Path("in.txt")]})


def test_names_times_and_the_order_of_keys_do_not_count() -> None:
    ask(Writer(), parameters={"k": 1, "j": 2})
    shutil.copyfile("in.txt", "same.txt")
    os.utime("same.txt", (1, 1))
    assert not ask(Writer(), parameters={"j": 2, "k": 1}, inputs={"a": Path("same.txt")})


def test_changed_back_input_is_found_again() -> None:
    ask(Writer(text="first"))
    Path("in.txt").write_text("changed")
    assert ask(Writer(text="second"))
    Path("in.txt").write_text("input")
    assert not ask(Writer(text="third"))
    assert Path("out.txt").read_text() == "first"


def test_outputs_are_read_only_and_newer_than_their_inputs() -> None:
    ask(Writer())
    os.utime("out.txt", (1, 1))
    ask(Writer())
    assert Path("out.txt").stat().st_mode & 0o777 == 0o444
    assert Path("out.txt").stat().st_mtime >= Path("in.txt").stat().st_mtime
    os.utime("out.txt", (1, 1))
    ask(Writer(), "elsewhere/out.txt")  # linked for the first time, from an old object
    assert Path("elsewhere/out.txt").stat().st_mtime >= Path("in.txt").stat().st_mtime


def test_inputs_of_a_clock_that_ran_ahead_come_back_to_the_present() -> None:
    """Snakemake fails a job whose output is older than its input, and touches the output itself."""
    Path("settings.json").touch()
    ahead, behind = time.time() + 86400, time.time() - 86400
    os.utime("settings.json", (ahead, ahead))
    os.utime("in.txt", (ahead, ahead))
    ask(Writer(), settings=Path("settings.json"))
    assert max(Path(name).stat().st_mtime for name in ("in.txt", "settings.json")) <= time.time()
    os.utime("in.txt", (behind, behind))
    ask(Writer())
    assert Path("in.txt").stat().st_mtime == behind


def test_leftovers_of_killed_process_are_removed() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead, alive = (Path(f".out.txt.{HOST}.{pid}.tmp") for pid in (process.pid, os.getppid()))
    dead.mkdir()
    alive.touch()
    ask(Writer())
    assert files() == {"out.txt", alive.name}


def test_edited_output_is_restored() -> None:
    ask(Writer())
    Path("out.txt").unlink()
    Path("out.txt").write_text("edited")
    assert not ask(Writer())
    assert Path("out.txt").read_text() == "made"


def test_folders_are_outputs_too() -> None:
    def render(folder: Path) -> None:
        (folder / "images" / "query").mkdir(parents=True)
        (folder / "images" / "query" / "1.jpg").write_text("photo")
        (folder / "out.json").write_text("{}")

    assert ask(render, "images", "out.json")
    Path("images/query/1.jpg").unlink()
    Path("images/stray.jpg").write_text("not ours")
    assert not ask(render, "images", "out.json")
    assert files() == {"images", "images/query", "images/query/1.jpg", "out.json"}
    assert Path("images/query/1.jpg").stat().st_mode & 0o777 == 0o444


def test_copies_are_writable_and_independent() -> None:
    writer = Writer()
    ask(writer, copy=True)
    Path("out.txt").write_text("edited by hand")
    assert not ask(writer, "again.txt/out.txt", copy=True)
    assert Path("again.txt/out.txt").read_text() == "made"
    assert not ask(writer, copy=True)
    assert Path("out.txt").read_text() == "made"


def test_another_file_system_gets_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    ask(Writer())
    assert Path("out.txt").read_text() == "made"


def test_file_system_without_locks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))  # as Lustre does when mounted without flock

    monkeypatch.setattr("fcntl.flock", refuse)
    writer = Writer()
    with pytest.raises(InputError, match=r"no locks on this file system .*; set REID_STORE"):
        ask(writer)
    monkeypatch.setenv("REID_STORE", "none")
    assert ask(writer) and writer.calls == 1


def test_without_a_store_everything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_STORE", "none")
    writer = Writer()
    assert ask(writer)
    assert ask(writer)
    assert writer.calls == 2
    assert files() == {"out.txt"}
    assert not Path(".store").exists()
    Path("out.txt").write_text("writable")


def test_environment_names_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REID_STORE", str(tmp_path / "shared"))
    ask(Writer())
    assert not Path(".store").exists()
    assert [path.name for path in (tmp_path / "shared").glob("index/*/*/*")] == ["out.txt"]


# --- failures


def test_failing_stage_leaves_nothing_behind() -> None:
    def fail(folder: Path) -> None:
        (folder / "out.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ask(fail)
    assert files() == set()
    assert kept() == []
    assert ask(Writer())
    assert Path("out.txt").read_text() == "made"


def test_failing_stage_leaves_the_former_output() -> None:
    def fail(folder: Path) -> None:
        raise ValueError

    ask(Writer(text="former"))
    with pytest.raises(ValueError):
        ask(fail, parameters={"k": 2})
    assert Path("out.txt").read_text() == "former"


def test_stage_with_missing_output_is_reported() -> None:
    with pytest.raises(RuntimeError, match=r"stage index did not write b\.txt"):
        ask(Writer("a.txt"), "a.txt", "b.txt")
    assert files() == set()
    assert kept() == []


def test_missing_input_is_named() -> None:
    with pytest.raises(InputError, match=r"gone\.txt: No such file or directory; run the stage that writes it first"):
        ask(Writer(), inputs={"a": Path("gone.txt")})


# --- kills and races, in processes of their own

PROGRAM = """
    import sys, time
    from pathlib import Path
    from reid_done_right.store import make

    def compute(folder):
        with Path("calls").open("a") as calls:
            calls.write("x")
        resumed = (folder / "checkpoint").exists()
        (folder / "checkpoint").write_text("half way")
        (folder / "out.txt").write_text("half")
        Path("started").touch()
        time.sleep(float(sys.argv[1]))
        (folder / "out.txt").write_text("resumed" if resumed else "made")

    made = make("index", parameters={"k": 1}, inputs={"a": Path("in.txt")}, outputs=[Path(sys.argv[2])],
                compute=compute)
    print("computed" if made else "found")
"""


def start(seconds: float, output: str = "out.txt") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(seconds), output]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_kill_leaves_nothing_finished_but_the_checkpoint() -> None:
    process = start(60)
    wait_for(Path("started"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert kept() == []
    assert files() == {"calls", "started"}
    assert [path.name for path in Path(".store/partial").glob("*/checkpoint")] == ["checkpoint"]

    assert start(0).communicate()[0] == "computed\n"
    assert Path("out.txt").read_text() == "resumed"
    assert [path.name for path in kept()[0].iterdir()] == ["out.txt"]
    assert list(Path(".store/partial").iterdir()) == []


def test_two_processes_compute_once() -> None:
    first = start(0.5, "one/out.txt")
    wait_for(Path("started"))
    second = start(0.5, "two/out.txt")
    assert [process.communicate()[0] for process in (first, second)] == ["computed\n", "found\n"]
    assert Path("calls").read_text() == "x"
    assert Path("one/out.txt").samefile("two/out.txt")
    assert list(Path(".store/partial").iterdir()) == []


def test_result_that_appears_just_before_the_lock_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes between this one's look into the store and its lock on the partial folder."""
    alone, other = objects.alone, Writer(text="by the other")

    def late(folder: Path) -> Any:
        monkeypatch.setattr(objects, "alone", alone)
        assert ask(other, "other/out.txt")
        return alone(folder)

    monkeypatch.setattr(objects, "alone", late)
    writer = Writer()
    assert not ask(writer)
    assert writer.calls == 0
    assert Path("out.txt").read_text() == "by the other"


def test_lock_of_a_process_killed_when_all_was_made_is_taken_away() -> None:
    assert ask(Writer())
    (made,) = kept()
    lock = Path(".store/partial", f"{made.name}.lock")
    lock.touch()
    assert not ask(Writer())
    assert not lock.exists()


# --- whose files a job is given


@pytest.mark.parametrize(
    ("job", "how", "told"),
    [
        ("market-default-draw0", "same", False),
        ("market-flip-draw0", "same", True),
        ("market-default-draw0-3", "part", False),
        ("market-default-draw01", "part", True),
    ],
)
def test_make_given_a_file_of_another_run_rejects_it(job: str, how: str, told: bool) -> None:
    """Every run of a dataset has embeddings of the same rows: nothing in them would tell."""
    ask(Writer("embedded.txt", text="vectors"), "embedded.txt", job="market-default-draw0")
    request = {"inputs": {"embeddings": Path("embedded.txt")}, "of": {"embeddings": how}, "job": job}
    if told:
        with pytest.raises(InputError, match=f"embedded.txt: made for market-default-draw0, .* settings are of {job}"):
            ask(Writer(), **request)
    else:
        assert ask(Writer(), **request)


def test_make_given_a_file_of_the_user_takes_it() -> None:
    assert ask(Writer(), of={"a": "same"}, job="market-default-draw0")
