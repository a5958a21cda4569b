"""The soak counts what it should: an exception, an input without end, a process that dies; and goes on where it was."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import robustness
from robustness import Counts, mutated, try_inputs


def reader(attempt: Callable[[], bool]) -> robustness.Attempt:
    def draw(chance: random.Random, folder: Path) -> tuple[Any, Callable[[], bool]]:
        return b"", attempt

    return draw


def fails() -> bool:
    raise KeyError("x")


def sleeps() -> bool:
    time.sleep(60)
    return True


def dies() -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attempt", "kind"), [(fails, "tracebacks"), (sleeps, "without_end"), (dies, "tracebacks"), (lambda: True, "taken")]
)
def test_input_is_counted_by_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: Callable[[], bool], kind: str
) -> None:
    monkeypatch.setattr(robustness, "READERS", {"a": reader(attempt)})
    monkeypatch.setattr(robustness.hostile, "TARGETS", {})
    monkeypatch.setattr(robustness, "PATIENCE", 1)
    try_inputs(2, 0, 1, Counts(tmp_path / "r.json"))
    found = json.loads((tmp_path / "r.json").read_text())["inputs"]["a"]
    assert found["tried"] >= 1 and found[kind] == found["tried"]
    assert all(found[other] == 0 for other in ("taken", "tracebacks", "without_end") if other != kind)


def test_counts_add_up_for_the_same_code_and_begin_anew_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code, totals in (("a", (3, 2)), ("a", (6, 4)), ("b", (3, 2))):
        monkeypatch.setattr(robustness, "digest", lambda folder, code=code: code)
        counts = Counts(tmp_path / "r.json")
        counts.add("faults", ("DVC", "pipe"), tried=3, survived=2)
        written = counts.write()
        assert (written["faults_tried"], written["survived"]) == totals
        assert written["lost"] == totals[0] - totals[1]
    (earlier,) = json.loads((tmp_path / "r.json").read_text())["earlier"]
    assert (earlier["code"], earlier["faults_tried"], earlier["survived"]) == ("a", 6, 4)


def test_code_is_the_same_after_it_was_compiled(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = robustness.digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.cpython-311.pyc").write_bytes(b"1")
    assert robustness.digest(tmp_path) == before
    (tmp_path / "a.py").write_text("2")
    assert robustness.digest(tmp_path) != before


def test_mutated_leaves_bytes_that_differ() -> None:
    chance = random.Random(0)
    assert sum(mutated(b"content" * 9, chance) != b"content" * 9 for _ in range(100)) > 90
