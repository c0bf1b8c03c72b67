"""Large indexes with made-up entries."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

WORD = "zanzibar"
"""A word in the summary of every thousandth entry."""

TASKS = ("sentiment/movies", "nli/mnli", "ner/conll", "qa/squad")
BASES = ("google-bert/bert-base-uncased", "FacebookAI/roberta-base", "distilbert/distilbert-base-uncased")


def name(number: int) -> str:
    """Return the name of an entry.

    >>> name(42)
    'adapter-000042'
    """
    return f"adapter-{number:06d}"


def write(path: Path, count: int, real: Path | None = None) -> None:
    """Write an index of so many entries; the one in the middle has a copy of a real file for its artifacts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {name(i): entry(i) for i in range(count)}
    if real is not None:
        shutil.copy(real, path.parent / real.name)
        content = real.read_bytes()
        known = {"url": real.name, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}
        for found in entries[name(count // 2)]["versions"].values():
            found["artifacts"][0].update(known)
    path.write_text(json.dumps({"format": 1, "adapters": entries}), "utf-8")


def entry(number: int) -> dict[str, Any]:
    """Return one entry with two versions."""
    summary = f"Made-up adapter number {number}" + (f", from {WORD}" if number % 1000 == 0 else "")
    return {
        "summary": summary,
        "task": TASKS[number % len(TASKS)],
        "license": "Apache-2.0",
        "versions": {version: release(number, version) for version in ("1.0.0", "1.1.0")},
    }


def release(number: int, version: str) -> dict[str, object]:
    """Return one version with one artifact."""
    base = BASES[number % len(BASES)]
    return {
        "published": "2026-01-01T00:00:00Z",
        "artifacts": [
            {
                "base": {"id": base, "architecture": base.split("/")[1].split("-")[0]},
                "method": "seq_bn",
                "format": "native",
                "url": f"files/{name(number)}-{version}.safetensors",
                "digest": f"sha256:{hashlib.sha256(f'{number} {version}'.encode()).hexdigest()}",
                "size": 3_600_000 + number,
            }
        ],
    }
