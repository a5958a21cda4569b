"""The licences of all locked packages, as a page:  make licences

Asks pip-licenses about the environment, so the environment must be the locked one.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
SILENT = {"cuda-toolkit": "NVIDIA Proprietary Software"}  # without metadata or text: an empty package that names others
TITLES = {"MIT License": "MIT", "Apache License Version 2.0": "Apache-2.0"}
HEAD = """# Licences

This project is under the [MIT licence](../LICENSE). It depends on other packages but does not include any of them. This
page lists everything that `requirements.lock` installs on Linux; `make licences` regenerates it.

- MIT, BSD, ISC, Apache, PSF, Zope: free to use and redistribute with their notices.
- MPL, EPL: as above; changes to their own files must keep the licence.
- GPL: five packages, required by DVC or Snakemake. `asyncssh`, `dulwich` and `grandalf` offer another licence, and
  `pygit2` permits linking; in `docutils` it covers only files for Emacs.
- NVIDIA: free to use, but not free software; they come with PyTorch for GPUs. Read them before you redistribute an
  environment, such as a container image.

| package | version | licence |
|---|---|---|
"""


def licence(name: str, stated: str) -> str:
    """Return what a package states, else what the first words of its licence's text say.

    Raises:
        SystemExit: where neither says anything: a person has to look.
    """
    if stated != "UNKNOWN":
        return stated.replace("|", "or").replace("\n", " ")
    if name in SILENT:
        return SILENT[name]
    for path in distribution(name).files or []:
        if path.name.startswith("LICENSE"):
            words = re.sub(r"\s+", " ", Path(str(path.locate())).read_text()).strip()
            for title, found in TITLES.items():
                if words.startswith(title):
                    return found
    sys.exit(f"{name}: states no licence; look, then add it to SILENT in {__file__}")


def page() -> str:
    """Return the page."""
    asked = [sys.executable, "-m", "piplicenses", "--format=json", "--with-system"]
    printed = subprocess.run(
        [*asked, "--ignore-packages", "pip", "reid-done-right"], check=True, capture_output=True, text=True
    ).stdout
    packages = sorted(json.loads(printed), key=lambda package: package["Name"].lower())
    rows = [f"| {p['Name']} | {p['Version']} | {licence(p['Name'], p['License'])} |" for p in packages]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
