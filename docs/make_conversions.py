"""Write the table docs/conversions.json into docs/conversions.md; with --check, only compare.

The table says what becomes of an adapter of each kind in each format. tests/test_conversion_matrix.py makes an example
for every row, converts it, runs both sides and holds what comes out against the cell.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
TABLE, PAGE = FOLDER / "conversions.json", FOLDER / "conversions.md"
COLUMNS = {"adapters": "adapters", "peft": "PEFT", "lora": "a LoRA, on request"}
FILES = {
    "raw": "state dict",
    "mlx": "MLX-LM",
    "gguf": "GGUF",
    "vllm": "vLLM",
    "kohya": "kohya",
    "diffusers": "diffusers",
}
"""Formats that hold LoRA and nothing else."""
SHORT = {
    "exact": "exact",
    "exact with the base model": "exact, with `--base`",
    "approximate": "yes",
    "approximate with the base model": "with `--base`",
}

BLOCK = re.compile(r"(?<=^<!-- table -->\n).*?(?=^<!-- end of table -->$)", re.M | re.S)
HELD = """\
Other formats hold low-rank updates and nothing else, for the model families that their programs run: {count} kinds have
words in one of them, and {others} are refused by all, unless `--approximate lora` makes a LoRA of them first. The
examples are of a llama for MLX-LM, GGUF and vLLM, and of a text encoder for kohya and diffusers, where there can be
such.
"""
COUNTED = "Of {count} kinds, {adapters} have words in adapters and {peft} in PEFT; {lora} can become a LoRA.\n"


def block() -> str:
    """Return the table, and how much of what there is."""
    rows = json.loads(TABLE.read_text("utf-8"))
    counts = Counter(column for row in rows for column in COLUMNS if row["cells"][column]["verdict"] != "refused")
    lines = [COUNTED.format(count=len(rows), **{column: counts[column] for column in COLUMNS})]
    lines += table(rows, COLUMNS)
    held = [row for row in rows if any(row["cells"][column]["verdict"] != "refused" for column in FILES)]
    lines += ["", HELD.format(count=len(held), others=len(rows) - len(held)), *table(held, FILES)]
    return "\n" + "\n".join(lines) + "\n\n"


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """Return the lines of a table."""
    lines = [f"| | {' | '.join(columns.values())} |", "|---|" + "---|" * len(columns)]
    return lines + [
        f"| {row['row']} | {' | '.join(cell(row['cells'][column]) for column in columns)} |" for row in rows
    ]


def cell(found: Mapping[str, Any]) -> str:
    """Return a cell in words."""
    if found["verdict"] != "refused":
        return SHORT[found["verdict"]]
    return f"refused: {found['reason']}"


def main() -> int:
    """Return 0 if the page is (now) up to date."""
    old = PAGE.read_text("utf-8")
    new = BLOCK.sub(lambda _: block(), old)
    if "--check" in sys.argv[1:]:
        return int(old != new)
    PAGE.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
