"""Models on the Hugging Face hub, under names such as `hub:owner/name`, read through the hub's own client.

A repository holds what `reid export --format hub` writes: the weights as `reid train` wrote them, a description and a
card. Files stay in the client's cache, so a model is fetched once. No code of a repository is executed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from reid_done_right.artifacts import DIGITS, InputError, file_digest, read_json

SCHEME, LIBRARY = "hub:", "reid-done-right"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""Files of a repository; the hub counts downloads by the second."""

NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)


def is_name(model: str | os.PathLike[str]) -> bool:
    """Return whether a model is on the hub, not a file."""
    return os.fspath(model).startswith(SCHEME)


def local(model: str | os.PathLike[str]) -> Path:
    """Return the file of a model: itself, or for hub:OWNER/NAME the weights in the client's cache, fetched if need be.

    model: a path, hub:OWNER/NAME, or hub:OWNER/NAME@REVISION for a branch, tag or commit
    Raises InputError if there is no such model on the hub, if it may not be read, if the hub cannot be reached and the
    cache does not have it, if the weights are not those that its description names, or without huggingface_hub.
    """
    if not is_name(model):
        return Path(model)
    name = Path(model).as_posix()
    parts = NAME.fullmatch(name.removeprefix(SCHEME))
    if parts is None:
        raise InputError(f"{name}: expected {SCHEME}OWNER/NAME, or {SCHEME}OWNER/NAME@REVISION")
    try:
        config, weights = (_file(name, parts["repository"], parts["revision"], file) for file in (CONFIG, WEIGHTS))
    except ImportError:
        raise InputError(f"{name}: huggingface_hub is not installed: pip install 'reid-done-right[hub]'") from None
    told, found = read_json(config).get("sha256"), file_digest(weights)
    if told != found:
        raise InputError(
            f"{name}: {WEIGHTS} has SHA-256 {found[:DIGITS]}..., but {CONFIG} names {str(told)[:DIGITS]}...; both must "
            "come from one `reid export --format hub`: tell the owner"
        )
    return weights


def _file(name: str, repository: str, revision: str | None, file: str) -> Path:
    """Return a file of a repository in the client's cache. Raises InputError as `local`."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=revision, library_name=LIBRARY))
    except errors.GatedRepoError:
        why = "its owner grants access on its page; ask there, then log in: hf auth login"
    except errors.RepositoryNotFoundError:
        why = "no such repository, or a private one: check the name, or log in: hf auth login"
    except errors.RevisionNotFoundError:
        why = f"no revision {revision}; its page lists branches, tags and commits"
    except errors.LocalEntryNotFoundError:  # before the next, of which it is a kind
        why = "not in the cache, and the hub cannot be reached: go online, unset HF_HUB_OFFLINE or check HF_ENDPOINT"
    except errors.EntryNotFoundError:
        why = f"has no {file}; give a repository that `reid export --format hub` made"
    except (errors.HFValidationError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        why = " ".join(str(error).split())
    raise InputError(f"{name}: {why}")
