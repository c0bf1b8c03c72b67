"""docs/conversions.json is true: an example of every row is converted into every column, and both sides are run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from conversion_cells import COLUMNS, base_of, check, example, verdict
from families import FAMILIES

import adapterhub
from adapterhub.errors import UnsupportedError
from adapterhub.methods import METHODS, parse_method

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
ROWS: list[dict[str, Any]] = json.loads((ROOT / "docs" / "conversions.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def alone(clean: None) -> None:
    """Keep every test from the settings of the person who tests."""


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["row"])
def test_a_cell_is_true(row: dict[str, Any], column: str, tmp_path: Path) -> None:
    found, reason = verdict(row, column, tmp_path)
    wanted = {"verdict": "exact"} if column == "native" else row["cells"][column]
    assert found == wanted["verdict"], reason
    if found == "refused":
        missing = [part for part in wanted["reason"].split("; ") if part not in reason]
        assert not missing, reason


def test_no_method_is_forgotten() -> None:
    named = {config.method for row in ROWS for config in parse_method(row["method"])}
    # Trained parameters and rows of embeddings come with files of PEFT alone; heads that no row has are in heads.md.
    others = {"parameters", "trainable_tokens"}
    heads = {row.config.method for row in METHODS if row.config.method.endswith("_head")}
    assert {row.config.method for row in METHODS} - heads - others == named - heads


@pytest.mark.parametrize("family", [name for name in FAMILIES if not FAMILIES[name].parts])
def test_a_prefix_of_every_family_is_exact_in_peft_or_refused(family: str, tmp_path: Path) -> None:
    row = {"family": family, "method": "prefix_tuning_flat[prefix_length=3]"}
    base = base_of(row)
    if isinstance(source := attempt(lambda: example(row, base, tmp_path / "a.safetensors")), str):
        return  # its attention takes no prefix
    found = attempt(lambda: adapterhub.convert(source, tmp_path / "peft", to="peft", base=base))
    if isinstance(found, str):
        assert "PEFT" in found
    else:
        check(source, tmp_path / "peft", base)


@pytest.mark.parametrize("method", ["lora", "seq_bn", "prefix_tuning_flat", "ia3[inputs=[]]", "seq_bn+layer_norm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_both_sides_run_on_a_random_base_of_every_family(family: str, method: str, tmp_path: Path) -> None:
    row = {"family": family, "method": method}
    source = example(row, base_of(row), tmp_path / "a.safetensors")
    found = adapterhub.convert(source, tmp_path / "b", to="native", verify=True).verified
    assert found is not None
    assert found.random
    assert found.difference == 0.0
    assert found.effect is not None
    assert found.effect > 1e-2


def attempt(act: Callable[[], T]) -> T | str:
    """Return what comes of an act, or why it is refused."""
    try:
        return act()
    except UnsupportedError as error:
        return error.message


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_of_every_family_goes_through_both_libraries(family: str, tmp_path: Path) -> None:
    row = {"family": family, "method": "lora"}
    base = base_of(row)
    source = example(row, base, tmp_path / "a.safetensors")
    for to in ("adapters", "peft"):
        report = attempt(partial(adapterhub.convert, source, tmp_path / to, to=to, base=base, verify=True))
        if isinstance(report, str):
            assert family.startswith(("encoder-decoder", "xmod")), report
            continue
        assert report.exact
        check(source, tmp_path / to, base)
        adapterhub.convert(tmp_path / to, tmp_path / f"{to}.safetensors", to="native", base=base)
        back, first = adapterhub.read(tmp_path / f"{to}.safetensors"), adapterhub.read(source)
        assert back.config == first.config


def test_the_page_is_that_of_the_table() -> None:
    words = [sys.executable, str(ROOT / "docs" / "make_conversions.py"), "--check"]
    assert subprocess.run(words, check=False).returncode == 0, "run `make docs`"
