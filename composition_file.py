"""Whether a composition lies at a path; asked of everything that is pulled, so this loads next to nothing."""

from __future__ import annotations

import re
from pathlib import Path

NAME = "composition"
"""What an index calls the format of such artifacts."""

DOCUMENT = "composition.json"
"""The file of an arrangement in a folder that holds adapters of it too."""

LARGEST = 16 * 2**20
"""So many bytes a composition file may have."""


def document_of(path: Path) -> Path | None:
    """Return the composition file at a path: itself, or that in the folder; None where there is none."""
    if path.is_dir():
        return path / DOCUMENT if (path / DOCUMENT).is_file() else None
    if path.suffix in (".safetensors", ".bin", ".zip") or not path.is_file():
        return None
    with path.open("rb") as file:
        if not re.match(rb"\s*\{", file.read(64)):
            return None
        file.seek(0)
        return path if b'"adapters"' in file.read(LARGEST) else None
