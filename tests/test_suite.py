"""The test suite itself: copies, comparisons with commits, and the summary of skipped tests."""

import subprocess
from pathlib import Path

import pytest

import conftest
from conftest import (
    IN_REPOSITORY,
    ROOT,
    committed,
    copy_of_the_project,
    files_of_the_project,
    git,
    needs,
    needs_git,
    skips,
)


@needs("a git repository", IN_REPOSITORY)
def test_files_without_repository_equal_git_files() -> None:
    listed = git("ls-files", "--cached", "--others", "--exclude-per-directory=.gitignore", "-z").stdout.decode()
    there = [name for name in listed.split("\0") if (ROOT / name).is_file()]
    assert sorted(files_of_the_project(False)) == sorted(there)
    assert set(files_of_the_project(True)) <= set(there)  # without what the user's own settings of git ignore


def test_copy_without_git_is_one_that_dvc_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "HAS_GIT", False)
    monkeypatch.setattr(conftest, "IN_REPOSITORY", False)
    copy = copy_of_the_project(tmp_path)
    assert not (copy / ".git").exists() and (copy / "src/reid_done_right/cli/__init__.py").is_file()
    assert "no_scm = true" in (copy / ".dvc/config.local").read_text()


@needs_git
def test_committed_file_is_read_as_of_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.md").write_text("committed")
    for command in ("init -q", "add -A", "-c user.name=test -c user.email=test@localhost commit -qm first"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    (tmp_path / "table.md").write_text("changed since")
    (tmp_path / "new.md").write_text("new")
    monkeypatch.setattr(conftest, "ROOT", tmp_path)
    monkeypatch.setattr(conftest, "IN_REPOSITORY", True)
    assert committed("table.md") == b"committed"
    with pytest.raises(FileNotFoundError, match=r"new\.md: not committed"):
        committed("new.md")
    monkeypatch.setattr(conftest, "IN_REPOSITORY", False)
    assert committed("table.md") == b"changed since"


def test_summary_lists_skips_and_remedies() -> None:
    assert skips([]) == "skipped: none"
    reasons = [*["needs a GPU"] * 3, "needs Chromium", "this environment is not the locked one"]
    expected = "3 need a GPU (make test-gpu, where there is one); 1 needs Chromium (apt-get install chromium); 1 because this environment is not the locked one"
    assert skips(reasons) == f"skipped: {expected}"
