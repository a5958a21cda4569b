"""The workflow and the experiments that come with this project: where they lie, and how to start another from one."""

import re
import shutil
from importlib.metadata import files
from pathlib import Path
from typing import Literal, get_args

from reid_done_right.artifacts import InputError, write_text

Example = Literal["embedded", "paper", "market", "own", "own-cpu", "smoke"]
IGNORED = """\
/results/
/.store/
/.snakemake/
*.damaged
# people's pictures
/data/
/reports/*/
"""


def home() -> Path:
    """Return the folder of the Snakefile: the checkout that this code is part of, or where the package put it.

    Raises InputError if it is in neither.
    """
    checkout = Path(__file__).parents[2]
    if (checkout / "Snakefile").is_file():
        return checkout
    for file in files("reid-done-right") or []:
        if file.name == "Snakefile" and "workflow" not in file.parts:
            return Path(str(file.locate())).resolve().parent
    raise InputError("the workflow is not installed; run pip install --force-reinstall reid-done-right")


def create(folder: Path, example: Example) -> None:
    """Lay out an experiment in a new or empty folder: parameters, profiles, the paper's values, a Snakefile.

    Raises InputError for an unknown example, and for a folder that is not empty.
    """
    if example not in get_args(Example):
        raise InputError(f"--from {example}: use one of {', '.join(get_args(Example))}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not an empty folder; name another one")
    source = home()
    parameters = "params.yaml" if example == "embedded" else f"experiments/{example}/params.yaml"
    text = (source / parameters).read_text(encoding="utf-8")
    text = re.sub(r"(?<=\$schema=).*", "params.schema.json", text, count=1)
    text = re.sub(r"^(  command:).*", r"\1 snakemake --cores all", text, count=1, flags=re.MULTILINE)
    shutil.copytree(source / "profiles", folder / "profiles", dirs_exist_ok=True)
    shutil.copyfile(source / "workflow/params.schema.json", folder / "params.schema.json")
    shutil.copyfile(source / "workflow/new.smk", folder / "Snakefile")
    (folder / "reports").mkdir()
    shutil.copyfile(source / "reports/paper.csv", folder / "reports/paper.csv")
    write_text(folder / ".gitignore", IGNORED)
    write_text(folder / "params.yaml", text.replace(parameters, "params.yaml"))
