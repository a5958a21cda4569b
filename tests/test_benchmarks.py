"""Benchmarks are run by hand; their imports are tested here."""

import subprocess
import sys

from conftest import ROOT


def test_benchmarks_are_imported() -> None:
    names = [path.stem for path in sorted((ROOT / "benchmarks").glob("*.py"))]
    assert "structure" in names
    program = f"import {', '.join(names)}"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT / "benchmarks", check=True)


def test_structures_have_the_published_counts() -> None:
    program = """
import structure
for dataset in structure.DATASETS.values():
    shown = list(dataset.shown(1))
    paths = [path for each in shown for path in each.paths]
    assert len(set(paths)) == len(paths)
    assert structure.counted(dataset, shown) == structure.COUNTS[dataset.format], dataset.folder
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT / "benchmarks", check=True)
