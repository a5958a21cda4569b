"""Code keys against output bytes: a stage never writes other bytes under an unchanged key.

`structure/portable.json` has the bytes of a tiny chain, which `test_numerics.py` computes again; beside it,
`structure/code_keys.json` has each stage's code key and the digest of its bytes there. Other bytes of a stage, and of
none before it, under the same code key mean that `reid_done_right.store.keys` leaves out something that computes. Where
a change of code is meant,

    python tests/test_golden.py

writes code_keys.json anew; commit it with the change (after portable.json, if the bytes are others).
"""

import json
from fnmatch import fnmatch
from pathlib import Path

from reid_done_right.artifacts import read_json, write_json
from reid_done_right.store.keys import code_key, digest

STRUCTURE = Path(__file__).with_name("structure")
KEPT = STRUCTURE / "code_keys.json"
WRITES = {
    "dataset": ("market/*", "crowd/*", "market.json", "crowd.json"),
    "index": ("market.parquet", "crowd.parquet"),
    "initialise": ("first.*",),
    "pretrain": ("classifier.*", "pretrain.csv"),
    "train": ("embedder.*", "train.csv", "snapshots.*"),
    "embed": ("embedded.*", "shard*"),
    "evaluate": ("scores.json", "queries.parquet"),
    "follow": ("follow.json",),
    "distract": ("curve.*",),
    "identify": ("open_set.json",),
    "retrieve": ("ranked.parquet", "similarities.json"),
}
"""Stage -> its files in the chain (`chain.py`); a stage stands before those that read them."""


def found() -> dict[str, dict[str, str]]:
    """Return stage -> its code key now, and the digest of its bytes in the chain as committed."""
    files = json.loads((STRUCTURE / "portable.json").read_text())["digests"]
    written = {
        stage: {name: content for name, content in files.items() if any(fnmatch(name, each) for each in patterns)}
        for stage, patterns in WRITES.items()
    }
    assert sum(map(len, written.values())) == len(files) and all(written.values())
    return {stage: {"code": code_key(stage), "bytes": digest(files)} for stage, files in written.items()}


def complaint(kept: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> str:
    """Say what is wrong with the first stage that is not as kept; empty if all are."""
    for stage in WRITES:
        if now[stage] == kept[stage]:
            continue
        if now[stage]["code"] == kept[stage]["code"]:
            return (
                f"{stage} writes other bytes with the same code key: store/keys.py leaves out something that computes"
            )
        same = "the same" if now[stage]["bytes"] == kept[stage]["bytes"] else "other"
        return f"the code of {stage} changed, and writes {same} bytes: if that is meant, `python tests/test_golden.py`"
    return ""


def test_code_keys_are_those_of_the_bytes() -> None:
    assert not complaint(read_json(KEPT), found())


def test_complaint_of_other_bytes_with_the_same_code_names_the_first_stage() -> None:
    now = found()
    later = {stage: now[stage] | {"bytes": "other"} for stage in ("train", "embed")}
    assert complaint(now, now | later).startswith("train writes other bytes with the same code key")
    assert "and writes other bytes" in complaint(now, now | later | {"train": {"code": "new", "bytes": "other"}})
    assert "and writes the same bytes" in complaint(now, now | {"embed": now["embed"] | {"code": "new"}})


if __name__ == "__main__":
    write_json(KEPT, found())
