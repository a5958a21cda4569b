"""Encode pictures as data URIs for self-contained pages."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from urllib.parse import quote

from PIL import Image as pillow


def data_uri(content: bytes) -> str:
    """Return a picture (SVG, PNG or WebP) as a data URI; a PNG becomes the smaller WebP."""
    if content.startswith(b"\x89PNG"):
        with pillow.open(BytesIO(content)) as opened:
            content = webp(opened.convert("RGB"), quality=75)
    if content.startswith(b"RIFF"):
        return f"data:image/webp;base64,{b64encode(content).decode()}"
    return f"data:image/svg+xml,{quote(content, safe=' <>=/:;,.()+-_')}"


def webp(image: pillow.Image, quality: int, effort: int = 6) -> bytes:
    """Write a picture as WebP; effort: from 0, fast, to 6, small."""
    written = BytesIO()
    image.save(written, format="webp", quality=quality, method=effort)
    return written.getvalue()
