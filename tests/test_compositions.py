"""Laws of compositions: what several adapters compute together is told by what each computes alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tiny_models import inputs, model
from torch import Tensor

from adapterhub import Average, BatchSplit, Fuse, MultiTask, Parallel, Split, Stack
from adapterhub.benchmarks.measure import operations
from adapterhub.composition import Composition
from adapterhub.errors import NotFoundError, UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach

METHODS = {
    "houlsby": "double_seq_bn[reduction_factor=4]+layer_norm",
    "pfeiffer": "seq_bn[reduction_factor=2]",
    "wide": "seq_bn[reduction_factor=1]",
    "parallel": "par_bn[reduction_factor=8,scaling=learned]",
    "gated": "double_seq_bn[use_gating=true,ln_before=true,ln_after=true]",
    "lora": "lora[r=3]",
    "lora_all": 'lora[r=2,alpha=7,targets=["all-linear"]]',
    "norms": "layer_norm",
}


@pytest.fixture(params=["bert", "distilbert", "roberta"])
def adapters(request: pytest.FixtureRequest) -> AdapterSet:
    torch.manual_seed(0)
    made = attach(model(request.param))
    for name, method in METHODS.items():
        made.add(name, method)
        for parameter in made.model.adapterhub._modules[name].parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def run(adapters: AdapterSet, rows: int = 4) -> Tensor:
    with torch.no_grad():
        found: Tensor = adapters.model(**inputs(rows)).last_hidden_state
    return found


def alone(adapters: AdapterSet, setup: str | Composition | None) -> Tensor:
    with adapters.using(setup):
        return run(adapters)


def near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_composition_of_one_adapter_is_that_adapter(adapters: AdapterSet, name: str) -> None:
    wanted = alone(adapters, name)
    assert not near(wanted, alone(adapters, None))
    for setup in (Stack(name), Average(name), BatchSplit(name, batch_sizes=4), Parallel(name)):
        assert near(alone(adapters, setup), wanted), setup


@pytest.mark.parametrize("name", METHODS)
def test_an_average_of_an_adapter_with_itself_is_that_adapter(adapters: AdapterSet, name: str) -> None:
    assert near(alone(adapters, Average(name, name, weights=[0.3, 0.7])), alone(adapters, name))


@pytest.mark.parametrize(
    "names",
    [
        ("houlsby", "lora", None, "pfeiffer"),
        ("pfeiffer", "wide", "pfeiffer", "wide"),
        (None, "norms", "houlsby", "houlsby"),
        ("lora", "lora_all", "lora", None),
        ("gated", None, "gated", "parallel"),
        (None, None, None, None),
        tuple(METHODS)[:4],
    ],
    ids=str,
)
def test_each_row_of_a_batch_is_as_if_it_were_alone_with_its_adapter(
    adapters: AdapterSet, names: tuple[str | None, ...]
) -> None:
    wanted = [alone(adapters, name)[row] for row, name in enumerate(names)]
    with adapters.per_row(names):
        found = run(adapters)
    for row, want in enumerate(wanted):
        assert near(found[row], want), names[row]
    assert adapters.active is None
    assert torch.equal(run(adapters), alone(adapters, None))


def test_many_rows_with_many_adapters_are_right(adapters: AdapterSet) -> None:
    names = [*METHODS, None] * 2
    wanted = {}
    for name in {*names}:
        with adapters.using(name):
            wanted[name] = run(adapters, len(names))
    with adapters.per_row(names):
        found = run(adapters, len(names))
    for row, name in enumerate(names):
        assert near(found[row], wanted[name][row]), name


@pytest.mark.parametrize("alphas", [(8,) * 8, tuple(range(1, 9))], ids=["same", "different"])
def test_the_operations_of_a_mixed_batch_do_not_depend_on_the_number_of_adapters(
    adapters: AdapterSet, alphas: tuple[int, ...]
) -> None:
    for number, alpha in enumerate(alphas):
        adapters.add(f"l{number}", f"lora[alpha={alpha}]")
        adapters.add(f"b{number}", "seq_bn")
    counts = []
    for many in (2, 8):
        names = [f"{'lb'[row % 2]}{row // 2 % many}" for row in range(16)]
        with adapters.per_row(names):
            counts.append([operations(lambda: adapters.model(**inputs(16))) for _ in range(2)])
    assert counts[0] == counts[1]
    assert counts[0][0] > counts[0][1], "the first pass gathers the weights"


@pytest.mark.parametrize("way", ["in place", "other data"])
def test_weights_that_change_inside_per_row_are_seen(adapters: AdapterSet, way: str) -> None:
    names = ["lora", "pfeiffer", "wide", "houlsby"]
    with adapters.per_row(names):
        before = run(adapters)
        for name in names:
            for parameter in adapters.model.adapterhub._modules[name].parameters():
                with torch.no_grad():
                    if way == "in place":
                        parameter.mul_(1.5)
                    else:
                        parameter.data = parameter.data * 1.5
        after = run(adapters)
    for row, name in enumerate(names):
        assert not near(before[row], after[row])
        assert near(after[row], alone(adapters, name)[row])


def test_batch_split_gives_each_adapter_its_rows(adapters: AdapterSet) -> None:
    found = alone(adapters, BatchSplit("houlsby", Stack("pfeiffer", "lora"), batch_sizes=[1, 3]))
    assert near(found[:1], alone(adapters, "houlsby")[:1])
    assert near(found[1:], alone(adapters, Stack("pfeiffer", "lora"))[1:])


def test_parallel_gives_each_adapter_a_copy_of_the_batch(adapters: AdapterSet) -> None:
    setup = Parallel("houlsby", "lora", Stack("pfeiffer", "parallel"))
    found = alone(adapters, setup)
    wanted = torch.cat([alone(adapters, child) for child in setup])
    assert near(found, wanted)


def test_a_stack_below_parallel_is_shared(adapters: AdapterSet) -> None:
    found = alone(adapters, Stack("pfeiffer", Parallel("houlsby", "lora")))
    wanted = torch.cat([alone(adapters, Stack("pfeiffer", "houlsby")), alone(adapters, Stack("pfeiffer", "lora"))])
    assert near(found, wanted)


def test_updates_of_linear_maps_add_up_in_a_stack(adapters: AdapterSet) -> None:
    both = alone(adapters, Stack("lora", "lora_all"))
    assert near(both, alone(adapters, Stack("lora_all", "lora")))
    assert not near(both, alone(adapters, "lora_all"))


def test_bottlenecks_in_a_stack_stand_one_behind_the_other(adapters: AdapterSet) -> None:
    assert not near(alone(adapters, Stack("pfeiffer", "gated")), alone(adapters, Stack("gated", "pfeiffer")))


def test_split_gives_each_adapter_its_tokens(adapters: AdapterSet) -> None:
    length = run(adapters).shape[1]
    with adapters.using(Split("pfeiffer", "pfeiffer", splits=[2, length - 2])):
        assert near(run(adapters), alone(adapters, "pfeiffer"))
    assert not near(alone(adapters, Split("pfeiffer", "wide", splits=[2, length - 2])), alone(adapters, "pfeiffer"))


def test_an_average_is_linear_where_only_the_last_site_has_adapters(adapters: AdapterSet) -> None:
    first = tuple(range(adapters._ground.layout.layers - 1))
    for name in ("p", "q"):
        adapters.add(name, f"seq_bn[leave_out={list(first)},original_ln_before=false]")
        for parameter in adapters.model.adapterhub._modules[name].parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    norm = adapters._ground.modules[adapters._ground.layout.sites[-1].norm]

    def unnormed(setup: str | Composition) -> Tensor:
        kept: list[Tensor] = []
        with adapters.using(setup):
            hook = norm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
            run(adapters)
            hook.remove()
        return kept[0]

    found = unnormed(Average("p", "q", weights=[0.25, 0.75]))
    assert near(found, 0.25 * unnormed("p") + 0.75 * unnormed("q"))


def test_fusion_with_one_adapter_and_no_value_matrix_is_that_adapter(adapters: AdapterSet) -> None:
    adapters.add("pfeiffer", "seq_bn[reduction_factor=2]", overwrite_ok=True)
    for parameter in adapters.model.adapterhub._modules["pfeiffer"].parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    adapters.add("pfeiffer,wide", "fusion_static")
    adapters.add("single", "fusion_static")
    assert near(alone(adapters, Fuse("pfeiffer", name="single")), alone(adapters, "pfeiffer"))
    fused = alone(adapters, Fuse("pfeiffer", "wide"))
    assert not near(fused, alone(adapters, "pfeiffer"))
    assert not near(fused, alone(adapters, "wide"))


def test_a_fusion_layer_alone_cannot_be_activated(adapters: AdapterSet) -> None:
    with pytest.raises(UsageError, match="fusion layer"):
        adapters.add("pfeiffer,wide", "fusion", set_active=True)


@pytest.mark.parametrize(
    ("act", "error", "reason"),
    [
        (lambda a: a.activate(Stack("lora", "absent")), NotFoundError, "'absent'"),
        (lambda a: a.activate(Fuse("pfeiffer", "wide")), NotFoundError, "'pfeiffer,wide'"),
        (lambda a: alone(a, BatchSplit("lora", "wide", batch_sizes=[1, 1])), UsageError, "2 rows .* has 4"),
        (lambda a: alone(a, Split("pfeiffer", "wide", splits=[1, 1])), UsageError, "splits"),
    ],
)
def test_what_cannot_be_is_named(
    adapters: AdapterSet, act: Callable[[AdapterSet], object], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        act(adapters)
    adapters.activate("lora")
    assert adapters.active == "lora"


def test_fuse_refuses_what_is_no_bottleneck(adapters: AdapterSet) -> None:
    adapters.add("f", "fusion")
    with pytest.raises(UnsupportedError, match="bottleneck adapters only"):
        adapters.activate(Fuse("pfeiffer", "lora", name="f"))


def test_an_adapter_that_is_replaced_is_replaced_in_the_active_composition_too(adapters: AdapterSet) -> None:
    adapters.activate(Stack("lora", "pfeiffer"))
    before = run(adapters)
    adapters.load(adapters.adapter("wide"), name="pfeiffer", overwrite_ok=True)
    assert adapters.active == Stack("lora", "pfeiffer")
    assert near(run(adapters), alone(adapters, Stack("lora", "wide")))
    assert not near(run(adapters), before)
    adapters.delete("pfeiffer")
    assert adapters.active is None


def test_a_composition_can_be_copied_with_the_model(adapters: AdapterSet) -> None:
    with adapters.using(Stack("houlsby", "lora")):
        wanted = run(adapters)
        twin = copy.deepcopy(adapters.model)
    with torch.no_grad():
        assert near(twin(**inputs(4)).last_hidden_state, wanted)


def test_gradients_reach_every_adapter_of_a_mixed_batch(adapters: AdapterSet) -> None:
    names = ["lora", "pfeiffer", "wide", "houlsby"]
    for name in names:
        for parameter in adapters.model.adapterhub._modules[name].parameters():
            parameter.requires_grad_(True)
    with adapters.per_row(names):
        adapters.model(**inputs(4)).last_hidden_state.square().sum().backward()
    for name in names:
        grads = [p.grad for p in adapters.model.adapterhub._modules[name].parameters()]
        assert all(grad is not None for grad in grads), name
        assert any(grad.abs().max() > 0 for grad in grads), name


def test_training_a_fusion_leaves_its_adapters_alone(adapters: AdapterSet) -> None:
    adapters.add("pfeiffer,wide", "fusion")
    kept = adapters.adapter("pfeiffer").tensors
    trained = adapters.train(Fuse("pfeiffer", "wide"))
    assert adapters.active == Fuse("pfeiffer", "wide")
    assert {id(p) for p in adapters.model.parameters() if p.requires_grad} == {id(p) for p in trained}
    # The value matrices start next to the identity, so the pull towards it is next to nothing, and more when moved.
    before = adapters.regularisation().item()
    assert 0 < before < 1e-6
    optimiser = torch.optim.SGD(trained, lr=0.1)
    loss = adapters.model(**inputs(4)).last_hidden_state.square().sum() + adapters.regularisation()
    loss.backward()
    optimiser.step()
    assert adapters.regularisation().item() > before
    assert all(torch.equal(value, kept[key]) for key, value in adapters.adapter("pfeiffer").tensors.items())


def test_an_adapter_can_be_trained_within_a_stack(adapters: AdapterSet) -> None:
    trained = adapters.train("lora", within=Stack("pfeiffer", "lora"))
    adapters.model(**inputs(4)).last_hidden_state.square().sum().backward()
    assert all(parameter.grad is not None for parameter in trained)
    with pytest.raises(UsageError, match="no part of"):
        adapters.train("wide", within=Stack("pfeiffer", "lora"))


def test_multi_task_gives_each_row_the_adapter_of_its_task(adapters: AdapterSet) -> None:
    names = ["pfeiffer", "lora", "houlsby"]
    tasks = [2, 0, 2, 1]
    with adapters.using(MultiTask(*names)), torch.no_grad():
        found = adapters.model(**inputs(4), task_ids=torch.tensor(tasks)).last_hidden_state
        named = adapters.model(**inputs(4), task_ids=[names[task] for task in tasks]).last_hidden_state
        with pytest.raises(UsageError, match="without task_ids"):
            adapters.model(**inputs(4))
        with pytest.raises(UsageError, match="no task is called 'x'"):
            adapters.model(**inputs(4), task_ids=["x"] * 4)
        with pytest.raises(UsageError, match="must lie in 0 … 2"):
            adapters.model(**inputs(4), task_ids=torch.tensor([0, 1, 2, 3]))
    assert torch.equal(found, named)
    for row, task in enumerate(tasks):
        assert near(found[row], alone(adapters, names[task])[row])
