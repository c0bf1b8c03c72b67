"""Make tests/data/former-names.json: what transformers 4 called the parameters of every family.

python make_former_names.py    needs transformers 4.57.6 (the environment of `adapters` 1.3.0 has it), some seconds
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from families import FAMILIES, make

TARGET = Path(__file__).parent.parent / "data" / "former-names.json"


def template(key: str) -> str:
    """Return a name with `{i}` for the index of a layer."""
    return re.sub(r"(?<=\.)[0-9]+(?=\.)", "{i}", key)


def main() -> None:
    """Write the names of all parameters and buffers of each tiny model, each once for all layers."""
    import transformers

    assert transformers.__version__.startswith("4."), transformers.__version__
    logging.disable(logging.WARNING)
    names = {name: sorted({template(key) for key in make(name).state_dict()}) for name in FAMILIES}
    TARGET.write_text(json.dumps(names, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
