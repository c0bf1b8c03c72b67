"""See what releases of PEFT before 0.14 compute with a LoKr whose scale is 1; they leave alpha / r out.

    python make_lokr_seen.py write FOLDER                  with adapterhub and PEFT 0.21.2
    PYTHONPATH=… python make_lokr_seen.py load FOLDER      with one release of PEFT, and transformers 4.38.2

48 adapters of BERT, Llama and ViT; 0.7.1, 0.8.2, 0.9.0, 0.10.0, 0.11.1, 0.12.0 and 0.13.2 gave the output of today's.
"""

from __future__ import annotations

import copy
import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

TARGETS = {"bert": ["query", "output.dense", "intermediate.dense"], "llama": ["q_proj", "down_proj"]}
TARGETS |= {"vit": ["q_proj", "fc1"]}
RELEASES = ("0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13")


def write(folder: Path) -> None:
    """Write every adapter for every release, with what today's PEFT computes."""
    import peft
    import torch
    from make_peft_cases import fill, inputs_of, key_of, load_base, make_bases, tensors_of
    from safetensors.torch import save_file

    from adapterhub import converters

    make_bases(folder)
    rows = []
    options = itertools.product((1, 2, 4, 20), (False, True), (-1, 4))
    for (number, (r, both, factor)), base in itertools.product(enumerate(options), TARGETS):
        config = peft.LoKrConfig(
            target_modules=TARGETS[base], r=r, alpha=r, decompose_both=both, decompose_factor=factor
        )
        torch.manual_seed(number)
        model = peft.get_peft_model(load_base(folder, base), config)
        fill(model, f"{base} {number}")
        model.eval().save_pretrained(folder / f"{base}-{number}")
        with torch.no_grad():
            output = model(**tensors_of(inputs_of(base)))[key_of(base)]
        adapter = converters.read(folder / f"{base}-{number}")
        for release in RELEASES:
            out = folder / f"{base}-{number}-{release}"
            converters.write(adapter, out, "peft", options={"peft_version": release})
            save_file({"output": output}, out / "expected.safetensors")
            told = {
                "release": release,
                "folder": str(out),
                "base": base,
                "class": type(load_base(folder, base)).__name__,
            }
            rows.append(told | {"inputs": inputs_of(base), "key": key_of(base)})
    (folder / "rows.json").write_text(json.dumps(rows), "utf-8")


def load(folder: Path) -> None:
    """Tell how many adapters the release that is installed here computes as today's does."""
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file

    release = ".".join(peft.__version__.split(".")[:2])
    bases: dict[str, Any] = {}
    same, other = 0, []
    for row in json.loads((folder / "rows.json").read_text("utf-8")):
        if row["release"] != release:
            continue
        if row["base"] not in bases:
            made = getattr(transformers, row["class"]).from_pretrained(folder / "bases" / row["base"])
            bases[row["base"]] = made.eval()
        model = peft.PeftModel.from_pretrained(copy.deepcopy(bases[row["base"]]), row["folder"]).eval()
        with torch.no_grad():
            found = model(**{name: torch.tensor(value) for name, value in row["inputs"].items()})[row["key"]]
        wanted = load_file(Path(row["folder"]) / "expected.safetensors")["output"]
        if torch.allclose(found, wanted, atol=1e-4, rtol=1e-4):
            same += 1
        else:
            other.append(row["folder"])
    print(f"PEFT {peft.__version__}: {same} the same", other)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"write": write, "load": load}[sys.argv[1]](Path(sys.argv[2]))
