"""The benchmarks measure what they say; what they measure is no matter of a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adapterhub import schemas
from adapterhub.benchmarks import measure, synthetic
from adapterhub.benchmarks.processes import Worker, command_seconds
from adapterhub.benchmarks.report import Row, table
from adapterhub.benchmarks.session import Session


def row(**changes: object) -> Row:
    known: dict[str, object] = {
        "number": 7,
        "what": "swap",
        "ours": 4e-6,
        "unit": "µs",
        "peers": {"peer": 8e-4},
        "value": 4e-6,
        "limit": 2e-5,
        "bound": "≤ 20 µs",
    }
    return Row(**{**known, **changes})  # type: ignore[arg-type]


def test_operations_are_counted_without_views() -> None:
    weight, x = torch.ones(3, 3), torch.ones(2, 3)
    assert measure.operations(lambda: torch.relu(x @ weight.t()).view(6)) == 2


def test_python_calls_are_counted_with_those_inside() -> None:
    def inner() -> None: ...

    def outer() -> None:
        inner()
        inner()

    assert measure.python_calls(outer) == 3


def test_a_row_says_whether_its_bound_is_kept() -> None:
    assert row().ok
    assert not row(value=3e-5).ok
    assert not row(value=float("nan")).ok
    assert row().to_json()["ratios"] == {"peer": pytest.approx(0.005)}


def test_the_table_names_what_was_missed() -> None:
    lines = table([row(), row(value=1.0)]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "4 µs" in lines[2]
    assert "peer 800 µs" in lines[2]
    assert lines[2].endswith("ok     |")
    assert lines[3].endswith("MISSED |")


def test_a_synthetic_index_is_a_valid_one(tmp_path: Path) -> None:
    artifact = tmp_path / "artifact.safetensors"
    artifact.write_bytes(b"any bytes")
    synthetic.write(tmp_path / "large" / "index.json", 20, artifact)
    document = json.loads((tmp_path / "large" / "index.json").read_bytes())
    schemas.check(document, "index")
    assert document["adapters"][synthetic.name(10)]["versions"]["1.0.0"]["artifacts"][0]["size"] == 9
    assert (tmp_path / "large" / "artifact.safetensors").exists()


def test_medians_leave_out_the_first_round_and_ask_in_turn(tmp_path: Path) -> None:
    asked: list[str] = []

    def sample(name: str) -> dict[str, float]:
        asked.append(name)
        return {"seconds": float(len(asked))}

    with Session(tmp_path, rounds=3) as session:
        found = session.medians({name: (lambda name=name: sample(name)) for name in "ab"})  # type: ignore[misc]
    assert asked == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert found == {"a": {"seconds": 6.0}, "b": {"seconds": 5.0}}


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match="no such file"):
        command_seconds(["sh", "-c", "echo no such file >&2; exit 3"])


def test_a_worker_that_dies_says_why(tmp_path: Path) -> None:
    with (
        Worker("python3", "worker_that_does_not_exist", tmp_path) as worker,
        pytest.raises(RuntimeError, match="No module named"),
    ):
        worker.ask("load")


@pytest.mark.slow
def test_our_worker_answers_every_request(tmp_path: Path) -> None:
    with Session(tmp_path, rounds=1) as session:
        none = session.ours.ask("counts", way="none", names=["seq_bn-0", "lora-0"])
        active = session.ours.ask("counts", way="alone", names=["seq_bn-0"])
        assert none == {"operations": 0, "first": 0, "calls": 0, "identical": True}
        assert 0 < active["operations"] <= 75
        for way in ("stack", "fuse", "rows"):
            names = [f"seq_bn-{row % 2}" for row in range(16)] if way == "rows" else ["seq_bn-0", "seq_bn-1"]
            assert session.ours.ask("counts", way=way, names=names)["operations"] > 0, way
        assert session.ours.ask("times", arrangements={"one": ["alone", ["lora-0"]]})["one"] > 0
        assert session.ours.ask("load", method="lora")["seconds"] > 0
        assert session.ours.ask("hot_swap", loaded=2, method="lora")["seconds"] > 0
        assert session.ours.ask("load")["seconds"] > 0
        assert session.ours.ask("swap", loaded=2, times=3)["seconds"] > 0
        assert set(session.ours.ask("fingerprint")) == {"make", "check", "md5"}
