"""Every row describes its models: what it names is there, its sites obey the law, adapters live on all of them.

The law of a site: what its output module gives and the residual stream that enters it, added, is what the model goes on
with. Where a norm follows, it gets the sum; in a sandwich the sum is formed behind the norm.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES
from make_former_names import template
from tiny_models import answers, family, family_inputs, randomise
from torch import nn
from transformers import PreTrainedModel

from adapterhub.architectures import ARCHITECTURES, Architecture, by_model_type, by_name, from_json, to_json
from adapterhub.errors import SchemaError, UnsupportedError
from adapterhub.loader import attach
from adapterhub.loader.layout import Ground, survey
from adapterhub.sites import Site

FORMER = json.loads((Path(__file__).parent / "data" / "former-names.json").read_text("utf-8"))
"""Family → names of its parameters in transformers 4.57.6 with `{i}` for indices; see tests/recipes/."""

EXACT = 1e-5
"""Adding in another order may round differently."""

BOTTLENECKS = "double_seq_bn[cross_adapter=true,reduction_factor=4]"

# Whole models, models with a head, and parts of them: family, class, number of layers, sites, attentions.
CLASSES = (
    ("bert", "BertForSequenceClassification", 2, 4, 2),
    ("roberta", "RobertaForMaskedLM", 2, 4, 2),
    ("albert", "AlbertForTokenClassification", 4, 8, 4),
    ("electra", "ElectraForPreTraining", 2, 4, 2),
    ("deberta-v2", "DebertaV2ForQuestionAnswering", 2, 4, 2),
    ("modernbert", "ModernBertForSequenceClassification", 2, 4, 2),
    ("gpt2", "GPT2LMHeadModel", 2, 4, 2),
    ("llama", "LlamaForCausalLM", 2, 4, 2),
    ("gemma3_text", "Gemma3ForCausalLM", 2, 4, 2),
    ("t5", "T5ForConditionalGeneration", 5, 13, 8),
    ("t5", "T5ForSequenceClassification", 5, 13, 8),
    ("t5", "T5EncoderModel", 2, 4, 2),
    ("mt5", "MT5EncoderModel", 2, 4, 2),
    ("bart", "BartForConditionalGeneration", 5, 13, 8),
    ("bart", "BartForCausalLM", 2, 6, 4),
    ("mbart", "MBartForCausalLM", 2, 6, 4),
    ("whisper", "WhisperForConditionalGeneration", 5, 13, 8),
    ("whisper", "WhisperForAudioClassification", 2, 4, 2),
    ("vit", "ViTForImageClassification", 2, 4, 2),
    ("beit", "BeitForImageClassification", 2, 4, 2),
    ("clip_text_model", "CLIPTextModelWithProjection", 2, 4, 2),
    ("clip_vision_model", "CLIPVisionModelWithProjection", 2, 4, 2),
    ("clip", "CLIPForImageClassification", 3, 6, 3),
)
# transformers counts the decoder's cache by the encoder's layers in these.
EQUAL_LAYERS = ("BartForCausalLM", "MBartForCausalLM")

# Bare model: layers, sites, attentions, linear maps with a role.
COUNTS = {
    "bert": (2, 4, 2, 12),
    "roberta": (2, 4, 2, 12),
    "xlm-roberta": (2, 4, 2, 12),
    "distilbert": (2, 4, 2, 12),
    "albert": (4, 8, 4, 24),
    "electra": (2, 4, 2, 12),
    "deberta": (2, 4, 2, 8),
    "deberta-v2": (2, 4, 2, 12),
    "xmod": (2, 4, 2, 12),
    "xmod-pre-norm": (2, 4, 2, 12),
    "bert-generation": (2, 4, 2, 12),
    "modernbert": (2, 4, 2, 8),
    "gpt2": (2, 4, 2, 8),
    "gptj": (2, 4, 2, 12),
    "llama": (2, 4, 2, 14),
    "mistral": (2, 4, 2, 14),
    "qwen2": (2, 4, 2, 14),
    "qwen3": (2, 4, 2, 14),
    "gemma2": (2, 4, 2, 14),
    "gemma3_text": (2, 4, 2, 14),
    "phi": (2, 4, 2, 12),
    "t5": (5, 13, 8, 42),
    "mt5": (5, 13, 8, 47),
    "bart": (5, 13, 8, 42),
    "mbart": (5, 13, 8, 42),
    "plbart": (5, 13, 8, 42),
    "whisper": (5, 13, 8, 42),
    "vit": (2, 4, 2, 12),
    "beit": (2, 4, 2, 12),
    "clip": (5, 10, 5, 30),
    "clip_text_model": (2, 4, 2, 12),
    "clip_vision_model": (2, 4, 2, 12),
    "encoder-decoder": (4, 10, 6, 32),
    "encoder-decoder-gpt2": (4, 8, 6, 20),
    "encoder-decoder-roberta": (6, 14, 8, 44),
    "encoder-decoder-electra": (4, 10, 6, 32),
}


APART = {"gemma3"}
"""Rows of models that read images and text, whose tiny models are in test_images_and_text.py."""


def test_every_row_has_a_tiny_model() -> None:
    rows = {row.name for row in ARCHITECTURES} - APART
    assert rows == {one.row for one in FAMILIES.values()} == {*FORMER} - {*VARIANTS}
    assert COUNTS.keys() == FAMILIES.keys()


VARIANTS = FAMILIES.keys() - {row.name for row in ARCHITECTURES}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bare_model_has_the_places_that_its_row_describes(name: str) -> None:
    layout = survey(family(name)).layout
    assert layout.architecture == FAMILIES[name].row
    named = sum(bool(linear.roles) for linear in layout.linears)
    assert (layout.layers, len(layout.sites), len(layout.attentions), named) == COUNTS[name]
    assert all(attention.heads * attention.head_size > 0 for attention in layout.attentions)
    assert len({site.path for site in layout.sites}) == len(layout.sites)


@pytest.mark.parametrize(("name", "cls", "layers", "sites", "attentions"), CLASSES, ids=lambda x: str(x))
def test_models_with_heads_and_parts_of_models_have_the_same_paths(
    name: str, cls: str, layers: int, sites: int, attentions: int
) -> None:
    found = survey(with_head(name, cls)).layout
    assert (found.layers, len(found.sites), len(found.attentions)) == (layers, sites, attentions)
    whole = {site.path for site in survey(family(name)).layout.sites}
    assert {site.path for site in found.sites} <= whole


def with_head(name: str, cls: str) -> PreTrainedModel:
    return family(name, cls, **({"decoder_layers": 2} if cls in EQUAL_LAYERS else {}))


@pytest.mark.parametrize(("name", "cls"), [("bart", "BartForCausalLM"), ("mbart", "MBartForCausalLM")])
def test_a_head_answers_on_a_decoder_in_a_wrapper(name: str, cls: str) -> None:
    base = with_head(name, cls)
    batch = family_inputs(base)
    before = answers(base, batch)
    adapters = attach(base)
    adapters.add("x", "seq_bn+classification_head[num_labels=3,pooling=first]", set_active=True)
    assert base(**batch).logits.shape == (2, 3)
    adapters.activate(None)
    assert torch.equal(answers(base, batch), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_output_and_residual_stream_add_up_to_what_the_model_goes_on_with(name: str) -> None:
    check_law(family(name))


@torch.no_grad()
def check_law(base: PreTrainedModel, row: Architecture | None = None) -> None:
    ground = survey(base, row)
    record = Record(ground)
    base(**family_inputs(base))
    checked = 0
    for site in ground.layout.sites:
        for turn in range(record.passes(site)):
            gone_on = record.after(site, turn)
            expected = record.sum_at(site, turn)
            assert any(x.shape == expected.shape and close(x, expected) for x in gone_on), f"{site.path}, pass {turn}"
            checked += 1
    assert checked >= len(ground.layout.sites)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= EXACT * max(1.0, float(b.abs().max())))


class Record:
    """What went into and came out of every module, in the order of the calls."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.inputs: dict[str, list[tuple[int, list[Any]]]] = defaultdict(list)
        self.outputs: dict[str, list[tuple[int, torch.Tensor]]] = defaultdict(list)
        self.clock = 0
        for path, module in ground.modules.items():
            module.register_forward_pre_hook(
                lambda _, args, kwargs, p=path: self.enter(p, args, kwargs), with_kwargs=True
            )
            module.register_forward_hook(lambda _, args, output, p=path: self.leave(p, output))

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.clock += 1
        self.inputs[path].append((self.clock, [*args, *kwargs.values()]))

    def leave(self, path: str, output: Any) -> None:
        self.clock += 1
        self.outputs[path].append((self.clock, output[0] if isinstance(output, tuple) else output))

    def passes(self, site: Site) -> int:
        """How often the stream went through the site."""
        return len(self.inputs[site.residual]) if site.argument == 0 else len(self.outputs[site.output])

    def output(self, site: Site, turn: int) -> tuple[int, torch.Tensor]:
        """When d was there, and d."""
        together = [other for other in self.ground.layout.sites if other.output == site.output]
        return self.outputs[site.output][turn * len(together) + together.index(site)]

    def sum_at(self, site: Site, turn: int) -> torch.Tensor:
        """Return d + x, or x + LN(d) in a sandwich."""
        when, d = self.output(site, turn)
        entered = self.inputs[site.stream or site.residual][turn][1][0 if site.stream else site.argument]
        if site.beside is not None:
            entered = entered + self.outputs[site.beside][turn][1]
        own = site.inner and self.own(site)
        if own is not None and any(x is d for _, (x, *_) in self.inputs[own]):
            d = next(y for at, y in self.outputs[own] if at > when)
        found: torch.Tensor = d + entered
        return found

    def own(self, site: Site) -> str | None:
        """Return the norm of the site's own layer where `inner` is that of the last one."""
        if site.inner is None:
            return None
        layers = self.ground.layout.blocks
        last, here = (
            next(block.path for block in layers if path.startswith(f"{block.path}."))
            for path in (site.inner, site.path)
        )
        return here + site.inner.removeprefix(last)

    def after(self, site: Site, turn: int) -> Iterator[torch.Tensor]:
        """Yield what may be the sum: the input of the norm that follows, or of any module that is called later."""
        when = self.output(site, turn)[0]
        if site.norm is not None:
            yield from (args[0] for at, args in self.inputs[site.norm] if at > when)
            return
        for calls in self.inputs.values():
            yield from (x for at, args in calls if at > when for x in args if isinstance(x, torch.Tensor))
        block = next(block for block in self.ground.layout.blocks if site.path.startswith(f"{block.path}."))
        yield from (x for at, x in self.outputs[block.path] if at > when)
        if site.beside is None and any(other.beside == site.output for other in self.ground.layout.sites):
            # The sublayer beside it reads the sum as its own stream.
            other = next(other for other in self.ground.layout.sites if other.beside == site.output)
            yield self.inputs[other.residual][turn][1][0] + self.outputs[site.output][turn][1]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_norm_of_a_site_is_of_its_own_layer_and_the_inner_one_of_the_last(name: str) -> None:
    layout = survey(family(name)).layout
    for site in layout.sites:
        block = next(block for block in layout.blocks if site.path.startswith(f"{block.path}."))
        for path in (site.output, site.residual, site.norm, site.beside, site.stream):
            assert path is None or path.startswith(f"{block.path}.")
        if site.inner is not None:
            assert site.inner.startswith(f"{layout.blocks[-1].path}.")


@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_a_row_is_the_same_after_json(row: Architecture) -> None:
    assert from_json(json.loads(json.dumps(to_json(row)))) == row


def test_a_faulty_description_tells_all_its_faults() -> None:
    data = to_json(by_name("gpt2"))
    data["layers"][0]["sublayers"][0]["argument"] = "first"
    data["layers"][0]["sublayers"][1]["role"] = "mlp"
    del data["prefixes"]
    data["colour"] = "red"
    with pytest.raises(SchemaError) as caught:
        from_json(data)
    message = str(caught.value)
    for fault in ("argument: expected a number", "role: expected one of", "prefixes: missing", "colour: unknown"):
        assert fault in message


@pytest.mark.parametrize("name", FORMER)
def test_former_names_lead_to_the_parameters_of_today_and_back(name: str) -> None:
    row = by_name(FAMILIES[name].row)
    today, former = {template(key) for key in family(name).state_dict()}, {*FORMER[name]}
    assert {row.present(key) for key in former} == today
    assert {row.past(key) for key in today} == former
    assert {row.present(key) for key in today} == today


def test_former_names_are_found_with_indices_too() -> None:
    row = by_name("vit")
    assert row.present("encoder.layer.11.attention.output.dense.weight") == "layers.11.attention.o_proj.weight"
    assert row.past("layers.11.mlp.fc1") == "encoder.layer.11.intermediate.dense"


def head_classes() -> list[tuple[str, str]]:
    rows = [row for row in ARCHITECTURES if row.name not in APART]
    return [(row.name, cls) for row in rows for head in row.heads for cls in head.classes]


@pytest.mark.parametrize(("name", "cls"), head_classes())
def test_the_layers_of_a_head_are_modules_of_its_class(name: str, cls: str) -> None:
    row = by_name(name)
    head = next(head for head in row.heads if cls in head.classes)
    modules = dict(with_head(name, cls).named_modules())
    assert all(isinstance(modules[path], nn.Linear) for path in head.linears)
    assert head.norm is None or modules[head.norm]._parameters["weight"] is not None
    assert head.pooling != "pooler" or row.pooler is not None
    bare = survey(with_head(name, cls)).bare
    inside = next(path for path, module in with_head(name, cls).named_modules() if type(module) is type(bare))
    assert inside == "" or inside in row.prefixes


@pytest.mark.parametrize("name", FAMILIES)
def test_bottlenecks_live_at_all_sites_of_a_family(name: str, tmp_path: Path) -> None:
    base = family(name)
    batch = family_inputs(base)
    before = answers(base, batch)
    modules, weights = {*base.named_modules()}, {key: x.clone() for key, x in base.state_dict().items()}
    adapters = attach(base)
    adapters.add("x", BOTTLENECKS)
    randomise(adapters, "x")
    assert len(adapters.adapter("x").tensors) == 4 * len(adapters._ground.layout.sites)
    assert torch.equal(answers(base, batch), before)
    adapters.activate("x")
    after = answers(base, batch)
    assert after.isfinite().all()
    assert (after - before).abs().max() > 1e-2
    path = adapters.save("x", tmp_path / "x.safetensors")
    assert_loads(name, path, batch, after)
    assert torch.equal(answers(pickle.loads(pickle.dumps(base)), batch), after)
    adapters.activate(None)
    assert torch.equal(answers(base, batch), before)
    adapters.detach()
    assert torch.equal(answers(base, batch), before)
    assert {*base.named_modules()} == modules
    assert all(torch.equal(x, weights[key]) for key, x in base.state_dict().items())


def assert_loads(name: str, path: Path, batch: dict[str, torch.Tensor], expected: torch.Tensor) -> None:
    """The file gives the same answers on a model made anew, its probe among them."""
    base = family(name)
    adapters = attach(base)
    adapters.load(path, set_active=True)
    assert torch.equal(answers(base, batch), expected)
    replay = adapters.replay("x")
    assert replay.difference == 0.0
    assert replay.effect is not None
    assert replay.effect > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_each_site_alone_changes_the_answer(name: str) -> None:
    base = family(name)
    batch = family_inputs(base)
    before = answers(base, batch)
    adapters = attach(base)
    adapters.add("x", BOTTLENECKS)
    whole = adapters.adapter("x")
    for site in adapters._ground.layout.sites:
        tensors = {
            key: torch.full_like(x, 0.5) if key.startswith(f"{site.path}.bottleneck_up.bias") else torch.zeros_like(x)
            for key, x in whole.tensors.items()
        }
        tensors[f"{site.path}.bottleneck_up.bias"][::2] = -0.5
        adapters.load(dataclasses.replace(whole, tensors=tensors), name="one", set_active=True, overwrite_ok=True)
        assert (answers(base, batch) - before).abs().max() > 1e-4, site.path


@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapter_whose_output_is_zero_changes_nothing_at_any_site(name: str) -> None:
    base = family(name)
    batch = family_inputs(base)
    before = answers(base, batch)
    adapters = attach(base)
    adapters.add("x", BOTTLENECKS)
    whole = adapters.adapter("x")
    tensors = {key: torch.zeros_like(x) if "_up." in key else torch.ones_like(x) for key, x in whole.tensors.items()}
    adapters.load(dataclasses.replace(whole, tensors=tensors), name="none", set_active=True)
    assert close(answers(base, batch), before)


@pytest.mark.parametrize("name", ["vit", "beit", "gptj", "albert", "bert", "bart"])
def test_a_pass_that_was_interrupted_leaves_nothing_to_the_next(name: str) -> None:
    base = family(name)
    batch = family_inputs(base)
    adapters = attach(base)
    adapters.add("x", "seq_bn[reduction_factor=4]", set_active=True)
    randomise(adapters, "x")
    adapters.add("p", "par_bn[mh_adapter=true,reduction_factor=4]")
    randomise(adapters, "p")
    for adapter in ("x", "p"):
        adapters.activate(adapter)
        expected = answers(base, batch)
        narrow = adapters._ground.modules[survey_linear(adapters._ground)]
        original = narrow.__dict__.get("forward")
        narrow.__dict__["forward"] = Broken()
        with pytest.raises(KeyboardInterrupt):
            answers(base, batch)
        del narrow.__dict__["forward"]
        if original is not None:
            narrow.__dict__["forward"] = original
        assert torch.equal(answers(base, batch), expected)


class Broken:
    """A forward pass that somebody ends with Ctrl-C."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt


def survey_linear(ground: Ground) -> str:
    """Return the linear map in the middle of the last feed-forward block."""
    return next(linear.path for linear in reversed(ground.layout.linears) if "intermediate" in linear.roles)


def test_a_row_refuses_a_model_with_other_settings() -> None:
    with pytest.raises(UnsupportedError, match=r"adapter_layer_norm=True.*'xmod'"):
        survey(family("xmod", adapter_layer_norm=True))


def test_a_model_that_lacks_a_named_module_is_refused_by_its_path() -> None:
    row = by_name("bert")
    stack = row.layers[0]
    attention = dataclasses.replace(stack.attentions[0], query="attention.self.q")
    wrong = dataclasses.replace(row, layers=(dataclasses.replace(stack, attentions=(attention,)),))
    with pytest.raises(UnsupportedError, match=r"encoder\.layer\.0\.attention\.self\.q'"):
        survey(family("bert"), wrong)


@pytest.mark.parametrize("name", ["modernbert", "gemma2", "gemma3_text"])
def test_a_residual_connection_that_the_model_makes_cannot_be_left_out(name: str) -> None:
    adapters = attach(family(name))
    with pytest.raises(UnsupportedError, match="original_ln_after"):
        adapters.add("x", "adapter_plus")


def test_an_unknown_family_can_be_described_by_its_user() -> None:
    config = transformers.MPNetConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    base = transformers.MPNetModel(config).eval()
    with pytest.raises(UnsupportedError, match="mpnet"):
        by_model_type("mpnet")
    row = by_name("bert")
    stack = row.layers[0].without(("crossattention",))
    names: dict[str, Any] = {"query": "attention.attn.q", "key": "attention.attn.k", "value": "attention.attn.v"}
    attention = dataclasses.replace(stack.attentions[0], path="attention.attn", output="attention.attn.o", **names)
    sublayer = dataclasses.replace(
        stack.sublayers[0], path="attention", output="attention.dropout", norm="attention.LayerNorm"
    )
    mine = dataclasses.replace(
        row,
        name="mpnet",
        model_types=("mpnet",),
        layers=(
            dataclasses.replace(
                stack,
                sublayers=(sublayer, stack.sublayers[1]),
                attentions=(attention,),
                norms=("attention.LayerNorm", "output.LayerNorm"),
            ),
        ),
        heads=(),
    )
    adapters = attach(base, architecture=from_json(to_json(mine)))
    adapters.add("x", BOTTLENECKS, set_active=True)
    assert adapters.summary().total("x") > 0


WRONG = (
    ("bert", 0, {"norm": "output.LayerNorm"}),
    ("bert", 1, {"residual": "attention"}),
    ("gpt2", 0, {"residual": "attn"}),
    ("gpt2", 1, {"residual": "ln_1"}),
    ("gptj", 1, {"beside": None}),
    ("llama", 1, {"residual": "input_layernorm"}),
    ("t5", 1, {"residual": "layer.0.layer_norm"}),
    ("vit", 1, {"residual": "layernorm_before"}),
    ("beit", 0, {"output": "attention.o_proj"}),
    ("gemma2", 0, {"inner": None}),
    ("modernbert", 0, {"stream": None}),
    ("xmod-pre-norm", 1, {"residual": "intermediate", "argument": 0}),
)


@pytest.mark.parametrize(("name", "number", "change"), WRONG)
def test_the_law_finds_a_row_that_is_wrong(name: str, number: int, change: dict[str, Any]) -> None:
    row = by_name(FAMILIES[name].row)
    stack = row.layers[0].without(row.layers[0].may_lack)
    parts = list(stack.sublayers)
    parts[number] = dataclasses.replace(parts[number], **change)
    wrong = dataclasses.replace(row, layers=(dataclasses.replace(stack, sublayers=tuple(parts)), *row.layers[1:]))
    with pytest.raises(AssertionError):
        check_law(family(name), wrong)
