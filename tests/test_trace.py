"""The ledger: provenance, damage found before use, `reid verify` and `reid why`, also in a clone."""

import json
import os
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reid_done_right.artifacts import InputError, file_digest, write_json, write_text
from reid_done_right.data.manifest import make_manifest
from reid_done_right.store import make
from reid_done_right.store.keys import code_key, content_digest
from reid_done_right.store.ledger import COPY, Ledger, read_copy
from reid_done_right.store.objects import WARNING
from reid_done_right.store.trace import artifacts, show, trace, verify
from traces import traces

RESULTS = Path("results/tiny")
MANIFEST, INDEX = RESULTS / "dataset/market.json", RESULTS / "index/market.parquet"
SCORES, TABLE = RESULTS / "evaluate/run.json", Path("reports/tiny/table1.md")
INPUTS = {
    INDEX: {"manifest": MANIFEST},
    SCORES: {"index": INDEX},
    TABLE: {"scores": [SCORES], "paper": Path("paper.csv")},
}
STAGES = {MANIFEST: "dataset", INDEX: "index", SCORES: "evaluate", TABLE: "tabulate"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_STORE", raising=False)
    Path("photos").mkdir()
    for name in "ab":
        Path(f"photos/{name}.jpg").write_text(f"photo {name}")
    Path("paper.csv").write_text("81.2")
    return tmp_path


def run(path: Path, text: str = "made") -> bool:
    """Make one artifact of a chain of four through the store; True if it was computed."""

    def compute(folder: Path) -> None:
        if path == MANIFEST:
            write_json(folder / path.name, make_manifest("market", "market1501", Path("photos")))
        else:
            write_text(folder / path.name, f"{text} {path.stem}")

    stage = STAGES[path]
    settings = RESULTS / f"settings/{stage}/{path.stem}.json"
    if not settings.is_file():
        write_json(settings, {"stage": stage, "job": path.stem, "parameters": {"k": 1}})
    parameters = json.loads(settings.read_text())["parameters"]
    request: dict[str, Any] = {"parameters": parameters, "inputs": INPUTS.get(path, {}), "outputs": [path]}
    return make(stage, compute=compute, job=path.stem, settings=settings, copy=path == TABLE, **request)


def run_all() -> list[bool]:
    return [run(path) for path in STAGES]


def flip_a_bit(path: Path) -> None:
    """Damage a file where it lies, and with it whatever is a hard link to it, as a disk would."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    with path.open("r+b") as opened:
        first = opened.read(1)[0]
        opened.seek(0)
        opened.write(bytes([first ^ 1]))
    path.chmod(mode)


def states(*folders: Path) -> dict[Path, str]:
    paths = [path for folder in folders or (RESULTS, TABLE.parent) for path in artifacts(folder)]
    return {verdict.path: verdict.state for verdict in verify(paths) if verdict.state != "whole"}


# --- entries


def entries() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(".store/ledger").glob("*.json")}


def test_ledger_entry_records_provenance() -> None:
    run_all()
    entry = Ledger.here().made(SCORES, file_digest(SCORES))
    assert entry is not None
    assert (entry.stage, entry.job, entry.parameters) == ("evaluate", "run", {"k": 1})
    assert entry.code == code_key("evaluate")
    assert [(each.path, each.sha256) for each in entry.inputs["index"]] == [(INDEX.as_posix(), file_digest(INDEX))]
    assert entry.outputs == {SCORES.as_posix(): file_digest(SCORES)}
    assert {"numpy", "torch", "scipy"} <= set(entry.made_with.packages)
    assert entry.made_with.device == "cpu"


def test_ledger_entries_keep_bytes_on_store_hits() -> None:
    run_all()
    kept = entries()
    assert len(kept) == len(STAGES)
    shutil.rmtree(RESULTS / "index")
    assert run_all() == [False] * 4
    assert entries() == kept


def test_artifact_is_found_by_content_anywhere() -> None:
    run_all()
    shutil.copyfile(TABLE, "attachment.md")
    assert f"by reid tabulate {TABLE.stem}" in shown(Path("attachment.md"))


def test_folder_is_known_by_its_files(tmp_path: Path) -> None:
    before = content_digest(Path("photos"))
    Path("photos/b.jpg").rename("photos/c.jpg")
    assert content_digest(Path("photos")) != before


def test_why_without_store_reports_missing_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_STORE", "none")
    run_all()
    assert not Path(".store").exists() and not TABLE.with_name(COPY).exists()
    assert "REID_STORE=none keeps no ledger" in shown(TABLE)
    with pytest.raises(InputError, match="holds nothing that the ledger knows"):
        artifacts(RESULTS)


# --- damage


@pytest.mark.parametrize("damaged", [MANIFEST, INDEX, SCORES], ids=lambda path: path.parent.name)
def test_flipped_bit_is_found_before_use_and_mended_by_running_again(damaged: Path) -> None:
    run_all()
    whole = {path: path.read_bytes() for path in STAGES}
    flip_a_bit(damaged)
    reader = next(path for path, inputs in INPUTS.items() if damaged in (inputs.get("scores") or list(inputs.values())))
    with pytest.raises(InputError, match=rf"^{damaged}: damaged or changed .* the store has no copy; set aside"):
        run(reader)
    assert not damaged.exists()
    assert damaged.with_name(damaged.name + ".damaged").exists()
    assert run(damaged)  # the store's copy is the same file, so it has to compute
    assert [run(path) for path in STAGES] == [False] * 4
    assert {path: path.read_bytes() for path in STAGES} == whole
    assert states() == {}


def test_truncated_artifact_is_found_likewise() -> None:
    run_all()
    INDEX.chmod(0o644)
    os.truncate(INDEX, 2)
    with pytest.raises(InputError, match="damaged or changed"):
        run(SCORES)


@pytest.mark.parametrize("damage", ["flipped", "empty", "missing", "directory", "edited"])
def test_store_input_not_as_recorded_is_restored_with_one_warning(
    damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all()
    whole = {path: path.read_bytes() for path in STAGES}
    INDEX.unlink()  # from here on, it is not the store's file that is damaged
    if damage == "directory":
        INDEX.mkdir()
        (INDEX / "mine.txt").write_text("mine")
    elif damage != "missing":
        INDEX.write_bytes({"flipped": bytes([whole[INDEX][0] ^ 1]) + whole[INDEX][1:], "empty": b""}.get(damage, b"?"))
    capsys.readouterr()
    assert run(SCORES) is False
    warnings = capsys.readouterr().err
    assert warnings == f"{WARNING}{INDEX}: missing or not as a stage wrote it; restored from the store\n"
    assert {path: path.read_bytes() for path in STAGES} == whole
    assert states() == {}
    aside = INDEX.with_name(INDEX.name + ".damaged")
    assert aside.exists() == (damage == "directory") and (damage != "directory" or (aside / "mine.txt").exists())


def test_restore_returns_all_latest_outputs() -> None:
    report, table = TABLE.with_name("report.json"), TABLE

    def write(folder: Path, k: int) -> None:
        for path in (report, table):
            write_text(folder / path.name, f"{path.stem} {k}")

    def tabulate(k: int) -> bool:
        return make(
            "tabulate",
            parameters={"k": k},
            inputs={},
            outputs=[report, table],
            compute=lambda folder: write(folder, k),
            copy=True,
        )

    def publish() -> str:
        make(
            "publish",
            parameters={},
            inputs={"report": report},
            outputs=[Path("reports/tiny/report.html")],
            compute=lambda folder: write_text(folder / "report.html", report.read_text()),
            copy=True,
        )
        return Path("reports/tiny/report.html").read_text()

    assert tabulate(1) and tabulate(2)
    assert not tabulate(1)  # the last, though not the newest content
    report.write_text("of another commit")
    table.write_text("of another commit")
    assert publish() == "report 1"
    assert (report.read_text(), table.read_text()) == ("report 1", "table1 1")


def test_make_over_a_changed_report_names_it_and_replaces_it(capsys: pytest.CaptureFixture[str]) -> None:
    run_all()
    TABLE.write_text("a better score")
    capsys.readouterr()
    assert run(TABLE) is False
    assert capsys.readouterr().err == f"{WARNING}{TABLE}: not as a stage wrote it; replaced\n"
    assert TABLE.read_text() == "made table1"
    assert run(TABLE) is False
    assert capsys.readouterr().err == ""


def test_all_damaged_inputs_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run_all()
    flip_a_bit(INDEX)
    flip_a_bit(MANIFEST)
    with pytest.raises(InputError, match=rf"^{INDEX}, {MANIFEST}: damaged"):
        Ledger.here().checked({"both": [INDEX, MANIFEST, Path("paper.csv")]})


def test_damage_in_the_store_alone_is_computed_again() -> None:
    run(MANIFEST)
    run(INDEX)
    kept = next(Path(".store/index").glob("*/*/market.parquet"))
    INDEX.unlink()
    flip_a_bit(kept)
    assert run(INDEX)
    assert INDEX.read_text() == "made market"


def test_store_that_lost_its_ledger_is_not_believed() -> None:
    run(MANIFEST)
    shutil.rmtree(".store/ledger")
    assert run(MANIFEST)


def test_former_version_put_back_by_another_tool_is_no_damage() -> None:
    run_all()
    shutil.copyfile(INDEX, "former")
    Path("photos/c.jpg").write_text("photo c")
    write_json(RESULTS / "settings/dataset/market.json", {"stage": "dataset", "parameters": {"k": 2}})
    run(MANIFEST)
    run(INDEX, "made again")
    INDEX.unlink()
    shutil.copyfile("former", INDEX)
    run(SCORES)


def test_file_of_the_users_own_is_taken_as_it_is() -> None:
    Path("paper.csv").write_text("another")
    assert Ledger.here().checked({"paper": Path("paper.csv")})


# --- verify


def test_all_is_whole_after_a_run() -> None:
    run_all()
    assert artifacts(RESULTS) == [MANIFEST, SCORES, INDEX]
    assert states() == {}


def test_changed_a_missing_and_an_unknown_file_are_named() -> None:
    run_all()
    TABLE.write_text("a better score")
    SCORES.unlink()
    (INDEX.parent / "stray.parquet").write_text("whose?")
    assert states() == {
        TABLE: "changed",
        SCORES: "missing",
        INDEX.parent / "stray.parquet": "unknown",
    }


def test_artifact_of_other_inputs_is_stale() -> None:
    run_all()
    Path("paper.csv").write_text("81.3")
    assert states() == {TABLE: "stale"}


def test_artifact_of_other_settings_is_stale() -> None:
    run_all()
    write_json(RESULTS / "settings/index/market.json", {"parameters": {"k": 2}})
    assert states() == {INDEX: "stale"}
    (RESULTS / "settings/index/market.json").unlink()
    assert states() == {INDEX: "stale"}


def test_artifact_of_other_code_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    run_all()
    monkeypatch.setattr(
        "reid_done_right.store.trace.code_key",
        lambda stage, parameters: "0" * 64 if stage == "index" else code_key(stage, parameters),
    )
    assert states() == {INDEX: "stale"}


@pytest.mark.parametrize(
    "change",
    [
        lambda: Path("photos/a.jpg").write_text("photo x"),
        lambda: Path("photos/a.jpg").unlink(),
        lambda: Path("photos/a.jpg").rename("photos/c.jpg"),
        lambda: shutil.rmtree("photos"),
    ],
    ids=["another", "missing", "renamed", "no folder"],
)
def test_images_that_are_not_the_manifests_are_found(change: Callable[[], object]) -> None:
    run_all()
    change()
    assert states() == {MANIFEST: "changed"}
    assert {verdict.state for verdict in verify([MANIFEST], images=False)} == {"whole"}


def test_damaged_ledger_entry_is_ignored() -> None:
    run_all()
    for path, content in entries().items():
        path.chmod(0o644)
        path.write_bytes(content.replace(b'"k": 1', b'"k": 3').replace(b'"k":1', b'"k":3'))
    assert entries() and not Ledger.here().entries
    assert {verdict.state for verdict in verify([INDEX])} == {"unknown"}
    assert run_all() == [True] * 4


@pytest.mark.parametrize("folder", ["nowhere", "photos"])
def test_folder_without_artifacts_is_an_error(folder: str) -> None:
    with pytest.raises(InputError, match=rf"^{folder}: "):
        artifacts(Path(folder))


# --- why


def shown(path: Path, **options: bool) -> str:
    console = Console(width=118, file=StringIO(), highlight=False)
    with console.capture() as printed:
        show(trace(path), console=console, **options)
    return printed.get()


def test_table_is_traced_to_the_images_digest() -> None:
    run_all()
    told = shown(TABLE)
    digest = make_manifest("market", "market1501", Path("photos"))["sha256"]
    assert digest in told
    for path in STAGES:
        assert f"{path}  {file_digest(path)[:12]}" in told
    assert "paper.csv" in told and "not made here" in told


def test_why_follows_inputs_that_changed_since() -> None:
    run_all()
    former = file_digest(INDEX)
    write_json(RESULTS / "settings/index/market.json", {"parameters": {"k": 2}})
    run(INDEX, "made again")
    assert f"{INDEX}  {former[:12]}" in shown(TABLE)
    assert former not in shown(INDEX)


def test_changed_file_is_reported_as_changed() -> None:
    run_all()
    TABLE.write_text("a better score")
    assert "changed: no stage wrote it so" in shown(TABLE)


def test_of_many_inputs_alike_one_is_followed() -> None:
    run(MANIFEST)
    run(INDEX)
    many = [RESULTS / f"evaluate/run{i}.json" for i in range(4)]
    for path in many:
        make(
            "evaluate",
            parameters={"of": path.name},
            inputs={"index": INDEX},
            outputs=[path],
            compute=lambda folder, path=path: write_text(folder / path.name, path.name),
        )
    make(
        "tabulate",
        parameters={},
        inputs={"scores": many},
        outputs=[TABLE],
        compute=lambda folder: write_text(folder / TABLE.name, ""),
    )
    assert "run0.json" in shown(TABLE) and "run1.json" not in shown(TABLE) and "and 3 more scores" in shown(TABLE)
    assert "run3.json" in shown(TABLE, every=True)
    assert '{"of": "run0.json"}' in shown(TABLE, parameters=True)


def test_nothing_is_traced_without_a_file() -> None:
    with pytest.raises(InputError, match=r"^nowhere\.md: no such file"):
        trace(Path("nowhere.md"))


# --- in a clone, where there is the report and no more


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run_all()
    (tmp_path / "clone").mkdir()
    shutil.copytree("reports", tmp_path / "clone/reports")
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


def test_report_is_traced_to_the_images_digest_in_a_clone(clone: Path) -> None:
    digest = make_manifest("market", "market1501", Path("../photos"))["sha256"]
    told = shown(TABLE)
    assert digest in told and "2 images below photos" in told
    assert all(f"{path}  " in told for path in STAGES)


def test_verify_in_clone_checks_existing_files(clone: Path) -> None:
    assert artifacts(TABLE.parent) == [TABLE] and states(TABLE.parent) == {}
    TABLE.write_text("a better score")
    assert states(TABLE.parent) == {TABLE: "changed"}


def test_copy_is_the_same_bytes_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    run_all()
    copy = TABLE.with_name(COPY)
    before = copy.read_bytes()
    shutil.rmtree(".store")
    shutil.rmtree("results")
    monkeypatch.setattr("reid_done_right.numerics.processor", lambda: {"model name": "another"})
    run_all()
    assert copy.read_bytes() == before and traces(copy) == set()
    assert {entry.stage for entry in read_copy(copy)} == set(STAGES.values())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"jobs"', '"tasks"'),
        ('"inputs": {', '"inputs": 5, "rest": {'),
        ('"outputs": [0', '"outputs": [999'),
        ('"made_with": 0', '"made_with": null'),
        pytest.param('"made_with": 0', f'"made_with": "{"x" * 10_000}"', id="long"),
        ('"code": "', '"code": 5, "rest": "'),
        ('"files": 2', '"files": []'),
        ('"key": "', '"key": "../'),
    ],
)
def test_invalid_ledger_is_one_line_error(clone: Path, old: str, new: str) -> None:
    copy = TABLE.with_name(COPY)
    assert old in copy.read_text()
    copy.write_text(copy.read_text().replace(old, new))
    with pytest.raises(InputError, match=rf"^{copy}: not a ledger \(.*\); restore it") as raised:
        trace(TABLE)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000


def test_ledger_that_goes_in_circles_ends(clone: Path) -> None:
    copy = TABLE.with_name(COPY)
    entries = json.loads(copy.read_text())
    for job in entries["jobs"]:
        job["inputs"] = {"all": list(range(len(entries["contents"])))}
    copy.write_text(json.dumps(entries))
    assert "see above" in shown(TABLE, every=True)


def test_terminal_output_escapes_control_characters(clone: Path) -> None:
    copy = TABLE.with_name(COPY)
    copy.write_text(copy.read_text().replace("photos", "\\u001b[2J"))
    assert "\x1b" not in shown(TABLE) and "\\x1b[2J" in shown(TABLE)


def test_copy_of_the_ledger_passes_over_a_file_that_another_job_is_replacing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path("reports/other")
    write_text(folder / "table1.csv", "1")

    def removed(path: Path) -> str:
        path.unlink()
        raise FileNotFoundError(path)

    monkeypatch.setenv("REID_STORE", "none")
    monkeypatch.setattr("reid_done_right.store.ledger.file_digest", removed)
    Ledger.here().write_copy(folder)
    assert [path.name for path in folder.iterdir()] == [COPY]
