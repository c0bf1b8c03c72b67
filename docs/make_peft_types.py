"""Write docs/peft-types.md from the table in converters/peft/types.py; with --check only say if it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from adapterhub.converters.peft import prompts
from adapterhub.converters.peft.codec import Codec
from adapterhub.converters.peft.prompts import PromptCodec
from adapterhub.converters.peft.types import CODECS, REFUSED

PAGE = Path(__file__).parent / "peft-types.md"

HEAD = """# The types of PEFT

`peft_type` in an `adapter_config.json` says which method a folder holds. Written by `make docs` from
`converters/peft/types.py`.

- **native**: read and run by this library.
- **converted**: not read; PEFT's own `save_as_lora` makes a LoRA of it, which is.
- **refused**: not read, for the reason given. Nothing of such a folder is ever loaded in part.

| type | state | method here, or why not and what to do |
|---|---|---|
"""


def page() -> str:
    """Return the page."""
    codecs: tuple[Codec | PromptCodec, ...] = (*CODECS, *prompts.CODECS)
    rows: dict[str, tuple[str, str]] = {codec.type: ("native", f"`{codec.config.method}`") for codec in codecs}
    rows |= {kind: (entry.state, f"{entry.reason}; {entry.instead}") for kind, entry in REFUSED.items()}
    return HEAD + "".join(f"| {kind} | {state} | {text} |\n" for kind, (state, text) in sorted(rows.items()))


def main() -> int:
    """Return 0 if the page is (now) up to date."""
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), "utf-8")
        return 0
    return int(not PAGE.exists() or PAGE.read_text("utf-8") != page())


if __name__ == "__main__":
    sys.exit(main())
