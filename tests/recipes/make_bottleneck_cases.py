"""Make tests/data/bottleneck-cases.tar.gz: bottleneck adapters and heads as the library `adapters` computes them.

    python make_bottleneck_cases.py make [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, two minutes
    python make_bottleneck_cases.py check [ARCHIVE]   needs transformers 4 or 5; compares the bases only

README.md beside this file tells what is inside and why.  Every number is drawn from a seed that is made of the
case's name, so one case can change without any other.  Weights are multiples of 1/256: exact, and they pack well.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import logging
import random
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottleneck_cases import Workplace, bottleneck_case, runs, write_json
from bottleneck_options import (
    FACTORS,
    HEADS,
    INVALID,
    LEGACY,
    LEGACY_HEADS,
    OLDEST,
    OLDEST_LANGUAGE,
    PRESETS,
    SINGLES,
    UNIONS,
    Options,
)
from head_cases import head_case, static_case
from legacy_cases import legacy_case, legacy_head_case
from reference_models import ARCHITECTURES, largest, load_base, make_bases, run, stand_in_for_torchvision

ARCHIVE = Path(__file__).parent.parent / "data" / "bottleneck-cases.tar.gz"
MIXES = 60  # random combinations per architecture


def pairs(choice: dict[str, int]) -> set[tuple[str, int, str, int]]:
    """Return the pairs of values that a combination covers."""
    return {(a, choice[a], b, choice[b]) for a, b in itertools.combinations(sorted(choice), 2)}


def options_of(choice: dict[str, int]) -> Options:
    """Return the options that a combination means."""
    picked = {k: FACTORS[k][i] for k, i in choice.items()}
    return {**picked.pop("at"), **picked}


def mixes(place: Workplace, arch: str) -> tuple[int, int]:
    """Make the random combinations, each the best of fifty for pairs not yet seen; return pairs covered and all."""
    draw = random.Random(f"mixes {arch}")
    seen: set[tuple[str, int, str, int]] = set()
    made = 0
    while made < MIXES:
        candidates = [{k: draw.randrange(len(v)) for k, v in FACTORS.items()} for _ in range(50)]
        best = max(candidates, key=lambda c: len(pairs(c) - seen))
        if not runs(place, arch, (options_of(best),)):
            continue
        bottleneck_case(place, arch, f"a-{arch}-mix-{made:02d}", (options_of(best),))
        made += 1
        seen |= pairs(best)
    total = sum(len(FACTORS[a]) * len(FACTORS[b]) for a, b in itertools.combinations(FACTORS, 2))
    return len(seen), total


def bottlenecks(place: Workplace, arch: str) -> None:
    """Make the cases of bottlenecks without heads."""
    for name, preset, changes in SINGLES:
        whole = PRESETS[preset]
        if runs(place, arch, (whole | changes,)):
            bottleneck_case(place, arch, f"a-{arch}-{name}", (whole | changes,), whole if changes else None)
    for options in INVALID:
        if runs(place, arch, options):
            print(f"{arch}: the library runs {options}")
    for name, configs in UNIONS:
        bottleneck_case(place, arch, f"a-{arch}-union-{name}", configs)
    covered, total = mixes(place, arch)
    print(f"{arch}: {covered} of {total} pairs of option values in the combinations")


def heads(place: Workplace, arch: str) -> None:
    """Make the cases of flexible and static heads."""
    for name, head, beside in HEADS:
        head_case(place, arch, f"c-{arch}-head-{name}", head, beside)
    for labels in (1, 3):
        for name, options in PRESETS.items():
            static_case(place, arch, f"c-{arch}-static{labels}-{name}", labels, options)


def old_releases(place: Workplace, arch: str) -> None:
    """Make the cases of files that earlier releases wrote."""
    for case in LEGACY:
        if arch != "distilbert" or case.words not in (OLDEST, OLDEST_LANGUAGE):  # it came after those names
            legacy_case(place, arch, case)
    for name, era, head in LEGACY_HEADS:
        legacy_head_case(place, arch, name, era, head)


def pack(root: Path, archive: Path, top: str = "bottleneck-cases") -> None:
    """Write the folder as tar.gz under top: sorted, without times or owners, so that equal folders give equal bytes."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0, filename="") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            info = tarfile.TarInfo(f"{top}/{path.relative_to(root).as_posix()}")
            info.size, info.mode = path.stat().st_size, 0o644
            tar.addfile(info, io.BytesIO(path.read_bytes()))
    partial = archive.with_suffix(".partial")
    partial.write_bytes(buffer.getvalue())
    partial.replace(archive)


def pack_listed(
    root: Path, archive: Path, top: str, cases: list[Options], refused: list[Options], expected: dict[str, Any]
) -> None:
    """Pack the folder, the list of its cases, also of those that the library refuses, and all outputs in one file."""
    from safetensors.torch import save_file

    save_file(expected, root / "expected.safetensors")
    document = {"cases": cases, "refused": refused}
    (root / "cases.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    pack(root, archive, top)
    print(len(cases), "cases,", len(refused), "refused")
    for row in refused:
        print(*row.values())


def make(archive: Path) -> None:
    """Make all cases and pack them."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    stand_in_for_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        make_bases(place.root)
        for arch in ARCHITECTURES:
            bottlenecks(place, arch)
            heads(place, arch)
            old_releases(place, arch)
        write_json(place.root / "refused.json", place.refused)
        pack(place.root, archive)
        counts(place.root)


def cases(root: Path) -> Iterator[Options]:
    """Yield every case.json."""
    for path in sorted(root.glob("*/case.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def counts(root: Path) -> None:
    """Print the number of cases of each kind and architecture."""
    rows = [(c["kind"], c["arch"]) for c in cases(root)]
    for row in sorted(set(rows)):
        print(*row, rows.count(row))
    print("all", len(rows))


def check(archive: Path) -> None:
    """Compare every base_output with what the installed transformers computes."""
    import torch
    import transformers
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder, contextlib.closing(tarfile.open(archive)) as tar:
        tar.extractall(folder, filter="data")
        root, worst = Path(folder) / "bottleneck-cases", 0.0
        models: dict[str, dict[str, Any]] = {}
        for case in cases(root):
            base = Path(case["base"]).name
            if base not in models:
                kind = case["base_class"].removeprefix(ARCHITECTURES[case["arch"]][0])
                key = "last_hidden_state" if kind == "Model" else "logits"
                models[base] = run(load_base(root, case["arch"], base, kind), key)
            expected = load_file(root / case["id"] / case["expected"])
            worst = max(worst, largest({k: expected[f"base_output{k}"] for k in models[base]}, models[base]))
        counts(root)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}: bases off by at most {worst:.1e}")


if __name__ == "__main__":
    command, target = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else ARCHIVE
    {"make": make, "check": check}[command](target)
