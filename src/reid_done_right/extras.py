"""Packages that only some commands need: the extra of this project that installs a missing one."""

import re
from importlib.metadata import PackageNotFoundError, requires

PROJECT = "reid-done-right"
PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow", "faiss": "faiss-cpu", "yaml": "pyyaml"}
"""Module -> package, where the names differ."""


def advice(error: ModuleNotFoundError) -> str | None:
    """Return what is missing and the command that installs it; None for a module that no extra brings."""
    module = (error.name or "").partition(".")[0]
    package = PACKAGES.get(module, module)
    try:
        lines = requires(PROJECT) or []
    except PackageNotFoundError:  # run from a folder, not installed
        return None
    for line in lines:  # in the order of the extras, the smallest first
        asked = re.match(rf"{re.escape(package)}\b(?!-).*extra == ['\"]([\w-]+)", line)
        if asked:
            return f"this needs {package}, which is not installed: pip install '{PROJECT}[{asked[1]}]'"
    return None
