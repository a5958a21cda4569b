"""Photos of rendered people with user-style names, and a minimal experiment on them."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from pedestrians.releases import write_market1501
from tiny import PARAMS

NAMES = ("anna", "bob", "Chloé", "dan", "Zoë", "eve", "x y", "0042")


def fill(root: Path, *paths: str) -> Path:
    """Make empty files, as readers look at names, never at pixels."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def write_photos(root: Path, cameras: int = 2) -> Path:
    """Render people into root/<person>/<camera>/."""
    release = root.with_name(f"{root.name}-release")
    root.mkdir(parents=True)
    write_market1501(
        release,
        world=1,
        hardness=0.4,
        train_ids=len(NAMES),
        test_ids=2,
        cameras=cameras,
        distractors=0,
        junk=0,
        workers=1,
    )
    paths = sorted((release / "bounding_box_train").glob("*.jpg"))
    people = sorted({path.name[:4] for path in paths})
    for path in paths:
        folder = root / NAMES[people.index(path.name[:4])] / ("door", "yard")[int(path.name[6]) - 1]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(path, folder / f"IMG_{path.name[7:]}")
    shutil.rmtree(release)
    return root


def shrink(params: Path) -> None:
    """Give an experiment the tiny one's network and schedules; what is said of the data stays word for word.

    Names stay too, and so the list of jobs.
    """
    head, tail = params.read_text().split("\nbackbones:\n")
    rest = yaml.safe_load(f"backbones:\n{tail}")
    sections: dict[str, Any] = rest | {name: PARAMS[name] for name in ("initialise", "pretrain", "train", "evaluate")}
    sections["backbones"] = dict.fromkeys(rest["backbones"], PARAMS["backbones"]["shallow"])
    sections["train"] = PARAMS["train"] | {"backbone": rest["train"]["backbone"]}
    params.write_text(f"{head}\n{yaml.safe_dump(sections, allow_unicode=True)}")
