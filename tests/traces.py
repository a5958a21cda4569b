"""Content that no report file may have: time, place and commit of a run."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

EMBEDDED = re.compile(r"base64,\s*[\w+/=\s]+")
SMALL = re.compile(r"\b\d(?:\.\d+)?e-\d+\b")
"""A number that JSON writes with an exponent; its digits and the e are no hash."""
DATE = r"\b20\d\d-[01]\d-[0-3]\d\b"
HASH = r"(?<![#\w])(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{7,40}\b"
PLACE = r"/(?:home|root|tmp|Users)/|\b(?:x86_64|aarch64|GenuineIntel|AuthenticAMD)\b"
WORDS = r"(?i)\bcommit\b|<dc:date>|created with"
PNG = {"dpi"}


def traces(path: Path, *allowed: str) -> set[str]:
    """Return dates, hashes, hosts and places that a file of a report tells, but for those allowed."""
    if path.suffix == ".png":
        with Image.open(path) as opened:
            return {str(key) for key in opened.info} - PNG
    text = SMALL.sub("", EMBEDDED.sub("", unquote(path.read_text(encoding="utf-8"))))
    found = {match for pattern in (DATE, HASH, PLACE, WORDS) for match in re.findall(pattern, text)}
    host = os.uname().nodename
    if re.search(r"[\d-]", host):  # others, such as "mars", may be words of the report
        found |= set(re.findall(rf"(?<![\w-]){re.escape(host)}(?![\w-])", text))
    return found - set(allowed)
