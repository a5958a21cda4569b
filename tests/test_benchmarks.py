"""Benchmarks are run by hand; their imports are tested here."""

import subprocess
import sys

from conftest import ROOT


def test_benchmarks_are_imported() -> None:
    names = [path.stem for path in sorted((ROOT / "benchmarks").glob("*.py"))]
    assert "sizes" in names
    program = f"import {', '.join(names)}"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT / "benchmarks", check=True)
