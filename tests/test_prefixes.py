"""Laws of prefixes: what an attention finds in front of its keys acts as keys and values in a cache would."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from families import FAMILIES
from tiny_models import answers, family, family_inputs, generated, hidden, inputs, model, randomise, with_adapters
from torch import Tensor
from transformers import EncoderDecoderCache, PreTrainedModel

from adapterhub import Average, BatchSplit, MultiTask, Parallel, Split, Stack
from adapterhub.adapter import Adapter, Base, Manifest
from adapterhub.composition import Composition
from adapterhub.errors import UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach
from adapterhub.loader.attention import IMPLEMENTATION
from adapterhub.methods import PrefixTuningConfig, parse_method
from adapterhub.methods.prefix_tuning import flattened

NETWORK = "prefix_tuning[prefix_length=3,bottleneck_size=5]"
GATED = "prefix_tuning_flat[prefix_length=4,use_gating=true,shared_gating=false]"
COUNTED = "prefix_tuning_flat[prefix_length=3,positions=adapters]"
SHIFTED = "prefix_tuning_flat[prefix_length=3,positions=shifted,encoder_prefix=false,cross_prefix=false]"
GENERATING = {
    "gpt2": "GPT2LMHeadModel",
    "gptj": "GPTJForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi": "PhiForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
}
EAGER_ONLY = ("gptj", "deberta", "deberta-v2", "gemma2")
CHANGES: dict[str, dict[str, Any]] = {
    **{key: {"sliding_window": 4} for key in ("mistral", "gemma2", "gemma3_text")},
    "t5": {"num_decoder_layers": 2},  # a static cache is made with as many layers as the encoder has
}
COMPILED = ("bert", "distilbert", "albert", "deberta", "deberta-v2", "t5", "gpt2", "gptj", "mistral")
TOKENS = [n for n in FAMILIES if n not in ("vit", "beit", "whisper") and not n.startswith("clip")]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("text", [NETWORK, GATED, COUNTED])
def test_a_prefix_acts_in_every_family_and_leaves_no_trace(name: str, text: str) -> None:
    base = family(name)
    batch, settings = family_inputs(base), copy.deepcopy(base.config.to_dict())
    before = answers(base, batch)
    adapters = with_adapters(base, a=text)
    assert torch.equal(answers(base, batch), before)
    adapters.activate("a")
    assert not torch.allclose(answers(base, batch), before, atol=1e-3)
    assert base.config.to_dict() == settings
    configs = [vars(module)["config"] for module in base.modules() if "config" in vars(module)]
    assert IMPLEMENTATION not in {config._attn_implementation for config in configs}
    adapters.detach()
    assert torch.equal(answers(base, batch), before)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in EAGER_ONLY])
@pytest.mark.parametrize("text", [NETWORK, GATED, COUNTED])
def test_every_attention_implementation_sees_the_same_prefix(name: str, text: str) -> None:
    base = family(name)
    with_adapters(base, a=text).activate("a")
    found = {}
    for implementation in ("eager", "sdpa"):
        # The change is followed although the adapter is active already.
        base.set_attn_implementation(implementation)
        found[implementation] = answers(base, family_inputs(base))
    assert torch.allclose(found["eager"], found["sdpa"], atol=1e-5)


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("text", [NETWORK, COUNTED])
def test_a_padded_row_is_as_if_it_were_alone(name: str, text: str) -> None:
    base = family(name)
    with_adapters(base, a=text).activate("a")
    batch = family_inputs(base)
    alone = {key: value[1:] for key, value in batch.items() if key != "attention_mask"}
    alone["input_ids"] = alone["input_ids"][:, batch["attention_mask"][1].bool()]
    wanted = answers(base, alone)
    assert torch.allclose(answers(base, batch)[1:, : wanted.shape[1]], wanted, atol=1e-5)


def from_cache(adapters: AdapterSet, cache: Any) -> Adapter:
    """A shifted prefix with the three keys and values that a cache holds."""
    (config,) = parse_method(SHIFTED)
    layout = adapters._ground.layout
    places = [one for one in layout.attentions if one.stack == "self"]
    layers = (cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache).layers
    tensors = {}
    for place, layer in zip(places, layers, strict=True):
        for what, heads in (("key", layer.keys), ("value", layer.values)):
            tensors[f"{place.path}.prefix_{what}"] = heads[0].transpose(0, 1).flatten(1).contiguous()
    return Adapter((config,), tensors, Manifest(name="text", base=Base(architecture=layout.architecture)))


@torch.no_grad()
@pytest.mark.parametrize("name", GENERATING)
@pytest.mark.parametrize("masked", [True, False])
def test_a_prefix_made_of_the_cache_of_a_text_is_that_text(name: str, masked: bool) -> None:
    base = family(name, **CHANGES.get(name, {}))
    batch = family_inputs(base, rows=1)
    text = batch.pop("decoder_input_ids" if "decoder_input_ids" in batch else "input_ids")
    word = "decoder_input_ids" if "input_ids" in batch else "input_ids"
    if word == "input_ids":
        batch = {}

    def call(start: int, end: int) -> Any:
        mask = {"attention_mask": torch.ones_like(text[:, start:end])} if masked and word == "input_ids" else {}
        return base(**batch, **mask, **{word: text[:, start:end]}, use_cache=True)

    whole = call(0, text.shape[1]).last_hidden_state
    adapters = attach(base)
    adapters.load(from_cache(adapters, call(0, 3).past_key_values), set_active=True)
    assert torch.allclose(call(3, text.shape[1]).last_hidden_state, whole[:, 3:], atol=1e-5)


@pytest.mark.parametrize("name", GENERATING)
@pytest.mark.parametrize("text", [NETWORK, SHIFTED, COUNTED])
def test_generation_with_a_cache_is_generation_without(name: str, text: str) -> None:
    base = family(name, GENERATING[name], **CHANGES.get(name, {}))
    adapters = with_adapters(base, a=text)
    plain = generated(base)
    adapters.activate("a")
    found = generated(base)
    assert not torch.equal(found, plain)
    assert torch.equal(found, generated(base, use_cache=False))
    assert torch.equal(found[1:2], generated(base, slice(1, 2)))
    assert torch.equal(found, generated(base, cache_implementation="static"))


def flat_parts(adapters: AdapterSet, *names: str) -> dict[str, Tensor]:
    """The tensors of the flat prefix that several prefixes together are."""
    found: dict[str, list[Tensor]] = {}
    for name in names:
        adapter = adapters.adapter(name)
        for key, tensor in flattened(adapter.config[0], adapter.tensors, adapters._ground.layout).items():  # type: ignore[arg-type]
            found.setdefault(key, []).append(tensor)
    return {key: torch.cat(parts) for key, parts in found.items()}


def test_a_network_computes_what_its_flat_prefix_computes() -> None:
    base = model()
    adapters = with_adapters(base, a=NETWORK)
    adapter = adapters.adapter("a")
    (config,) = parse_method("prefix_tuning_flat[prefix_length=3]")
    adapters.load(Adapter((config,), flat_parts(adapters, "a"), adapter.manifest), name="flat")
    adapters.activate("a")
    wanted = hidden(base)
    adapters.activate("flat")
    assert torch.allclose(hidden(base), wanted, atol=1e-6)


@pytest.fixture(params=["bert", "llama", "deberta", "deberta-v2", "gptj"])
def several(request: pytest.FixtureRequest) -> AdapterSet:
    base = family(request.param)
    return with_adapters(
        base,
        three=NETWORK,
        five="prefix_tuning_flat[prefix_length=5]",
        gated=GATED,
        bottleneck="seq_bn[reduction_factor=4]",
        both="lora+prefix_tuning[prefix_length=2]",
    )


def run(adapters: AdapterSet, setup: str | Composition | None, rows: int = 4, **more: Any) -> Tensor:
    with adapters.using(setup), torch.no_grad():
        found: Tensor = adapters.model(**inputs(rows), **more).last_hidden_state
    return found


def test_a_stack_of_prefixes_is_the_longer_prefix(several: AdapterSet) -> None:
    (config,) = parse_method("prefix_tuning_flat[prefix_length=8]")
    manifest = several.manifest("five")
    several.load(Adapter((config,), flat_parts(several, "five", "three"), manifest), name="eight")
    assert torch.allclose(run(several, Stack("three", "five")), run(several, "eight"), atol=1e-5)
    assert not torch.allclose(run(several, "eight"), run(several, "five"), atol=1e-3)


def same_tokens(found: Tensor, wanted: Tensor) -> bool:
    """Whether hidden states are the same where there is no padding."""
    kept = inputs(len(found))["attention_mask"].bool()
    return torch.allclose(found[kept], wanted[kept], atol=1e-5)


def test_each_row_has_the_prefix_of_its_own_adapter(several: AdapterSet) -> None:
    names = ["three", None, "five", "both"]
    wanted = torch.stack([run(several, name)[row] for row, name in enumerate(names)])
    with several.per_row(names), torch.no_grad():
        found = several.model(**inputs(4)).last_hidden_state
    assert same_tokens(found, wanted)
    stacked = Stack("three", "five")
    found = run(several, BatchSplit(stacked, "gated", "bottleneck", batch_sizes=[1, 1, 2]))
    wanted = torch.stack([run(several, stacked)[0], run(several, "gated")[1], *run(several, "bottleneck")[2:]])
    assert same_tokens(found, wanted)


def test_parallel_prefixes_each_have_the_whole_batch(several: AdapterSet) -> None:
    wanted = torch.cat([run(several, "three"), run(several, "gated")])
    assert torch.allclose(run(several, Parallel("three", "gated")), wanted, atol=1e-5)


def test_each_task_has_its_prefix(several: AdapterSet) -> None:
    wanted = torch.stack([run(several, name)[row] for row, name in enumerate(["five", "three", "five", "five"])])
    found = run(several, MultiTask("three", "five"), task_ids=torch.tensor([1, 0, 1, 1]))
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("setup", "says"),
    [
        (Average("three", "five"), "average"),
        (Split("three", "five", splits=[4, 5]), "split"),
        (BatchSplit("shifted", "five", batch_sizes=[2, 2]), "positions"),
        (Stack("shifted", "again"), "positions"),
        (Stack("shifted", "five"), "positions"),
    ],
    ids=str,
)
def test_prefixes_that_do_not_go_together_are_refused(setup: Composition, says: str) -> None:
    five = "prefix_tuning_flat[prefix_length=5]"
    adapters = with_adapters(family("llama"), three=NETWORK, five=five, shifted=SHIFTED, again=SHIFTED)
    with pytest.raises(UnsupportedError, match=says):
        adapters.activate(setup)


def test_a_shifted_prefix_may_be_in_a_stack_with_others() -> None:
    base = family("llama")
    adapters = with_adapters(base, shifted=SHIFTED, bottleneck="seq_bn", union=f"seq_bn+{SHIFTED}")
    tensors = {**adapters.adapter("shifted").tensors, **adapters.adapter("bottleneck").tensors}
    union = adapters.adapter("union")
    adapters.load(Adapter(union.config, tensors, union.manifest), name="both")
    assert torch.allclose(run(adapters, Stack("shifted", "bottleneck")), run(adapters, "both"), atol=1e-6)


def test_wrong_numbers_of_rows_are_told() -> None:
    adapters = with_adapters(model(), three=NETWORK)
    with adapters.per_row(["three", None]), pytest.raises(UsageError, match="batch has 4"):
        hidden(adapters.model)


@pytest.mark.parametrize("name", ["bert", "gpt2", "deberta"])
def test_copies_of_a_model_keep_its_prefix(name: str) -> None:
    base = family(name)
    with_adapters(base, a=NETWORK, b=GATED).activate("a")
    batch = family_inputs(base)
    wanted = answers(base, batch)
    for other in (copy.deepcopy(base), pickle.loads(pickle.dumps(base))):
        assert torch.equal(answers(other, batch), wanted)
        with torch.no_grad():
            for parameter in other.adapterhub.parameters():
                parameter.mul_(2)
        assert not torch.allclose(answers(other, batch), wanted, atol=1e-3)
    assert torch.equal(answers(base, batch), wanted)


def test_threads_do_not_mix_their_prefixes() -> None:
    base = family("llama")
    with_adapters(base, a=GATED).activate("a")
    batches = [family_inputs(base, rows=rows, seed=rows) for rows in (1, 2, 3, 4)]
    wanted = [answers(base, batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: answers(base, batch), batches * 8))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted * 8, strict=True))


@pytest.mark.parametrize("text", [NETWORK, GATED, "mam[prefix_length=3,bottleneck_size=5]", "unipelt[prefix_length=3]"])
def test_training_reaches_every_tensor_of_the_adapter_and_nothing_else(text: str) -> None:
    base = model()
    adapters = attach(base)
    adapters.add("a", text, labels=("no", "yes"))
    randomise(adapters, "a")
    trained = adapters.train("a")
    base.train()
    base(**inputs(), labels=torch.tensor([0, 1, 1, 0])).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    own = {id(p) for p in trained}
    assert all(p.grad is None for p in base.parameters() if id(p) not in own)


def test_dropout_of_a_prefix_acts_while_training_only() -> None:
    base = model()
    for module in base.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    adapters = with_adapters(base, a="prefix_tuning[prefix_length=3,dropout=0.5]")
    adapters.activate("a")
    assert torch.equal(hidden(base), hidden(base))
    base.train()
    assert not torch.equal(hidden(base), hidden(base))


def test_the_attention_s_own_dropout_follows_the_model_s_mode() -> None:
    base = model()
    for module in base.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in base.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    with_adapters(base, a=NETWORK).activate("a")
    assert torch.equal(hidden(base), hidden(base))
    base.train()
    assert not torch.equal(hidden(base), hidden(base))
    base.eval()
    assert torch.equal(hidden(base), hidden(base))


def test_attention_that_has_no_room_for_a_prefix_is_refused_by_name() -> None:
    base = model()
    with_adapters(base, a=NETWORK).activate("a")
    base.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UnsupportedError, match="flash_attention_2"):
        hidden(base, {"input_ids": inputs()["input_ids"]})


class Wrapper:
    """What another library puts before an attention."""

    def __init__(self, module: Any) -> None:
        self.forward = module.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)


def test_an_attention_that_another_library_has_wrapped_is_refused_by_name() -> None:
    base = model()
    attention = base.encoder.layer[1].attention.self
    attention.forward = Wrapper(attention)
    adapters = attach(base)
    with pytest.raises(UnsupportedError, match=r"encoder\.layer\.1\.attention\.self"):
        adapters.add("a", NETWORK)
    assert adapters.names == ()


def test_an_attention_that_would_ignore_its_prefix_says_so() -> None:
    base = model()
    with_adapters(base, a=NETWORK).activate("a")
    attention = type(base.encoder.layer[0].attention.self)
    ignoring = type("Ignoring", (attention,), {"forward": lambda self, x, *args, **kwargs: (x, None)})
    other = model()
    other.encoder.layer[0].attention.self.__class__ = ignoring
    adapters = with_adapters(other, a=NETWORK)
    adapters.activate("a")
    with pytest.raises(UnsupportedError, match="Ignoring does not call the attention function"):
        hidden(other)


@pytest.mark.parametrize("name", ["vit", "modernbert", "deberta"])
def test_positions_that_cannot_be_shifted_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match="shifted"):
        attach(family(name)).add("a", SHIFTED)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prefix_tuning[prefix_length=0]", "prefix_length is 0"),
        ("prefix_tuning[bottleneck_size=0]", "bottleneck_size is 0"),
        ("prefix_tuning[non_linearity=rleu]", "unknown"),
        ("prefix_tuning[dropout=1.0]", r"\[0, 1\)"),
        ("prefix_tuning[positions=elsewhere]", "'kept' or 'shifted' or 'adapters'"),
        ("prefix_tuning[spare=-1]", "spare"),
        ("prefix_tuning[leave_out=[0,1,2]]", "no attention of the model gets a prefix"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        attach(model()).add("a", text)


def layers(base: PreTrainedModel, leave_out: Sequence[int]) -> Tensor:
    adapters = attach(base)
    adapters.add("a", PrefixTuningConfig(flat=True, prefix_length=3, init_weights_seed=1, leave_out=tuple(leave_out)))
    adapters.activate("a")
    found = hidden(base)
    adapters.detach()
    return found


def test_layers_that_are_left_out_have_no_prefix() -> None:
    base = model()
    adapters = attach(base)
    adapters.add("a", "prefix_tuning[leave_out=[0,2]]")
    assert {key.split(".")[2] for key in adapters.adapter("a").tensors if key.startswith("encoder")} == {"1"}
    adapters.activate("a")
    assert ["forward" in vars(layer.attention.self) for layer in base.encoder.layer] == [False, True, False]
    adapters.detach()
    assert not torch.allclose(layers(base, [0]), layers(base, [1]), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("text", [NETWORK, GATED, COUNTED, SHIFTED])
def test_a_compiled_model_follows_every_activation_without_a_graph_break(name: str, text: str) -> None:
    if text == SHIFTED and name.startswith("deberta"):
        text = NETWORK
    base = family(name)
    batch = family_inputs(base)
    adapters = with_adapters(base, a=text)
    torch._dynamo.reset()
    compiled = torch.compile(base, backend="eager", fullgraph=True)
    for active in (None, "a", None, "a"):
        adapters.activate(active)
        with torch.no_grad():
            assert torch.allclose(compiled(**batch).last_hidden_state, answers(base, batch), atol=1e-6), active
