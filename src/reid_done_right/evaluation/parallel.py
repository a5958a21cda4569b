"""Distribute the rows of a block over threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_RANGES = 4  # per thread, as rows differ in cost
_FEWEST = 16  # rows, below which a thread is not worth waking


def cores() -> int:
    """Return how many cores this process may use; macOS and Windows tell only how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_rows(work: Callable[..., Any], rows: int, threads: int | None, *arrays: Any) -> None:
    """Call ``work(start, stop, *arrays)`` for ranges that cover `rows` rows, `threads` (None: all there are) at a time.

    `work` is compiled, releases the interpreter lock, and writes to its own rows only.
    """
    threads = threads or cores()
    step = max(_FEWEST, -(-rows // (_RANGES * threads)))
    ranges = [(start, min(start + step, rows)) for start in range(0, rows, step)]
    if threads == 1 or len(ranges) <= 1:
        for start, stop in ranges:
            work(start, stop, *arrays)
        return
    with ThreadPoolExecutor(threads) as pool:
        for task in [pool.submit(work, *each, *arrays) for each in ranges]:
            task.result()
