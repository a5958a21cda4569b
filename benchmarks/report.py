"""What the report costs: its four stages, without the store, and how fast its page opens in Chromium.

    python benchmarks/report.py --json benchmarks/results/report.json                    # after `make`
    python benchmarks/report.py --experiment experiments/smoke/params.yaml --json FILE   # after the smoke experiment

The stages run in turn, each in a process of its own, as the engines run them, on the artifacts in results/<experiment>;
what they write goes to a temporary folder. It must take at most 60 seconds and 2 GiB on two cores, and the page must
open in less than 2 seconds.

| key | what |
|---|---|
| seconds, cpu_seconds | all four stages: by the clock, and of all threads |
| peak_gib | the most memory that one of them held (resident, at its peak) |
| stages | the same of each |
| page_mb, opens_seconds | size of report.html; median of `--repeats` openings from its file, a new browser each, until `load` |
| page_errors | what went wrong on it: errors and messages of the console, requests |

Without Chromium the last two are null, and it says so.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from reid_done_right.artifacts import read_json
from reid_done_right.dag import STAGES, options
from reid_done_right.params import load
from reid_done_right.plan import Jobs, plan

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from chromium import CHROMIUM, Tab, browse


def commands(experiment: str, jobs: Mapping[str, Jobs], out: Path) -> dict[str, list[str]]:
    """Return the command of each stage of the report, with `out` instead of the report's own folder."""
    found = {}
    for stage in ("tabulate", "illustrate", "draw", "publish"):
        for job in jobs[stage].values():
            found[stage] = [stage, "--settings", job.settings]
            for key, option in options(STAGES[stage]).items():
                path = option.path.format(**job.places).replace(f"reports/{experiment}", str(out))
                found[stage] += [f"--{key}", path]
    return found


def measured(command: list[str]) -> dict[str, float]:
    """Run a command of reid without the store; return its seconds, processor seconds and peak memory in GiB."""
    began = time.perf_counter()
    started = subprocess.Popen(
        [sys.executable, "-m", "reid_done_right", *command], env={**os.environ, "REID_STORE": "none"}
    )
    _, status, used = os.wait4(started.pid, 0)
    if status:
        sys.exit(f"reid {command[0]} failed: run the experiment first")
    seconds = time.perf_counter() - began
    memory = used.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_gib": memory}


def opened(page: Path, repeats: int) -> tuple[float | None, list[str] | None]:
    """Open a page in new browsers; return the median of the seconds until it had loaded, and what went wrong on it."""
    if CHROMIUM is None:
        print("no Chromium here: how fast the page opens is not measured")
        return None, None
    took: list[float] = []
    wrong: list[str] = []

    async def visit(tab: Tab) -> None:
        took.append(await tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
        wrong.extend(tab.errors)
        wrong.extend(url for url in tab.requests if not url.startswith("data:") and url != page.resolve().as_uri())

    for _ in range(repeats):
        browse(page, visit)
    return statistics.median(took), wrong


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=Path("params.yaml"), help="its parameters")
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=5, help="openings of the page")
    given = parser.parse_args()
    params = load(given.experiment)
    out = Path(tempfile.mkdtemp(dir="results", prefix="report-"))
    try:
        stages = {name: measured(command) for name, command in commands(params.experiment, plan(params), out).items()}
        page = out / "report.html"
        seconds, wrong = opened(page, given.repeats)
        figures = {
            "experiment": params.experiment,
            "parameters_digest": read_json(out / "report.json")["about"]["parameters_digest"],
            "cores": os.cpu_count(),
            "seconds": sum(stage["seconds"] for stage in stages.values()),
            "cpu_seconds": sum(stage["cpu_seconds"] for stage in stages.values()),
            "peak_gib": max(stage["peak_gib"] for stage in stages.values()),
            "stages": stages,
            "page_mb": page.stat().st_size / 1e6,
            "opens_seconds": seconds,
            "page_errors": wrong,
        }
    finally:
        shutil.rmtree(out)
    text = json.dumps(figures, indent=1, default=str)
    rounded = json.loads(text, parse_float=lambda number: round(float(number), 3))
    given.json.write_text(json.dumps(rounded, indent=1) + "\n")
    print(json.dumps({key: value for key, value in rounded.items() if key != "stages"}, indent=1))


if __name__ == "__main__":
    main()
