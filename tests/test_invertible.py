"""Invertible adapters: the inverse undoes them, and stands in front of output embeddings where it should."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from make_further_cases import with_head
from safetensors.torch import load_file, save_file
from tiny_models import family, hidden, inputs, model, with_adapters
from torch.nn.functional import linear
from transformers import PreTrainedModel

from adapterhub.adapter import Adapter, Base, Manifest
from adapterhub.composition import Average, BatchSplit, Parallel, Split, Stack
from adapterhub.converters import adapters as adapters_format
from adapterhub.converters import read, write
from adapterhub.errors import FormatError, UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach
from adapterhub.methods import (
    BottleneckConfig,
    EmbeddingOp,
    InvertibleConfig,
    LanguageModelHeadConfig,
    configs_from_json,
    describe,
    parse_method,
)
from adapterhub.methods.invertible import INTERFACES


def coupling(adapters: AdapterSet, name: str = "x") -> EmbeddingOp:
    """The operation of an adapter behind the embeddings."""
    (found,) = adapters._loaded.binding(adapters._loaded[name]).embeddings.values()
    return found


@given(
    st.builds(
        InvertibleConfig,
        inv_reduction_factor=st.floats(0.1, 100),
        non_linearity=st.sampled_from(["relu", "gelu", "tanh"]),
        before_output=st.booleans(),
        init_weights_seed=st.none() | st.integers(0, 2**31),
    )
)
def test_a_configuration_comes_back_from_its_json_and_from_its_string(config: InvertibleConfig) -> None:
    assert configs_from_json([config.to_json()]) == (config,)
    assert parse_method(describe([config])) == (config,)


@pytest.mark.parametrize(
    ("names", "activation"),
    [(("seq_bn_inv", "pfeiffer+inv"), "relu"), (("double_seq_bn_inv", "houlsby+inv"), "swish")],
)
def test_a_language_adapter_is_a_bottleneck_and_an_invertible_one(names: tuple[str, str], activation: str) -> None:
    one, other = map(parse_method, names)
    assert one == other
    assert [type(part) for part in one] == [BottleneckConfig, InvertibleConfig]
    assert one[1] == InvertibleConfig(non_linearity=activation)
    changed = parse_method(f"{names[1]}[reduction_factor=8,inv_reduction_factor=4,non_linearity=gelu]+layer_norm")
    assert changed[0] == dataclasses.replace(one[0], reduction_factor=8, non_linearity="gelu")  # type: ignore[type-var]
    assert changed[1] == InvertibleConfig(inv_reduction_factor=4, non_linearity="gelu")


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "clip", "whisper", "gemma3_text"])
def test_the_inverse_undoes_the_coupling(name: str) -> None:
    adapters = with_adapters(family(name), x="invertible[inv_reduction_factor=3,non_linearity=gelu]")
    op = coupling(adapters)
    (path,) = adapters._loaded.binding(adapters._loaded["x"]).embeddings
    width = next(place.width for place in adapters._ground.layout.embeddings if place.path == path)
    h = torch.randn(3, 5, width, dtype=torch.float64)
    adapters._loaded["x"].bank.double()
    assert not torch.allclose(op(h), h, atol=0.1)
    assert torch.allclose(op.inverse(op(h)), h, atol=1e-12)
    assert torch.allclose(op(op.inverse(h)), h, atol=1e-12)


def test_it_computes_its_equation_behind_the_whole_embedding_module() -> None:
    base = model()
    adapters = with_adapters(base, x="invertible[non_linearity=tanh]")
    t = {key.removeprefix("embeddings.invertible."): p for key, p in adapters.adapter("x").tensors.items()}

    def net(name: str, half: torch.Tensor) -> torch.Tensor:
        inner = linear(half, t[f"{name}.down.weight"], t[f"{name}.down.bias"]).tanh()
        return linear(inner, t[f"{name}.up.weight"], t[f"{name}.up.bias"])

    with torch.no_grad():
        x = base.embeddings(inputs()["input_ids"])
        y1 = x[..., :16] + net("F", x[..., 16:])
        expected = torch.cat((y1, x[..., 16:] + net("G", y1)), dim=-1)
        adapters.activate("x")
        assert torch.allclose(base.embeddings(inputs()["input_ids"]), expected, atol=1e-6)
    assert t["F.down.weight"].shape == (8, 16)


def test_odd_widths_are_divided_and_put_together_again() -> None:
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 4,
        "vocab_size": 100,
    }
    base = BertModel(BertConfig(hidden_size=7, **sizes)).eval()
    op = coupling(with_adapters(base, x="invertible[inv_reduction_factor=1]"))
    h = torch.randn(2, 3, 7)
    assert torch.allclose(op.inverse(op(h)), h, atol=1e-5)


def language_logits(base: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = base(**inputs()).logits
    return found


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "albert", "gpt2", "llama", "qwen2", "modernbert"])
@pytest.mark.parametrize("before_output", [True, False])
def test_the_inverse_stands_before_output_embeddings_if_asked_or_in_families_with_an_interface(
    name: str, before_output: bool
) -> None:
    base = with_head(name)
    adapters = with_adapters(base, x=f"invertible[before_output={str(before_output).lower()}]")
    seen: list[torch.Tensor] = []
    output = base.get_output_embeddings()
    output.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    adapters.activate("x")
    found = language_logits(base)
    wanted = before_output or name in INTERFACES
    h = coupling(adapters).inverse(seen[0]) if wanted else seen[0]
    with torch.no_grad():
        assert torch.allclose(found, type(output).forward(output, h), atol=1e-5)
    assert wanted == (not torch.allclose(h, seen[0], atol=1e-3))


def test_a_model_without_output_embeddings_and_one_behind_detach_are_left_alone() -> None:
    for base in (model(), with_head("bert")):
        before = {name: set(module.__dict__) for name, module in base.named_modules()}
        adapters = with_adapters(base, x="seq_bn_inv[before_output=true]")
        adapters.activate("x")
        adapters.detach()
        assert {name: set(module.__dict__) for name, module in base.named_modules()} == before


def test_a_head_of_its_own_has_the_inverse_in_front_of_its_last_layer() -> None:
    base = model()
    adapters = with_adapters(base, x="invertible+masked_lm_head")
    adapters.activate("x")
    with_inverse = language_logits(base)
    made = adapters.adapter("x")
    head = made.config[1]
    assert isinstance(head, LanguageModelHeadConfig)
    config = (made.config[0], dataclasses.replace(head, inverts=False))
    adapters.load(dataclasses.replace(made, config=config), name="y", set_active=True)
    assert not torch.allclose(language_logits(base), with_inverse, atol=1e-3)


def test_gradients_reach_both_nets_and_a_copy_has_its_own() -> None:
    base = with_head("bert")
    adapters = with_adapters(base, x="seq_bn_inv[before_output=true]")
    trained = adapters.train("x")
    base(**inputs()).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    twin = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(1.0)
    assert not torch.allclose(language_logits(twin), language_logits(base), atol=1e-2)


def test_a_compiled_language_model_has_the_inverse_too() -> None:
    base = with_head("bert")
    adapters = with_adapters(base, x="invertible[before_output=true]")
    torch._dynamo.reset()
    compiled: Any = torch.compile(base, backend="eager", fullgraph=True)
    for setup in ("x", None, "x"):
        adapters.activate(setup)
        with torch.no_grad():
            assert torch.allclose(compiled(**inputs()).logits, language_logits(base), atol=1e-5)


@pytest.fixture
def languages() -> AdapterSet:
    return with_adapters(
        with_head("bert"),
        a="invertible[before_output=true]",
        b="seq_bn_inv[before_output=true]",
        c="seq_bn",
        d="invertible",
    )


def test_rows_of_a_batch_have_each_its_inverse(languages: AdapterSet) -> None:
    base = languages.model
    alone = {}
    for name in ("a", "b", "c"):
        with languages.using(name):
            alone[name] = language_logits(base)
    plain = language_logits(base)
    with languages.per_row(["a", "b", None, "c"]):
        expected = torch.stack([alone["a"][0], alone["b"][1], plain[2], alone["c"][3]])
        assert torch.allclose(language_logits(base), expected, atol=1e-5)
    with languages.using(BatchSplit("b", "a", batch_sizes=[1, 3])):
        assert torch.allclose(language_logits(base), torch.cat([alone["b"][:1], alone["a"][1:]]), atol=1e-5)
    with languages.using(Parallel("a", "c")):
        assert torch.allclose(language_logits(base), torch.cat([alone["a"], alone["c"]]), atol=1e-5)
    with languages.using(Split("a", "a", splits=[4, 5])):
        assert torch.allclose(language_logits(base), alone["a"], atol=1e-5)


def test_a_stack_is_undone_in_the_order_from_its_end(languages: AdapterSet) -> None:
    languages.activate(Stack("a", "b"))
    op = languages._installation.plan.forwards
    stacked = [forward for _, forward in op if type(forward).__name__ == "InverseForward"]
    h = torch.randn(2, 3, 32)
    a, b = coupling(languages, "a"), coupling(languages, "b")
    with torch.no_grad():
        assert torch.allclose(stacked[0].op.inverse(b(a(h))), h, atol=1e-5)


def test_what_has_no_inverse_is_named(languages: AdapterSet) -> None:
    languages.activate(Average("a", "b"))
    with pytest.raises(UnsupportedError, match="no inverse"):
        language_logits(languages.model)
    with pytest.raises(UnsupportedError, match="all or none"):
        languages.activate(Stack("a", "d"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("invertible[inv_reduction_factor=20]", "leaves nothing of 16"),
        ("invertible[inv_reduction_factor=0]", "between 1/64"),
        ("invertible[non_linearity=rleu]", "unknown"),
        ("seq_bn_inv+invertible", "claim embeddings.invertible"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        attach(model()).add("x", text)
    with pytest.raises(UnsupportedError, match="prelu"):
        parse_method("invertible[non_linearity=prelu]")


# ---- files ---------------------------------------------------------------------------------------------------------


def folder(tmp_path: Path, **changes: Any) -> Path:
    """A copy of a folder with an invertible adapter; changes of its document, None takes a field out."""
    path = tmp_path / "copy"
    shutil.copytree(GOLDEN.case("a-bertvar-inv_nice_rf4").adapter, path)
    document = json.loads((path / "adapter_config.json").read_text())
    config = document["config"] | changes.pop("config", {})
    document = {key: value for key, value in {**document, **changes, "config": config}.items() if value is not None}
    document["config"] = {key: value for key, value in config.items() if value is not None}
    (path / "adapter_config.json").write_text(json.dumps(document))
    return path


NESTED = {"block_type": "nice", "non_linearity": "gelu", "reduction_factor": 8}
VERSION_1 = {"inv_adapter": None, "inv_adapter_reduction_factor": None, "invertible_adapter": NESTED}


@pytest.mark.parametrize(
    ("version", "before_output"), [("adapters.1.3.0", False), ("adapters.0.1.0", False), ("3.2.1", True), (None, True)]
)
def test_files_of_adapter_transformers_have_the_inverse_before_output_embeddings(
    version: str | None, before_output: bool, tmp_path: Path
) -> None:
    path = folder(tmp_path, version=version)
    config = read(path).config[1]
    assert config == InvertibleConfig(inv_reduction_factor=8, before_output=before_output)
    again = Path(write(read(path), tmp_path / "again", format="adapters"))
    assert json.loads((again / "adapter_config.json").read_text()) == json.loads(
        (path / "adapter_config.json").read_text()
    )


def test_version_1_had_an_activation_of_its_own_which_is_kept(tmp_path: Path) -> None:
    path = folder(tmp_path, version=None, config=VERSION_1)
    adapter = read(path)
    assert adapter.config[1] == InvertibleConfig(inv_reduction_factor=8, non_linearity="gelu_new", before_output=True)
    assert isinstance(adapter.config[0], BottleneckConfig)
    assert adapter.config[0].non_linearity == "relu"
    again = Path(write(adapter, tmp_path / "again", format="adapters"))
    written, before = (json.loads((at / "adapter_config.json").read_text()) for at in (again, path))
    assert written == before


def test_names_of_version_1_are_read_and_written_back(tmp_path: Path) -> None:
    path = folder(tmp_path, version=None, type="text_lang", config=VERSION_1)
    weights = path / "adapter.safetensors"
    old = {
        key.replace("invertible_adapters", "invertible_lang_adapters").replace(
            ".output.adapters.", ".output.layer_text_lang_adapters."
        ): tensor
        for key, tensor in load_file(weights).items()
    }
    save_file(old, weights)
    adapter = read(path)
    assert adapter.tensors.keys() == read(GOLDEN.case("a-bertvar-inv_nice_rf4").adapter).tensors.keys()
    again = Path(write(adapter, tmp_path / "again", format="adapters"))
    assert load_file(again / "adapter.safetensors").keys() == old.keys()


@pytest.mark.parametrize(
    "config",
    [
        {"invertible_adapter": NESTED},
        VERSION_1 | {"invertible_adapter": "nice"},
        {"inv_adapter": "mystery"},
        {"inv_adapter": 3},
        {"inv_adapter_reduction_factor": None},
        {"inv_adapter_reduction_factor": "2"},
    ],
)
def test_a_fault_in_the_document_is_named(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"adapter_config\.json"):
        read(folder(tmp_path, config=config))


@pytest.mark.parametrize(
    "text",
    [
        "seq_bn_inv",
        "double_seq_bn_inv[reduction_factor=4]",
        "compacter[reduction_factor=4]+invertible[non_linearity=gelu]",
        "seq_bn+invertible[non_linearity=gelu]",
        "seq_bn+lora+invertible",
        "invertible",
        "loreft[r=2]+seq_bn_inv[init_weights_seed=3]",
    ],
)
def test_an_adapter_made_here_survives_the_format(text: str) -> None:
    made = with_adapters(model(), x=text).adapter("x")
    again = adapters_format.decode(adapters_format.encode(made))
    assert again.config == made.config
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in made.tensors.items())


@pytest.mark.parametrize(("name", "says"), [("bert", "before_output=false"), ("vit", "no invertible adapters for vit")])
def test_what_the_format_cannot_say_is_refused(name: str, says: str) -> None:
    base = family(name)
    made = with_adapters(base, x="invertible[before_output=true]").adapter("x")
    with pytest.raises(UnsupportedError, match=r"no invertible|of its own alone") as raised:
        adapters_format.encode(made)
    assert says in str(raised.value)


def test_hidden_states_follow_an_invertible_adapter_alone() -> None:
    base = model()
    before = hidden(base)
    adapters = with_adapters(base, x="invertible")
    adapters.activate("x")
    assert not torch.allclose(hidden(base), before, atol=1e-2)
    alone = Adapter(
        adapters.adapter("x").config, adapters.adapter("x").tensors, Manifest(name="x", base=Base(architecture="bert"))
    )
    document = adapters_format.encode(alone).documents["adapter_config.json"]
    assert (document["config"]["mh_adapter"], document["config"]["output_adapter"]) == (False, False)
