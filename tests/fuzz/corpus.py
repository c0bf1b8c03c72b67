"""The kept inputs of the fuzzer: one a line in corpus.txt, in base64.

python tests/fuzz/corpus.py FOLDER    # replaces them by the files of a folder, as `fuzz.py -merge=1` leaves them
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

KEPT = Path(__file__).resolve().parent / "corpus.txt"

LARGEST = 1500
"""Bytes of the largest input that is kept."""


def kept() -> list[bytes]:
    """Return the inputs."""
    return [base64.b64decode(line) for line in KEPT.read_text("ascii").splitlines()]


def keep(folder: Path) -> int:
    """Replace the inputs by the files of a folder, and return their number."""
    inputs = sorted({path.read_bytes() for path in folder.iterdir() if 0 < path.stat().st_size <= LARGEST})
    KEPT.write_text("".join(f"{base64.b64encode(one).decode()}\n" for one in inputs), "ascii")
    return len(inputs)


def unpack(folder: Path) -> Path:
    """Write the inputs as the files of a folder, beside those that are there, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(kept()):
        (folder / f"kept-{number:04}").write_bytes(one)
    return folder


if __name__ == "__main__":
    print(keep(Path(sys.argv[1])), "inputs are kept")
