"""Conversions that only give tensors other names: the bytes go from file to file, without torch and without memory."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from golden import GOLDEN, Case
from safetensors.torch import load_file, save_file
from test_convert import contents, sides

import adapterhub
from adapterhub.adapter import Adapter, Base, Manifest
from adapterhub.converters import outline, write
from adapterhub.converters.outline import NeedsValues, OutlinedTensor
from adapterhub.errors import FormatError
from adapterhub.methods import LoraConfig

RUN = r"""
import json, pathlib, re, sys
import adapterhub
report = adapterhub.convert(*sys.argv[1:3], to=sys.argv[3])
most = int(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"streamed": report.streamed, "torch": "torch" in sys.modules, "megabytes": most}))
"""


@pytest.fixture(autouse=True)
def alone(clean: None) -> None:
    """Keep every test from the settings of the person who tests."""


def converted(source: Path, out: Path, to: str) -> Any:
    """Return what a process of its own says of a conversion."""
    done = subprocess.run([sys.executable, "-c", RUN, str(source), str(out), to], capture_output=True, check=True)
    return json.loads(done.stdout)


def large(path: Path, rank: int = 128) -> Path:
    """Return a native file of a LoRA with a megabyte for each rank."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(16):
        for role in ("query", "value"):
            place = f"encoder.layer.{layer}.attention.self.{role}"
            tensors[f"{place}.lora_A"] = torch.randn(rank, 4096, generator=generator)
            tensors[f"{place}.lora_B"] = torch.randn(4096, rank, generator=generator)
    config = LoraConfig(r=rank, alpha=float(rank))
    return write(Adapter((config,), tensors, Manifest(name="large", base=Base(architecture="bert"))), path)


def test_a_large_adapter_needs_no_torch_and_little_memory(tmp_path: Path) -> None:
    source = large(tmp_path / "a.safetensors")
    there = converted(source, tmp_path / "peft", "peft")
    onward = converted(tmp_path / "peft", tmp_path / "adapters", "adapters")
    back = converted(tmp_path / "peft", tmp_path / "b.safetensors", "native")
    for found in (there, onward, back):
        assert found["streamed"]
        assert not found["torch"]
        assert found["megabytes"] < 60 < source.stat().st_size / 2**20
    assert (tmp_path / "b.safetensors").read_bytes() == source.read_bytes()
    ours = load_file(source)
    theirs = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert all(torch.equal(theirs[f"base_model.model.{key}.weight"], tensor) for key, tensor in ours.items())


RENAMED = [
    case
    for case in [*GOLDEN.cases(groups="ACF"), *GOLDEN.cases(groups="D", kinds="peft-loader")]
    if case.get("adapters") and any(case.adapter.glob("*.safetensors"))
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", RENAMED, ids=str)
def test_streaming_gives_the_same_files_and_report(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = adapterhub.convert(case.adapter, tmp_path / "a" / "x", to="native", base=case.base)
    monkeypatch.setattr(outline, "outlined", refuse)
    monkeypatch.setattr("adapterhub.converters.adapters.folder.outlined", refuse)
    monkeypatch.setattr("adapterhub.converters.peft.folder.outlined", refuse)
    whole = adapterhub.convert(case.adapter, tmp_path / "b" / "x", to="native", base=case.base)
    assert not whole.streamed
    assert contents(tmp_path / "a" / "x") == contents(tmp_path / "b" / "x")
    assert (fast.tensors, fast.fields, fast.source) == (whole.tensors, whole.fields, whole.source)


def refuse(*_: Any, **__: Any) -> None:
    raise NeedsValues


@pytest.mark.parametrize("name", ["e-bert-lora-qv", "e-t5-lora-qv"])
def test_pairs_of_the_two_libraries_are_streamed(name: str, tmp_path: Path) -> None:
    case = GOLDEN.case(name)
    assert adapterhub.convert(sides(case)["adapters"], tmp_path / "a", to="peft").streamed
    assert adapterhub.convert(tmp_path / "a", tmp_path / "b", to="adapters").streamed


def test_what_needs_values_is_not_streamed(tmp_path: Path) -> None:
    merged = adapterhub.convert(sides(GOLDEN.case("e-gpt2-lora-qkv"))["adapters"], tmp_path / "a", to="peft")
    assert not merged.streamed
    assert merged.tensors.transformed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_found_in_every_type(dtype: torch.dtype, value: float, tmp_path: Path) -> None:
    tensor = torch.randn(700, 900).to(dtype)
    tensor[690, 7] = value
    save_file({"good": torch.randn(3).to(dtype), "bad": tensor}, tmp_path / "x.safetensors")
    file, _ = outline.outlined(tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match="tensor 'bad' holds 1 values that are NaN or infinite"):
        file.checked_digest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_the_largest_values_are_finite_and_the_digest_is_that_of_the_file(dtype: torch.dtype, tmp_path: Path) -> None:
    largest = torch.finfo(dtype).max if dtype.is_floating_point else torch.iinfo(dtype).max
    save_file({"x": torch.full((300_000,), largest, dtype=dtype), "y": torch.zeros(0)}, tmp_path / "x.safetensors")
    file, _ = outline.outlined(tmp_path / "x.safetensors")
    expected = hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest()
    assert file.checked_digest() == f"sha256:{expected}"


def test_a_file_that_changes_meanwhile_is_not_converted(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(4)}, tmp_path / "x.safetensors")
    file, _ = outline.outlined(tmp_path / "x.safetensors")
    save_file({"x": torch.ones(5)}, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match="was changed while it was converted"):
        file.checked_digest()


def test_an_outline_changes_its_shape_and_nothing_else(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(4, 1)}, tmp_path / "x.safetensors")
    _, tensors = outline.outlined(tmp_path / "x.safetensors")
    x: Any = tensors["x"]
    assert type(x) is OutlinedTensor
    x = cast("Any", x)
    assert (x.reshape(2, -1).shape, x.squeeze(1).shape, x.unsqueeze(0).shape) == ((2, 2), (4,), (1, 4, 1))
    assert x.squeeze(0).shape == (4, 1)
    asks: list[Any] = [
        lambda: x * 2,
        lambda: 2 * x,
        lambda: x[0],
        lambda: x.t(),
        lambda: x.reshape(3),
        lambda: torch.cat([x, x]),
        lambda: torch.zeros(4, 1) + x,
        lambda: torch.equal(x, x),
        lambda: x.tolist(),
        lambda: bool(x),
    ]
    for ask in asks:
        with pytest.raises(NeedsValues):
            ask()


KILLED = """
import os, signal, sys
from adapterhub.converters import disk

copied = disk.Stretch.copy_to
def dies(self, target):
    dies.left -= 1
    if dies.left == 0:
        target.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    copied(self, target)
dies.left = int(sys.argv[4])
disk.Stretch.copy_to = dies
import adapterhub
adapterhub.convert(*sys.argv[1:3], to=sys.argv[3], force=True)
"""


def killed(source: Path, out: Path, to: str, at: int) -> None:
    """Convert in a process that is killed when it writes its at-th tensor."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(source), str(out), to, str(at)], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("to", ["native", "peft", "adapters"])
def test_a_killed_run_leaves_no_half_written_target(to: str, tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    source = sides(case)["adapters"]
    out = tmp_path / "out"
    killed(source, out, to, 3)
    assert not out.exists()
    adapterhub.convert(source, out, to=to)
    before = contents(out)
    other = tmp_path / "other"
    adapterhub.convert(source, other, to="native", name="other")
    killed(other, out, to, 3)
    assert {name: data for name, data in contents(out).items() if not name.endswith(".tmp")} == before
    assert adapterhub.read(out).manifest.name != "other"
    adapterhub.convert(other, out, to=to, force=True)
    assert adapterhub.read(out).manifest.name == "other"


@pytest.mark.slow
def test_what_is_killed_while_files_are_exchanged_leaves_no_mixture(tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    out = tmp_path / "out"
    adapterhub.convert(sides(case)["adapters"], out, to="adapters")
    (out / "README.md").write_text("mine")
    first = contents(out)
    adapterhub.convert(sides(case)["adapters"], tmp_path / "other", to="adapters", name="other")
    second = contents(tmp_path / "other")
    for at in range(1, 13):
        words = [sys.executable, "-c", EXCHANGED, str(tmp_path / "other"), str(out), "adapters", str(at)]
        subprocess.run(words, check=False)
        found = {name: data for name, data in contents(out).items() if name != "README.md"}
        whole = {name: data for name, data in first.items() if name != "README.md"}
        assert found in (whole, second) or "adapter_config.json" not in found
        assert (out / "README.md").read_text() == "mine"
    assert found == second


EXCHANGED = """
import os, pathlib, signal, sys

left = int(sys.argv[4])
replaced, unlinked = pathlib.Path.replace, pathlib.Path.unlink
def counts(act):
    def counted(self, *args, **kwargs):
        global left
        if self.parent.name == "out" or (args and pathlib.Path(args[0]).parent.name == "out"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return act(self, *args, **kwargs)
    return counted
pathlib.Path.replace, pathlib.Path.unlink = counts(replaced), counts(unlinked)
import adapterhub
adapterhub.convert(*sys.argv[1:3], to=sys.argv[3], force=True)
"""


def test_a_run_that_is_killed_at_any_moment_leaves_nothing_or_all(tmp_path: Path) -> None:
    source = large(tmp_path / "a.safetensors", rank=64)
    for wait in (0.1, 0.3, 0.5):
        out = tmp_path / f"out-{wait}"
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(source), str(out), "peft"], stdout=subprocess.DEVNULL
        )
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():
            assert adapterhub.read(out).tensors.keys() == adapterhub.read(source).tensors.keys()


def test_a_report_of_outlines_is_that_of_tensors(tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    fast = adapterhub.convert(sides(case)["peft"], tmp_path / "a", to="peft")
    assert fast.streamed
    assert (fast.tensors.carried, fast.tensors.renamed, fast.tensors.transformed) == (8, {}, ())
    assert fast.target.files == {name: len(data) for name, data in contents(tmp_path / "a").items()}
