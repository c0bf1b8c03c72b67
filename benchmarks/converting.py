"""Row 16: converting a large adapter whose tensors only get other names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .processes import command_usage
from .report import Row
from .session import Sample, Session
from .startup import program

GIGABYTE = 1e9

LOAD_AND_SAVE = """
import sys
from pathlib import Path
from safetensors.torch import load_file, save_file
Path(sys.argv[2]).mkdir(parents=True)
tensors = load_file(sys.argv[1])
renamed = {f"base_model.model.{key}.weight": tensor for key, tensor in tensors.items()}
save_file(renamed, Path(sys.argv[2], "adapter_model.safetensors"))
"""
"""What a script does that converts by hand: no digest, no look at the values, no configuration."""


def rows(session: Session) -> Iterator[Row]:
    """Yield the rows of a conversion from native to PEFT, its digest and values checked."""
    folder = session.folder / "converting"
    folder.mkdir()
    large, small = (Path(session.ours.ask("lora_file", rank=rank)["path"]) for rank in (512, 1))
    size = large.stat().st_size / GIGABYTE
    out = folder / "out"
    ours = program(session.python, "adapterhub")
    commands = {
        "ours": [ours, "convert", str(large), "--to", "peft", "--out", str(out), "-q"],
        "a small one": [ours, "convert", str(small), "--to", "peft", "--out", str(out), "-q"],
        "load + save": [session.peft_python, "-c", LOAD_AND_SAVE, str(large), str(out)],
    }
    found = session.medians({name: _sample(command, out) for name, command in commands.items()})
    per_gigabyte = (found["ours"]["seconds"] - found["a small one"]["seconds"]) / size
    yield Row(
        number=16,
        what=f"convert {size:.2g} GB (renames only), with digest",
        ours=found["ours"]["seconds"],
        unit="s",
        peers={"load + save": found["load + save"]["seconds"], "a small one": found["a small one"]["seconds"]},
        value=per_gigabyte,
        limit=1.2,
        bound="≤ 1.2 CPU-s per GB",
    )
    yield Row(
        number=16,
        what="its memory, MB",
        ours=found["ours"]["megabytes"],
        unit="",
        peers={name: found[name]["megabytes"] for name in ("load + save", "a small one")},
        value=found["ours"]["megabytes"],
        limit=60.0,
        bound="≤ 60 MB",
    )


def _sample(command: Sequence[str], out: Path) -> Sample:
    def sample() -> Mapping[str, float]:
        shutil.rmtree(out, ignore_errors=True)
        usage = command_usage(command)
        return {"seconds": usage.seconds, "megabytes": usage.megabytes}

    return sample
