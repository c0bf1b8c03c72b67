"""Fingerprint and probe: an adapter knows its base model again, and whether it still answers as it did."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_models import cast, classifier, hidden, model, randomise, with_adapters
from transformers import BertConfig, BertModel

from adapterhub.adapter import Fingerprint, Probe
from adapterhub.converters import read, write
from adapterhub.errors import BaseMismatchError, IntegrityError, NotFoundError
from adapterhub.loader import attach

SEQ = "seq_bn[reduction_factor=4]"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return a native file of a headless adapter for the tiny BERT."""
    adapters = with_adapters(model(), a=SEQ)
    return adapters.save("a", tmp_path / "a.safetensors")


def test_a_saved_adapter_loads_onto_its_base_again_and_answers_its_probe(saved: Path) -> None:
    adapters = attach(model())
    assert adapters.load(saved) == "a"
    replay = adapters.replay("a")
    assert replay.difference <= 1e-6
    assert replay.effect is not None
    assert replay.effect > 0.01
    assert adapters.active is None


def test_saved_and_loaded_tensors_are_the_same_bit_for_bit(saved: Path) -> None:
    original = with_adapters(model(), a=SEQ).adapter("a")
    again = read(saved)
    assert again.config == original.config
    assert again.tensors.keys() == original.tensors.keys()
    assert all(torch.equal(again.tensors[key], original.tensors[key]) for key in again.tensors)


def test_another_model_of_the_same_shape_is_refused(saved: Path) -> None:
    adapters = attach(model(seed=1))
    with pytest.raises(BaseMismatchError, match="holds other values"):
        adapters.load(saved)
    assert adapters.names == ()
    with pytest.warns(UserWarning, match="loaded all the same"):
        adapters.load(saved, allow_base_mismatch=True)
    with pytest.raises(IntegrityError, match="does not answer its probe"):
        adapters.replay("a")


def test_a_fine_tuned_copy_of_the_base_is_refused(saved: Path) -> None:
    base = model()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.mul_(1 + 1e-3 * torch.randn_like(parameter))
    with pytest.raises(BaseMismatchError):
        attach(base).load(saved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_base_is_recognised_in_another_dtype(saved: Path, dtype: torch.dtype) -> None:
    adapters = attach(cast(model(), dtype))
    adapters.load(saved)
    adapters.replay("a")


def test_an_adapter_saved_in_half_precision_fits_the_full_model(tmp_path: Path) -> None:
    path = with_adapters(cast(model(), torch.bfloat16), a=SEQ).save("a", tmp_path / "a.safetensors")
    attach(model()).load(path)


def test_the_base_inside_a_model_with_a_head_has_the_same_fingerprint(saved: Path) -> None:
    full = classifier()
    full.bert.load_state_dict(model().state_dict())
    attach(full).load(saved)


def test_another_size_family_or_number_of_layers_is_refused_by_name(saved: Path) -> None:
    with pytest.raises(BaseMismatchError, match="made for a bert model, this one is a roberta"):
        attach(model("roberta")).load(saved)
    wide = BertModel(BertConfig(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, vocab_size=100)).eval()
    with pytest.raises(BaseMismatchError, match=r"word_embeddings\.weight has shape"):
        attach(wide).load(saved)


def test_the_fingerprint_does_not_depend_on_what_is_active() -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ, norms="double_seq_bn[reduction_factor=4]+layer_norm")
    without = adapters._loaded.base()
    adapters.activate("norms")
    assert adapters._loaded.base() == without


def test_every_sampled_value_counts(saved: Path) -> None:
    adapter = read(saved)
    mark = adapter.manifest.base.fingerprint
    assert isinstance(mark, Fingerprint)
    assert len(mark.samples) >= 6
    for name in mark.samples:
        first, *rest = mark.samples[name]
        moved = dataclasses.replace(mark, samples={**mark.samples, name: (first + 0.01, *rest)})
        base = dataclasses.replace(adapter.manifest.base, fingerprint=moved)
        broken = dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, base=base))
        with pytest.raises(BaseMismatchError, match=name.replace(".", r"\.")):
            attach(model()).load(broken)


def test_a_changed_weight_is_found_by_the_probe(saved: Path, tmp_path: Path) -> None:
    adapter = read(saved)
    key = "encoder.layer.1.output.bottleneck_up.bias"
    changed = {**adapter.tensors, key: adapter.tensors[key] * 1.05}
    path = write(dataclasses.replace(adapter, tensors=changed), tmp_path / "changed.safetensors")
    adapters = attach(model())
    adapters.load(path)
    with pytest.raises(IntegrityError, match="probe"):
        adapters.replay("a")


def test_an_adapter_with_a_head_is_probed_by_its_logits(tmp_path: Path) -> None:
    adapters = attach(model())
    adapters.add("a", SEQ, labels=("no", "yes"))
    randomise(adapters, "a")
    path = adapters.save("a", tmp_path / "a.safetensors")
    probe = read(path).manifest.probe
    assert isinstance(probe, Probe)
    assert probe.output == "logits"
    fresh = attach(model())
    fresh.load(path)
    assert fresh.replay("a").difference <= 1e-6


def test_a_probe_is_recorded_in_evaluation_mode_and_leaves_modes_and_activation_alone(tmp_path: Path) -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ, b=SEQ)
    base.train()
    base.encoder.layer[1].eval()
    modes = [module.training for module in base.modules()]
    adapters.activate("b")
    adapters.save("a", tmp_path / "a.safetensors")
    assert adapters.active == "b"
    assert [module.training for module in base.modules()] == modes


def test_without_a_probe_there_is_nothing_to_replay() -> None:
    adapters = with_adapters(model(), a=SEQ)
    with pytest.raises(NotFoundError, match="no probe"):
        adapters.replay("a")


def test_loading_does_not_change_the_base(saved: Path) -> None:
    base = model()
    before = hidden(base)
    attach(base).load(saved)
    assert torch.equal(hidden(base), before)
