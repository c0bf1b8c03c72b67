"""AdapterSet: adding, activating, swapping, training and taking off, on real (tiny) models."""

from __future__ import annotations

import copy
import gc
import io
import threading

import pytest
import torch
from tiny_models import cast, classifier, hidden, inputs, logits, model, randomise, with_adapters
from torch import nn
from transformers import MPNetConfig, MPNetModel

from adapterhub.adapter import Adapter
from adapterhub.errors import FormatError, NotFoundError, StateError, UnsupportedError, UsageError
from adapterhub.loader import attach
from adapterhub.methods import parse_method

FAMILIES = ("bert", "roberta", "distilbert")
SEQ, DOUBLE = "seq_bn[reduction_factor=4]", "double_seq_bn[reduction_factor=4]+layer_norm"


def snapshot(base: nn.Module) -> tuple[object, ...]:
    """Return all that detach must give back: weights, tree, classes, hooks, forwards, flags."""
    modules = dict(base.named_modules())
    return (
        {key: value.clone() for key, value in base.state_dict().items()},
        {name: type(module) for name, module in modules.items()},
        {
            name: (dict(m._forward_hooks), dict(m._forward_pre_hooks), dict(m._backward_hooks))
            for name, m in modules.items()
        },
        {name: sorted(m.__dict__) for name, m in modules.items()},
        {name: (id(p), p.requires_grad) for name, p in base.named_parameters()},
        copy.deepcopy(base.config.to_dict()),
    )


def same(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    weights_a, weights_b = a[0], b[0]
    assert isinstance(weights_a, dict)
    assert isinstance(weights_b, dict)
    equal = list(weights_a) == list(weights_b) and all(torch.equal(weights_a[k], weights_b[k]) for k in weights_a)
    return equal and a[1:] == b[1:]


@pytest.mark.parametrize("family", FAMILIES)
def test_attached_and_inactive_the_model_computes_exactly_what_the_base_computes(family: str) -> None:
    base = model(family)
    before = hidden(base)
    adapters = with_adapters(base, a=SEQ, b=DOUBLE)
    assert torch.equal(hidden(base), before)
    adapters.activate("a")
    assert not torch.equal(hidden(base), before)
    adapters.activate(None)
    assert torch.equal(hidden(base), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_swapping_gives_the_same_as_a_fresh_model_with_the_other_adapter(family: str) -> None:
    base = model(family)
    adapters = with_adapters(base, a=SEQ, b=DOUBLE)
    adapters.activate("a")
    hidden(base)
    adapters.activate("b")
    fresh_base = model(family)
    fresh = attach(fresh_base)
    fresh.load(adapters.adapter("b"), set_active=True)
    assert torch.equal(hidden(base), hidden(fresh_base))


@pytest.mark.parametrize("family", FAMILIES)
def test_detach_gives_the_base_back_bit_for_bit_after_a_thousand_cycles(family: str) -> None:
    base = model(family)
    before = snapshot(base)
    adapters = with_adapters(base, a=SEQ, b=DOUBLE)
    adapters.add("c", SEQ, labels=("no", "yes"))
    small = inputs(rows=1, length=2)
    for cycle in range(1000):
        for name in ("a", "b", "c", None):
            adapters.activate(name)
            if cycle % 250 == 0:
                base(**small)
    adapters.train("b")
    adapters.detach()
    assert same(before, snapshot(base))


def test_cycles_leave_no_objects_behind() -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ, b=DOUBLE)

    def cycle() -> None:
        for name in ("a", "b", None):
            adapters.activate(name)
            hidden(base)

    for _ in range(3):
        cycle()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        cycle()
    gc.collect()
    assert len(gc.get_objects()) - before < 20


def test_no_activation_outlives_the_forward_pass() -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ, p="par_bn")
    for name in ("a", "p"):
        adapters.activate(name)
        hidden(base)
        kept = [m.__dict__["forward"].kept for m in base.modules() if hasattr(m.__dict__.get("forward"), "kept")]
        assert kept
        assert not any(kept)


def test_add_is_atomic() -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ)
    keys = list(base.state_dict())
    for method in ("seq_bn[reduction_factor=-1]", "seq_bn+pfeiffer", "nothing", "seq_bn[reduction_factor=1e-9]"):
        with pytest.raises(UsageError):
            adapters.add("b", method)
    assert adapters.names == ("a",)
    assert list(base.state_dict()) == keys


def test_a_taken_name_is_refused_unless_overwriting_is_allowed() -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ)
    adapters.activate("a")
    before = hidden(base)
    with pytest.raises(StateError, match="loaded already"):
        adapters.add("a", DOUBLE)
    assert torch.equal(hidden(base), before)
    adapters.add("a", DOUBLE, overwrite_ok=True)
    randomise(adapters, "a")
    assert adapters.active == "a"
    assert not torch.equal(hidden(base), before)


def test_a_new_adapter_starts_near_the_identity() -> None:
    base = model()
    before = hidden(base)
    adapters = attach(base)
    adapters.add("a", "double_seq_bn[reduction_factor=4,init_weights=houlsby]+layer_norm", set_active=True)
    assert (hidden(base) - before).abs().max() < 1e-2


def test_using_comes_back_to_what_was_active_also_after_an_error() -> None:
    adapters = with_adapters(model(), a=SEQ, b=DOUBLE)
    adapters.activate("a")
    with adapters.using("b"):
        assert adapters.active == "b"
        with adapters.using(None):
            assert adapters.active is None
        assert adapters.active == "b"
    assert adapters.active == "a"
    with pytest.raises(RuntimeError), adapters.using("b"):
        raise RuntimeError
    assert adapters.active == "a"


def test_a_deleted_adapter_is_gone_and_leaves_the_others() -> None:
    base = model()
    before = hidden(base)
    adapters = with_adapters(base, a=SEQ, b=DOUBLE)
    adapters.activate("a")
    adapters.delete("a")
    assert adapters.names == ("b",)
    assert adapters.active is None
    assert torch.equal(hidden(base), before)
    with pytest.raises(NotFoundError, match="loaded are: b"):
        adapters.activate("a")


def test_attaching_twice_or_using_a_detached_set_is_an_error() -> None:
    base = model()
    adapters = attach(base)
    with pytest.raises(StateError, match="attached to this model already"):
        attach(base)
    adapters.detach()
    with pytest.raises(StateError, match="detached"):
        adapters.add("a", SEQ)
    with_adapters(base, a=SEQ).activate("a")


def test_other_modules_and_families_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="Linear"):
        attach(nn.Linear(2, 2))
    with pytest.raises(UnsupportedError, match="mpnet"):
        attach(MPNetModel(MPNetConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=10)))


def test_parts_of_a_union_must_be_disjoint_and_disjoint_ones_add_up() -> None:
    base = model()
    adapters = attach(base)
    with pytest.raises(UsageError, match="two parts"):
        adapters.add("both", "seq_bn+par_bn")
    attention = "seq_bn[mh_adapter=true,output_adapter=false,reduction_factor=4]"
    adapters.add("union", f"{attention}+par_bn")
    randomise(adapters, "union")
    tensors = adapters.adapter("union").tensors
    for name, text in (("mh", attention), ("ff", "par_bn")):
        own = {k: v for k, v in tensors.items() if ("attention" in k) == (name == "mh")}
        adapters.load(Adapter(parse_method(text), own, adapters.manifest("union")), name=name)
    adapters.activate("mh")
    alone = hidden(base)
    adapters.activate("union")
    assert not torch.equal(alone, hidden(base))


def test_trained_norms_stand_in_for_the_base_s_own_and_never_touch_them() -> None:
    base = model()
    weights = {k: v.clone() for k, v in base.state_dict().items()}
    adapters = attach(base)
    adapters.add("norms", "layer_norm", set_active=True)
    before = hidden(base)
    adapters.activate(None)
    assert torch.equal(before, hidden(base))
    randomise(adapters, "norms")
    adapters.activate("norms")
    assert not torch.equal(before, hidden(base))
    state = base.state_dict()
    assert all(torch.equal(weights[key], state[key]) for key in weights)


def test_training_reaches_the_adapter_its_norms_and_its_head_and_nothing_else() -> None:
    base = model()
    adapters = attach(base)
    adapters.add("a", DOUBLE, labels=("no", "yes"))
    trained = adapters.train("a")
    assert {id(p) for p in base.parameters() if p.requires_grad} == {id(p) for p in trained}
    output = base(**inputs(), labels=torch.tensor([0, 1, 0, 1]))
    output.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert all(p.grad is None for p in base.parameters() if not p.requires_grad)


def test_the_loss_of_accumulated_batches_is_divided_by_all_their_items() -> None:
    base = model()
    adapters = attach(base)
    adapters.add("a", SEQ, labels=("no", "yes"), set_active=True)
    labels = torch.tensor([0, 1, 0, 1])
    mean = base(**inputs(), labels=labels).loss
    assert torch.allclose(base(**inputs(), labels=labels, num_items_in_batch=8).loss, mean / 2)


def test_a_head_answers_with_logits_and_names_its_classes_while_it_is_active() -> None:
    base = model()
    before = base.config.id2label
    adapters = attach(base)
    adapters.add("a", SEQ, labels=("bad", "so so", "good"), set_active=True)
    assert logits(base).shape == (4, 3)
    assert base.config.id2label == {0: "bad", 1: "so so", 2: "good"}
    assert base.config.num_labels == 3
    as_tuple = base(**inputs(), return_dict=False)
    assert torch.equal(as_tuple[0], logits(base))
    adapters.activate(None)
    assert base.config.id2label == before
    assert hidden(base).shape[-1] == 32


def test_a_head_takes_the_place_of_the_one_that_the_class_has() -> None:
    bare, full = model(), classifier(labels=2)
    full.bert.load_state_dict({**full.bert.state_dict(), **bare.state_dict()})
    own = logits(full)
    a = attach(bare)
    a.add("a", SEQ, labels=("x", "y", "z"), set_active=True)
    randomise(a, "a")
    b = attach(full)
    b.load(a.adapter("a"), set_active=True)
    assert torch.allclose(logits(bare), logits(full), atol=1e-6)
    b.activate(None)
    assert torch.equal(logits(full), own)


def test_without_a_head_of_its_own_the_adapter_leaves_the_class_s_head_in_place() -> None:
    full = classifier()
    own = logits(full)
    adapters = with_adapters(full, a=SEQ)
    adapters.activate("a")
    assert logits(full).shape == own.shape
    assert not torch.equal(logits(full), own)


def test_mean_pooling_leaves_padding_out() -> None:
    base = model()
    adapters = attach(base)
    adapters.add("a", "classification_head[num_labels=2,pooling=mean]", set_active=True)
    short = {key: value[-1:, :-3] for key, value in inputs().items()}
    assert torch.allclose(logits(base)[-1:], logits(base, short), atol=1e-6)
    positional = base(inputs()["input_ids"], inputs()["attention_mask"])
    assert torch.equal(positional.logits, logits(base))


def test_tensors_that_do_not_fit_are_all_named_and_nothing_is_loaded() -> None:
    adapters = with_adapters(model(), a=SEQ)
    whole = adapters.adapter("a")
    down, up = "encoder.layer.0.output.bottleneck_down.weight", "encoder.layer.1.output.bottleneck_up.weight"
    broken = {**whole.tensors, down: whole.tensors[down].T.contiguous(), "encoder.layer.0.junk": torch.zeros(1)}
    del broken[up]
    with pytest.raises(FormatError) as caught:
        adapters.load(Adapter(whole.config, broken, whole.manifest), name="b")
    assert len(caught.value.faults) == 3
    for key in (down, up, "junk"):
        assert key in str(caught.value)
    assert adapters.names == ("a",)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    adapters = with_adapters(model(), a=SEQ)
    whole = adapters.adapter("a")
    key = next(iter(whole.tensors))
    spoiled = whole.tensors[key].clone()
    spoiled.view(-1)[3] = value
    with pytest.raises(FormatError, match="not finite"):
        adapters.load(Adapter(whole.config, {**whole.tensors, key: spoiled}, whole.manifest), name="b")


def test_large_but_finite_values_are_not_mistaken_for_infinity() -> None:
    adapters = with_adapters(model(), a=SEQ)
    whole = adapters.adapter("a")
    huge = {key: torch.full_like(tensor, 3e38) for key, tensor in whole.tensors.items()}
    adapters.load(Adapter(whole.config, huge, whole.manifest), name="b")


def test_a_forward_laid_over_ours_by_another_library_is_noticed() -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ)
    adapters.activate("a")
    site = base.encoder.layer[0].output.dropout
    ours = site.forward
    site.forward = lambda *args: ours(*args)
    with pytest.raises(StateError, match="another library"):
        adapters.activate(None)
    site.forward = ours
    adapters.activate(None)


def test_a_forward_that_was_there_before_is_kept_in_use_and_put_back() -> None:
    base = model()
    site = base.encoder.layer[0].output.dropout
    calls = []
    original = site.forward

    def counting(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return original(x)

    site.forward = counting
    adapters = with_adapters(base, a=SEQ)
    adapters.activate("a")
    hidden(base)
    assert calls == [1]
    adapters.detach()
    assert site.__dict__["forward"] is counting


def test_copies_of_an_adapted_model_are_independent() -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ)
    adapters.activate("a")
    expected = hidden(base)
    twin = copy.deepcopy(base)
    buffer = io.BytesIO()
    torch.save(base, buffer)
    buffer.seek(0)
    thawed = torch.load(buffer, weights_only=False)
    for other in (twin, thawed):
        assert torch.equal(hidden(other), expected)
        with torch.no_grad():
            for parameter in other.adapterhub.parameters():
                parameter.zero_()
        assert not torch.equal(hidden(other), expected)
    assert torch.equal(hidden(base), expected)


def test_threads_that_share_a_model_do_not_mix_their_inputs() -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ, p="par_bn")
    for name in ("a", "p"):
        adapters.activate(name)
        batches = [inputs(rows=2, length=5 + n, seed=n) for n in range(4)]
        expected = [hidden(base, batch) for batch in batches]
        wrong: list[int] = []

        def work(
            n: int, batches: list[dict[str, torch.Tensor]], expected: list[torch.Tensor], wrong: list[int]
        ) -> None:
            for _ in range(30):
                if not torch.allclose(hidden(base, batches[n]), expected[n], atol=1e-6):
                    wrong.append(n)

        threads = [threading.Thread(target=work, args=(n, batches, expected, wrong)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_adapters_follow_the_model_to_another_dtype() -> None:
    base = model()
    adapters = with_adapters(base, a=DOUBLE)
    adapters.activate("a")
    exact = hidden(base)
    cast(base, torch.bfloat16)
    assert hidden(base).dtype == torch.bfloat16
    assert (hidden(base).float() - exact).abs().max() < 0.1
    adapters.add("late", SEQ, set_active=True)
    assert hidden(base).dtype == torch.bfloat16


def test_the_summary_counts_every_parameter_of_houlsby_s_formula() -> None:
    base = model()
    size = sum(p.numel() for p in base.parameters())
    adapters = attach(base)
    adapters.add("a", "double_seq_bn[reduction_factor=4]+layer_norm", labels=("no", "yes"))
    summary = adapters.summary()
    d, m, layers = 32, 8, 3
    assert summary.base == size
    assert summary.total("a") == 2 * layers * (2 * m * d + d + m) + (2 * layers + 1) * 2 * d + 2 * d + 2
    by_site = {(row.method, row.site): row for row in summary.rows}
    assert by_site["bottleneck", "attention"].places == layers
    assert by_site["layer_norm", "norm"].places == 2 * layers + 1
    assert f"{summary.total('a'):,}" in str(summary)
    assert all(len(line) <= 80 for line in str(summary).splitlines())
