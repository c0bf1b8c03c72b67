"""The native format: one file, one sequence of bytes, everything in it accounted for, readable for ever."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.adapter import (
    Adapter,
    Base,
    Dataset,
    Fingerprint,
    Manifest,
    Probe,
    Provenance,
    from_json,
    to_json,
)
from adapterhub.converters import Parts, native, read, read_manifest, write
from adapterhub.errors import AdapterHubError, FormatError, StateError, UnsupportedError
from adapterhub.methods import BottleneckConfig, ClassificationHeadConfig, LayerNormConfig, configs_from_json

DATA = Path(__file__).parent / "data"
WIDTH = 4

RESERVED = {"con", "prn", "aux", "nul", "com", "lpt"}
WORD: st.SearchStrategy[str] = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True).filter(
    lambda s: s[:3] not in RESERVED
)
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=32)
JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | LINE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LINE, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(LINE, JSON_VALUE, max_size=3)

FINGERPRINTS = st.builds(
    Fingerprint,
    shapes=st.dictionaries(LINE, st.tuples(st.integers(0, 9)), max_size=2),
    samples=st.dictionaries(LINE, st.tuples(NUMBER, NUMBER), max_size=2),
    dtype=st.just("float32"),
)
DATASETS = st.builds(Dataset, name=LINE.filter(bool), source=LINE, sizes=st.dictionaries(LINE, st.integers(0, 9)))
PROBES = st.builds(
    Probe, inputs=st.just({"input_ids": [[1, 2]]}), output=st.just("logits"), values=st.lists(st.lists(NUMBER))
)
PROVENANCES = st.builds(Provenance, format=WORD, version=LINE, exact=st.booleans(), difference=st.none() | st.just(0.5))
MANIFESTS = st.builds(
    Manifest,
    name=WORD,
    base=st.builds(
        Base,
        architecture=st.just("bert"),
        id=st.sampled_from(["", "a/b", "bert-base-uncased"]),
        fingerprint=st.none() | FINGERPRINTS,
    ),
    version=st.sampled_from(["", "1.0.0", "0.2.0-rc.1+x"]),
    summary=LINE,
    task=LINE,
    labels=st.lists(LINE, max_size=3).map(tuple),
    language=st.sampled_from([(), ("en",), ("de-AT", "en")]),
    datasets=st.lists(DATASETS, max_size=2).map(tuple),
    metrics=st.dictionaries(LINE, NUMBER, max_size=3),
    training=OBJECT,
    probe=st.none() | PROBES,
    provenance=st.none() | PROVENANCES,
    extra=OBJECT,
)


@st.composite
def adapters(draw: st.DrawFn) -> Adapter:
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
    layers = draw(st.integers(1, 3))
    config = draw(st.sampled_from([houlsby(), (*houlsby(), LayerNormConfig()), (*houlsby(), head())]))
    return Adapter(config, tensors(config, layers, dtype), draw(MANIFESTS))


def houlsby() -> tuple[BottleneckConfig, ...]:
    return (BottleneckConfig(mh_adapter=True, output_adapter=True, reduction_factor=2, non_linearity="relu"),)


def head() -> ClassificationHeadConfig:
    return ClassificationHeadConfig(num_labels=3, layers=2)


def tensors(config: tuple[Any, ...], layers: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tensors of an adapter of BERT, all values different."""
    places = [f"encoder.layer.{i}.{part}" for i in range(layers) for part in ("attention.output", "output")]
    shapes = {
        f"{place}.bottleneck_{name}": shape
        for place in places
        for name, shape in {
            "down.weight": (2, WIDTH),
            "down.bias": (2,),
            "up.weight": (WIDTH, 2),
            "up.bias": (WIDTH,),
        }.items()
    }
    if any(isinstance(part, LayerNormConfig) for part in config):
        norms = ["embeddings.LayerNorm", *(f"{place}.LayerNorm" for place in places)]
        shapes |= {f"{norm}.{name}": (WIDTH,) for norm in norms for name in ("weight", "bias")}
    if any(isinstance(part, ClassificationHeadConfig) for part in config):
        shapes |= {"head.0.weight": (WIDTH, WIDTH), "head.0.bias": (WIDTH,)}
        shapes |= {"head.1.weight": (3, WIDTH), "head.1.bias": (3,)}
    found = {}
    for number, (key, shape) in enumerate(shapes.items()):
        found[key] = (torch.arange(torch.Size(shape).numel()) + number).reshape(shape).to(dtype)
    return found


def example(config: tuple[Any, ...] | None = None) -> Adapter:
    config = config or (*houlsby(), LayerNormConfig(), head())
    return Adapter(config, tensors(config), Manifest(name="example", base=Base(architecture="bert")))


def equal(a: Adapter, b: Adapter) -> bool:
    return (
        a.config == b.config
        and to_json(a.manifest) == to_json(b.manifest)
        and a.tensors.keys() == b.tensors.keys()
        and all(torch.equal(a.tensors[k], b.tensors[k]) and a.tensors[k].dtype == b.tensors[k].dtype for k in a.tensors)
    )


@given(adapters())
@settings(deadline=None, max_examples=60)
def test_decoding_what_was_encoded_gives_the_adapter_back(adapter: Adapter) -> None:
    assert equal(native.decode(native.encode(adapter)), adapter)


@given(adapters())
@settings(deadline=None, max_examples=30)
def test_what_is_read_is_what_was_written_and_writes_the_same_bytes(adapter: Adapter) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(adapter, Path(folder) / "a.safetensors")
        again = read(path)
        assert equal(again, adapter)
        assert native.dumps(again) == path.read_bytes() == native.dumps(adapter)


def test_encoding_what_was_decoded_gives_the_document_back() -> None:
    parts = native.encode(example())
    again = native.encode(native.decode(parts))
    assert again.documents == parts.documents
    assert again.tensors["adapter"].keys() == parts.tensors["adapter"].keys()


def test_the_order_in_which_an_adapter_was_made_does_not_change_its_bytes() -> None:
    adapter = example()
    turned = dict(reversed(list(adapter.tensors.items())))
    assert native.dumps(dataclasses.replace(adapter, tensors=turned)) == native.dumps(adapter)


def test_the_reference_reads_a_native_file(tmp_path: Path) -> None:
    path = write(example(), tmp_path / "a.safetensors")
    assert safetensors.torch.load_file(path).keys() == example().tensors.keys()
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["adapterhub"])["name"] == "example"
        assert file.metadata()["format"] == "pt"


class Ranges:
    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, 0

    def read_range(self, start: int, length: int) -> bytes:
        self.asked += length
        return self.data[start : start + length]


def test_the_manifest_is_read_by_range_without_the_tensors() -> None:
    adapter = example()
    big = {key: value.repeat(10_000, *[1] * (value.ndim - 1)) for key, value in adapter.tensors.items()}
    remote = Ranges(native.dumps(dataclasses.replace(adapter, tensors=big)))
    config, manifest = read_manifest(remote)
    assert configs_from_json(config) == adapter.config
    assert manifest == adapter.manifest
    assert remote.asked < len(remote.data) / 50


def test_reading_a_manifest_loads_no_torch(tmp_path: Path) -> None:
    path = write(example(), tmp_path / "a.safetensors")
    code = (
        "import sys; from adapterhub.converters import read_manifest; "
        f"print(read_manifest({str(path)!r})[1].name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "example False\n"


def test_a_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = write(example(), tmp_path / "a.safetensors")
    with pytest.raises(StateError, match="exists already"):
        write(example(), path)
    write(example(houlsby()), path, force=True)
    assert read(path).config == houlsby()


Tensors = dict[str, torch.Tensor]


def without(key: str) -> Callable[[Tensors], Tensors]:
    return lambda found: {name: tensor for name, tensor in found.items() if name != key}


def changed(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda found: found | {key: change(found[key])}


def renamed(key: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda found: {new if name == key else name: tensor for name, tensor in found.items()}


DOWN = "encoder.layer.0.output.bottleneck_down.weight"
FAULTY_TENSORS = {
    "missing": (without(DOWN), [f"{DOWN!r} is missing"]),
    "renamed": (renamed(DOWN, "elsewhere.weight"), [f"{DOWN!r} is missing", "'elsewhere.weight' has no place"]),
    "transposed": (changed(DOWN, torch.t), [f"{DOWN!r} has shape (4, 2), expected (2, 4)"]),
    "cut": (changed(DOWN, lambda t: t[:1]), [f"{DOWN!r} has shape (1, 4)"]),
    "flat": (changed(DOWN, torch.ravel), [f"{DOWN!r} has shape (8,)"]),
    "too many": (lambda found: found | {"extra.weight": torch.zeros(1)}, ["'extra.weight' has no place"]),
    "a layer too many": (
        renamed(DOWN, "encoder.layer.9.output.bottleneck_down.weight"),
        ["51 faults"],
    ),
    "a layer beyond reason": (
        renamed(DOWN, "encoder.layer.99999999999.output.bottleneck_down.weight"),
        ["beyond 1024"],
    ),
    "a norm too few": (without("embeddings.LayerNorm.bias"), ["'embeddings.LayerNorm"]),
    "a head without bias": (without("head.1.bias"), ["'head.1.bias' is missing"]),
    "all gone": (lambda _: {}, ["'head.0.weight' is missing"]),
    "NaN": (changed(DOWN, lambda t: t * float("nan")), [f"{DOWN!r} holds 8 values that are NaN or infinite"]),
    "infinite": (changed(DOWN, lambda t: t - float("inf")), ["infinite"]),
}


@pytest.mark.parametrize("fault", FAULTY_TENSORS)
def test_a_fault_in_the_tensors_is_named(fault: str, tmp_path: Path) -> None:
    spoil, reasons = FAULTY_TENSORS[fault]
    adapter = example()
    path = write(dataclasses.replace(adapter, tensors=spoil(dict(adapter.tensors))), tmp_path / "a.safetensors")
    with pytest.raises(FormatError) as error:
        read(path)
    for reason in reasons:
        assert reason in str(error.value)


def test_a_file_with_nan_can_be_read_if_one_insists(tmp_path: Path) -> None:
    adapter = example()
    tensors_with_nan = dict(adapter.tensors) | {DOWN: torch.full((2, 4), float("nan"))}
    path = write(dataclasses.replace(adapter, tensors=tensors_with_nan), tmp_path / "a.safetensors")
    assert read(path, finite=False).tensors[DOWN].isnan().all()


def test_large_but_finite_values_are_not_taken_for_infinite(tmp_path: Path) -> None:
    adapter = example()
    large = dict(adapter.tensors) | {DOWN: torch.full((2, 4), 3e38)}
    path = write(dataclasses.replace(adapter, tensors=large), tmp_path / "a.safetensors")
    assert torch.equal(read(path).tensors[DOWN], large[DOWN])


def document(**changes: Any) -> dict[str, Any]:
    found = copy.deepcopy(native.encode(example()).documents["manifest"])
    return {name: value for name, value in {**found, **changes}.items() if value is not ...}


FAULTY_DOCUMENTS = {
    "no object": ([], "a list"),
    "no name": (document(name=...), "name"),
    "a name with a slash": (document(name="../x"), "name"),
    "no base": (document(base=...), "base"),
    "a base with a field of its own": (document(base={"architecture": "bert", "x": 1}), "x"),
    "an unknown field": (document(surprise=1), "surprise"),
    "no configuration": (document(config=[]), "config"),
    "an unknown method": (document(config=[{"method": "magic"}]), "magic"),
    "an unknown field of a method": (document(config=[{"method": "layer_norm", "x": 1}]), "x"),
    "a value of the wrong type": (document(config=[{"method": "layer_norm", "modules": 3}]), "modules"),
    "two methods on one site": (document(config=[houlsby()[0].to_json(), houlsby()[0].to_json()]), "claim"),
    "a format that is a text": (document(format="1"), "format"),
    "no format": (document(format=...), "format"),
    "labels that are numbers": (document(labels=[1]), "labels"),
}


@pytest.mark.parametrize("fault", FAULTY_DOCUMENTS)
def test_a_fault_in_the_document_is_named(fault: str, tmp_path: Path) -> None:
    spoilt, reason = FAULTY_DOCUMENTS[fault]
    path = tmp_path / "a.safetensors"
    native.write(Parts({"manifest": spoilt}, {"adapter": example().tensors}), path)
    with pytest.raises(FormatError) as error:
        read(path)
    assert reason in str(error.value)


def test_every_fault_of_a_document_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    spoilt = document(name="../x", surprise=1, metrics={"accuracy": "high"}, labels=[1])
    native.write(Parts({"manifest": spoilt}, {"adapter": {}}), path)
    with pytest.raises(FormatError) as error:
        read_manifest(path)
    assert len(error.value.faults) == 4


def test_a_later_version_of_the_format_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    native.write(Parts({"manifest": document(format=2, novelty=True)}, {"adapter": {}}), path)
    with pytest.raises(UnsupportedError, match=r"format version 2.*upgrade"):
        read(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "without a manifest"),
        ("no json", "JSON"),
        ('{"name": 1, "name": 2}', "twice"),
        ('{"metrics": NaN}', "NaN"),
        ('{"metrics": 1e999}', "number"),
        ("[" * 5000 + "]" * 5000, "deep"),
    ],
)
def test_metadata_that_are_no_manifest_are_refused(text: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(dict(example().tensors), path, None if text is None else {"adapterhub": text})
    with pytest.raises(FormatError, match=reason):
        read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_a_manifest_that_is_no_json_is_not_written(value: Any, tmp_path: Path) -> None:
    adapter = example()
    spoilt = dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, extra={"x": value}))
    with pytest.raises(FormatError, match="cannot be written as JSON"):
        write(spoilt, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_byte_is_an_error_of_ours_or_changes_values_only(tmp_path: Path) -> None:
    path = write(example(houlsby()), tmp_path / "a.safetensors")
    good = path.read_bytes()
    start = len(good) - sum(tensor.nbytes for tensor in example(houlsby()).tensors.values())
    for place in range(0, start, 3):
        data = bytearray(good)
        data[place] ^= 1
        path.write_bytes(data)
        try:
            read(path)
        except AdapterHubError:
            continue


def test_the_artifact_of_format_version_1_is_read_as_it_was_written() -> None:
    expected = json.loads((DATA / "native-1" / "expected.json").read_text("utf-8"))
    adapter = read(DATA / "native-1" / "adapter.safetensors")
    assert adapter.config == configs_from_json(expected["config"])
    assert adapter.manifest == from_json(Manifest, expected["manifest"])
    found = {
        key: {"dtype": str(tensor.dtype), "values": tensor.float().tolist()} for key, tensor in adapter.tensors.items()
    }
    assert found == expected["tensors"]
