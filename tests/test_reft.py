"""ReFT: the equation, written out again; which positions it acts at; the rotation, which stays one."""

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
from test_reference_outputs import base_of
from tiny_models import family, family_inputs, generated, hidden, inputs, model, with_adapters
from torch import nn
from torch.nn.utils import parametrizations

from adapterhub import Stack
from adapterhub.converters import adapters as adapters_format
from adapterhub.converters import read
from adapterhub.errors import FormatError, UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach
from adapterhub.methods import ReftConfig, configs_from_json, describe, parse_method
from adapterhub.methods.reft import Reft, Rotation

WIDTH = 32


@given(
    st.builds(
        ReftConfig,
        layers=st.just("all") | st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True).map(tuple),
        prefix_positions=st.integers(0, 5),
        suffix_positions=st.integers(0, 5),
        r=st.integers(1, 8),
        orthogonality=st.booleans(),
        tied_weights=st.booleans(),
        subtract_projection=st.booleans(),
        non_linearity=st.none() | st.sampled_from(["relu", "gelu"]),
        dropout=st.floats(0, 0.9),
        positions=st.sampled_from(["own", "adapters"]),
    )
)
def test_a_configuration_comes_back_from_its_json_and_from_its_string(config: ReftConfig) -> None:
    assert configs_from_json([config.to_json()]) == (config,)
    assert parse_method(describe([config])) == (config,)


def rows_of(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """R (r, width), by torch's own parametrisation where its rows are orthonormal."""
    if "projection.weight" in tensors:
        return tensors["projection.weight"]
    r, width = tensors["source.weight"].shape
    module = parametrizations.orthogonal(nn.Linear(width, r, bias=False))
    signs, rest = tensors["projection.signs"], tensors["projection.reflections"]
    original = torch.stack([torch.cat((row[:i], signs[i : i + 1], row[i:])) for i, row in enumerate(rest)])
    module.parametrizations.weight.original.data = original
    module.parametrizations.weight[0].base = tensors["projection.base"]
    found: torch.Tensor = module.weight.detach()
    return found


def edited(config: ReftConfig, tensors: dict[str, torch.Tensor], h: torch.Tensor) -> torch.Tensor:
    """One hidden state after its intervention."""
    act = {"relu": torch.relu, "tanh": torch.tanh, None: lambda x: x}[config.non_linearity]
    rows = rows_of(tensors)
    source = act(tensors["source.weight"] @ h + tensors["source.bias"])
    return h + (source - rows @ h if config.subtract_projection else source) @ rows


def by_hand(config: ReftConfig, adapters: AdapterSet, h: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Hidden states behind layer 0, position after position."""
    tensors = adapters.adapter("x").tensors
    units = [
        {key.partition(f"layer.0.{unit}.")[2]: t for key, t in tensors.items() if f"layer.0.{unit}." in key}
        for unit in config.units
    ]
    found = h.clone()
    for row, states in enumerate(h):
        kept = range(len(states)) if mask is None else mask[row].nonzero().flatten().tolist()
        first, end = kept[0], kept[-1] + 1
        for place in range(first, min(first + config.prefix_positions, len(states))):
            found[row, place] = edited(config, units[0], states[place])
        for place in range(max(0, end - config.suffix_positions), end):
            found[row, place] = edited(config, units[-1], states[place])
    return found


OPTIONS = (
    "loreft[r=3]",
    "loreft[r=2,prefix_positions=2,suffix_positions=2]",
    "noreft[r=2,prefix_positions=4,suffix_positions=4,tied_weights=true]",
    "direft[r=4,prefix_positions=0,suffix_positions=3,non_linearity=tanh]",
    "direft[prefix_positions=20,suffix_positions=1,non_linearity=relu]",
    "loreft[suffix_positions=20]",
)
MASKS = {
    "none": None,
    "right": [[1] * 7, [1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]],
    "left": [[1] * 7, [0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1]],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("text", OPTIONS)
def test_it_computes_its_equation_at_the_first_and_last_positions_that_are_no_padding(
    text: str, mask: list[list[int]] | None
) -> None:
    adapters = with_adapters(model(), x=text)
    config = adapters.adapter("x").config[0]
    op = adapters._loaded.binding(adapters._loaded["x"]).blocks["encoder.layer.0"]
    assert isinstance(config, ReftConfig)
    h = torch.randn(3, 7, WIDTH)
    given_mask = None if mask is None else torch.tensor(mask)
    with torch.no_grad():
        assert torch.allclose(op(h, given_mask, None), by_hand(config, adapters, h, given_mask), atol=1e-5)
        if given_mask is not None:
            assert torch.equal(op(h, given_mask.bool(), None), op(h, given_mask, None))


def test_a_mask_of_nothing_but_padding_breaks_nothing() -> None:
    adapters = with_adapters(model(), x=OPTIONS[1])
    op = adapters._loaded.binding(adapters._loaded["x"]).blocks["encoder.layer.0"]
    h = torch.randn(2, 7, WIDTH)
    assert torch.isfinite(op(h, torch.zeros(2, 7, dtype=torch.long), None)).all()


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding_does_not_change_what_a_text_becomes(padding: str) -> None:
    base = family("llama")
    adapters = with_adapters(base, x=OPTIONS[1])
    adapters.activate("x")
    ids, filler = torch.tensor([[11, 12, 13, 14, 15]]), torch.full((1, 4), 7)
    ones, zeros = torch.ones_like(ids), torch.zeros_like(filler)
    alone = hidden(base, {"input_ids": ids})
    order = [(ids, ones), (filler, zeros)] if padding == "right" else [(filler, zeros), (ids, ones)]
    padded_ids, mask = (torch.cat(parts, dim=1) for parts in zip(*order, strict=True))
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    padded = hidden(base, {"input_ids": padded_ids, "attention_mask": mask, "position_ids": places})
    assert torch.allclose(padded[mask.bool()], alone[0], atol=1e-4)


def test_a_mask_that_does_not_tell_padding_is_refused() -> None:
    base = model()
    adapters = with_adapters(base, x="loreft")
    adapters.activate("x")
    with pytest.raises(UsageError, match="4 dimensions"):
        base(input_ids=torch.ones(1, 3, dtype=torch.long), attention_mask=torch.zeros(1, 1, 3, 3))


# ---- the rotation --------------------------------------------------------------------------------------------------


def rotation(r: int = 4, width: int = WIDTH) -> Rotation:
    base = torch.linalg.qr(torch.randn(width, width))[0]
    return Rotation((nn.Parameter(torch.randn(r, width - 1)), torch.tensor([1.0, -1.0, -1.0, 1.0])[:r], base))


def test_the_rows_are_orthonormal_and_those_of_torch() -> None:
    made = rotation()
    rows = made()
    assert torch.allclose(rows @ rows.t(), torch.eye(4), atol=1e-5)
    names = ("projection.reflections", "projection.signs", "projection.base")
    tensors = {name: source.detach() for name, source in zip(names, made.sources, strict=True)}
    assert torch.allclose(rows, rows_of({**tensors, "source.weight": torch.zeros(4, WIDTH)}), atol=1e-6)


def test_the_rotation_is_computed_once_while_nothing_changes() -> None:
    made = rotation()
    with torch.no_grad():
        first = made()
        assert made() is first
        made.sources[0].add_(0.1)
        second = made()
        assert not torch.equal(second, first)
        made.sources[0].data.add_(0.1)  # past autograd
        assert not torch.equal(made(), second)
    assert made().requires_grad
    assert made() is not made()


def test_a_sign_counts_as_the_whole_number_in_it_as_in_torch() -> None:
    reflections, _, base = rotation().sources
    signs = torch.tensor([1.0, 0.9, -1.5, -0.2])
    rows = Rotation((reflections, signs, base))()
    assert torch.allclose(rows.norm(dim=1), torch.tensor([1.0, 0.0, 1.0, 0.0]), atol=1e-5)


def test_training_with_weight_decay_keeps_the_rows_orthonormal() -> None:
    base = model()
    adapters = with_adapters(base, x="loreft[r=3,suffix_positions=2]")
    trained = adapters.train("x")
    live = adapters._loaded["x"].bank.tensors()
    frozen = {key: p.detach().clone() for key, p in live.items() if key.endswith((".signs", ".base"))}
    assert len(trained) == len(live) - len(frozen)
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.5)
    base.train()
    for _ in range(5):
        optimizer.zero_grad()
        base(**inputs()).last_hidden_state.square().sum().backward()
        optimizer.step()
    assert all(p.grad is not None for p in trained)
    assert all(torch.equal(live[key], tensor) for key, tensor in frozen.items())
    for op in adapters._loaded.binding(adapters._loaded["x"]).blocks.values():
        assert isinstance(op, Reft)
        for unit in (op.prefix, op.suffix):
            assert isinstance(unit.projection, Rotation)
            rows = unit.projection()
            assert torch.allclose(rows @ rows.t(), torch.eye(3), atol=1e-5)


def test_half_precision_rotates_in_single() -> None:
    made = rotation()
    half = Rotation(source.detach().to(torch.bfloat16) for source in made.sources)
    assert half().dtype == torch.bfloat16
    assert torch.allclose(half().float(), made().detach(), atol=0.02)


def test_dropout_acts_on_the_whole_new_state_in_training_only() -> None:
    adapters = with_adapters(model(), x="noreft[r=2,dropout=0.5]")
    loaded = adapters._loaded["x"]
    op = adapters._loaded.binding(loaded).blocks["encoder.layer.0"]
    h = torch.randn(64, 7, WIDTH)
    still = op(h, None, None)
    assert torch.equal(op(h, None, None), still)
    loaded.bank.train()
    dropped = op(h, None, None)
    assert torch.allclose(dropped[:, 3:], h[:, 3:])
    zero = dropped[:, :3].abs() < 1e-5
    assert 0.4 < zero.float().mean() < 0.6
    assert torch.allclose(dropped[:, :3][~zero], 2 * still[:, :3][~zero], atol=1e-4)


# ---- models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_tokens_that_are_generated_with_a_cache_are_left_alone(name: str) -> None:
    base = family(name, {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[name])
    adapters = with_adapters(base, x="loreft[r=2,prefix_positions=2]", y="loreft[r=2,suffix_positions=2]")
    ids = torch.tensor([[11, 12, 13, 14], [15, 16, 17, 18]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    adapters.activate("x")
    cached = base.generate(input_ids=ids, attention_mask=mask, **settings)
    plain = base.generate(input_ids=ids, attention_mask=mask, use_cache=False, **settings)
    assert torch.equal(cached, plain)
    adapters.activate("y")
    prompt = base(input_ids=ids, attention_mask=mask, use_cache=True)
    following = base(
        input_ids=torch.tensor([[5], [6]]),
        attention_mask=torch.cat((mask, torch.ones(2, 1, dtype=torch.long)), dim=1),
        past_key_values=copy.deepcopy(prompt.past_key_values),
    ).logits
    adapters.activate(None)
    same = base(
        input_ids=torch.tensor([[5], [6]]),
        attention_mask=torch.cat((mask, torch.ones(2, 1, dtype=torch.long)), dim=1),
        past_key_values=copy.deepcopy(prompt.past_key_values),
    ).logits
    assert torch.equal(following, same)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("name", "made"), [("llama", "LlamaForCausalLM"), ("gemma3_text", "Gemma3ForCausalLM")])
def test_a_static_cache_generates_what_a_growing_one_does(name: str, made: str, attention: str) -> None:
    base = family(name, made, **({"sliding_window": 4} if name == "gemma3_text" else {}))
    base.set_attn_implementation(attention)
    adapters = with_adapters(base, x="noreft[r=2,prefix_positions=1,suffix_positions=2]")
    plain = generated(base)
    adapters.activate("x")
    found = generated(base)
    assert not torch.equal(found, plain)
    assert torch.equal(found, generated(base, cache_implementation="static"))


@pytest.mark.parametrize(
    ("name", "made"), [("t5", "T5ForConditionalGeneration"), ("bart", "BartForConditionalGeneration")]
)
@torch.no_grad()
def test_an_encoder_that_runs_alone_before_generation_is_intervened_on(name: str, made: str) -> None:
    base = family(name, made)
    adapters = with_adapters(base, x="loreft[r=2,suffix_positions=1,layers=[0,1]]")
    batch = inputs(rows=2)
    before = base.get_encoder()(**batch).last_hidden_state
    adapters.activate("x")
    encoded = base.get_encoder()(**batch)
    assert not torch.allclose(encoded.last_hidden_state, before, atol=1e-2)
    decoder = torch.tensor([[5, 6], [7, 8]])
    whole = base(**batch, decoder_input_ids=decoder).logits
    assert torch.allclose(
        base(attention_mask=batch["attention_mask"], encoder_outputs=encoded, decoder_input_ids=decoder).logits,
        whole,
        atol=1e-5,
    )


@torch.no_grad()
def test_an_encoder_decoder_generates_the_same_with_and_without_a_cache() -> None:
    base = family("bart", "BartForConditionalGeneration")
    adapters = with_adapters(base, x="loreft[r=2,prefix_positions=1]")
    settings: dict[str, Any] = {
        "max_new_tokens": 5,
        "do_sample": False,
        "eos_token_id": None,
        "decoder_start_token_id": 2,
    }
    plain = base.generate(**inputs(rows=2), **settings)
    adapters.activate("x")
    cached = base.generate(**inputs(rows=2), **settings)
    assert torch.equal(cached, base.generate(**inputs(rows=2), use_cache=False, **settings))
    assert not torch.equal(cached, plain)


@torch.no_grad()
def test_towers_of_a_model_can_be_asked_alone() -> None:
    base = family("clip")
    adapters = with_adapters(base, x="noreft[suffix_positions=2]")
    adapters.activate("x")
    batch = family_inputs(base)
    together = base(**batch)
    vision = base.vision_model(pixel_values=batch["pixel_values"]).pooler_output
    assert torch.allclose(
        base.visual_projection(vision),
        together.image_embeds * base.visual_projection(vision).norm(dim=-1, keepdim=True),
        atol=1e-4,
    )


def test_layers_are_counted_through_all_stacks() -> None:
    adapters = with_adapters(family("bart"), x="noreft[layers=[1,3]]")
    assert set(adapters._loaded.binding(adapters._loaded["x"]).blocks) == {"encoder.layers.1", "decoder.layers.1"}
    made = dataclasses.replace(adapters.adapter("x"), manifest=adapters.manifest("x"))
    again = adapters_format.decode(adapters_format.encode(made))
    assert again.config == made.config
    assert again.tensors.keys() == made.tensors.keys()


@pytest.mark.parametrize("union", [True, False], ids=["one adapter", "a stack"])
@pytest.mark.parametrize(
    ("name", "prompt", "at"),
    [
        ("bert", "prompt_tuning[prompt_length=4]", 0),
        ("deberta", "prompt_tuning[prompt_length=4]", 0),
        ("distilbert", "prompt_tuning[prompt_length=4,combine=prefix_after_bos]", 1),
        ("vit", "prompt_tuning[prompt_length=4]", 0),
        ("bert", "prompt_tuning[prompt_length=4,place=tokens]", 0),
        ("llama", "prompt_tuning[prompt_length=4,place=tokens]", 0),
        ("t5", "prompt_tuning[prompt_length=4,place=tokens]", 0),
    ],
)
def test_the_vectors_of_a_prompt_are_no_part_of_the_text(name: str, prompt: str, at: int, *, union: bool) -> None:
    reft = "noreft[layers=[1],prefix_positions=2,suffix_positions=1]"
    methods = {"x": f"{prompt}+{reft}"} if union else {"prompt": prompt, "reft": reft}
    adapters = with_adapters(family(name), **methods)
    batch = family_inputs(adapters.model)
    key = "encoder_last_hidden_state" if name == "t5" else "last_hidden_state"
    loaded = adapters._loaded["x" if union else "reft"].bank.tensors()
    adapters.activate("x" if union else Stack("prompt", "reft"))
    with torch.no_grad():
        new = adapters.model(**batch)[key]
        for tensor in (tensor for tensor_name, tensor in loaded.items() if ".reft_" in tensor_name):
            tensor.zero_()
        old = adapters.model(**batch)[key]
    changed = [(row != other).any(dim=-1).nonzero().flatten().tolist() for row, other in zip(new, old, strict=True)]
    ends = [9, 9] if name == "vit" else [8, 5]  # the last row of a text has padding
    assert changed == [[i if i < at else i + 4 for i in (0, 1, end)] for end in ends]


def test_an_adapter_with_a_prompt_is_written_with_the_positions_of_the_library_only(tmp_path: Path) -> None:
    prompt = "prompt_tuning[prompt_length=4,sees_padding=true]"
    adapters = with_adapters(model(), own=f"loreft+{prompt}", theirs=f"loreft[positions=adapters]+{prompt}")
    with pytest.raises(UnsupportedError, match=r"before a prompt.*set positions='adapters'"):
        adapters.save("own", tmp_path / "own", format="adapters")
    adapters.save("theirs", tmp_path / "theirs", format="adapters")
    assert read(tmp_path / "theirs").config == adapters.adapter("theirs").config


@pytest.mark.parametrize("text", ["noreft[layers=[0,2]]", "lora[leave_out=[1]]", "lora[leave_out=[0,1,3]]"])
@pytest.mark.parametrize("name", ["albert", "encoder-decoder-roberta"])
def test_layers_that_stand_in_groups_are_counted_without_the_model(name: str, text: str, tmp_path: Path) -> None:
    adapters = with_adapters(family(name), x=text)
    adapters.save("x", tmp_path / "x", format="adapters")
    found = read(tmp_path / "x")
    assert found.config == adapters.adapter("x").config
    assert found.tensors.keys() == adapters.adapter("x").tensors.keys()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("loreft[layers=[7]]", "layers names 7, and the model has 3 layers"),
        ("loreft[layers=[]]", "expected indices"),
        ("loreft[layers=some]", "expected 'all' or a list"),
        ("loreft[r=0]", "r is 0"),
        ("loreft[prefix_positions=-1]", "prefix_positions is -1"),
        ("loreft[dropout=1.0]", "dropout"),
        ("loreft[non_linearity=rleu]", "unknown"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        attach(model()).add("x", text)


def test_more_orthonormal_rows_than_there_can_be_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="orthonormal rows are defined for less than the 32"):
        attach(model()).add("x", "loreft[r=32]")
    attach(model()).add("x", "noreft[r=32]")
    with pytest.raises(UnsupportedError, match="prelu"):
        parse_method("loreft[non_linearity=prelu]")


# ---- files ---------------------------------------------------------------------------------------------------------


def test_a_direft_of_the_library_is_what_its_file_says_and_can_be_made_what_it_was() -> None:
    case = GOLDEN.case("a-gpt2-direft_tied")
    adapter = read(case.adapter)
    assert isinstance(adapter.config[0], ReftConfig)
    assert adapter.config[0].subtract_projection
    direft = dataclasses.replace(adapter, config=(dataclasses.replace(adapter.config[0], subtract_projection=False),))
    base = base_of(case)
    attach(base).load(direft, set_active=True)
    with torch.no_grad():
        found = base(**case.inputs())[case["output_key"]]
    assert case.close(found, case.expected()["output_before_save"])


@pytest.mark.parametrize("text", ["direft[r=2,suffix_positions=1]", "direft[orthogonality=true,tied_weights=true]"])
@torch.no_grad()
def test_a_direft_is_written_for_the_library_as_the_noreft_with_the_same_output(text: str, tmp_path: Path) -> None:
    base = model()
    adapters = with_adapters(base, x=text)
    adapters.activate("x")
    wanted = hidden(base)
    adapters.save("x", tmp_path / "x", format="adapters")
    adapters.load(tmp_path / "x", name="again", set_active=True)
    assert adapters.adapter("again").config[0].subtract_projection
    assert torch.allclose(hidden(base), wanted, atol=1e-5)


def test_a_direft_with_an_activation_has_no_word_in_the_format(tmp_path: Path) -> None:
    adapters = with_adapters(model(), x="direft[non_linearity=relu]")
    with pytest.raises(UnsupportedError, match="no word for a DiReFT with an activation"):
        adapters.save("x", tmp_path / "x", format="adapters")


def folder(tmp_path: Path, **config: Any) -> Path:
    """A copy of a folder of the library; changes of its configuration, None takes a field out."""
    path = tmp_path / "copy"
    shutil.copytree(GOLDEN.case("a-gpt2-direft_tied").adapter, path)
    document = json.loads((path / "adapter_config.json").read_text())
    changed = {**document["config"], **config}
    document["config"] = {key: value for key, value in changed.items() if value is not None or key not in config}
    (path / "adapter_config.json").write_text(json.dumps(document))
    return path


def test_what_the_library_does_not_heed_is_kept_and_has_no_effect(tmp_path: Path) -> None:
    adapter = read(folder(tmp_path, subtract_projection=False, dtype="float32"))
    assert adapter.config == read(GOLDEN.case("a-gpt2-direft_tied").adapter).config
    document = adapters_format.encode(adapter).documents["adapter_config.json"]
    assert (document["config"]["subtract_projection"], document["config"]["dtype"]) == (False, "float32")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"orthogonality": None}, "lacks orthogonality"),
        ({"r": 3}, "has shape"),
        ({"layers": [0]}, "is none of|no place|missing"),
        ({"tied_weights": False}, "missing"),
        ({"suffix_positions": "2"}, "suffix_positions"),
        ({"orthogonality": True}, "missing"),
    ],
)
def test_a_fault_in_the_document_is_named(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=says):
        read(folder(tmp_path, **changes))


def test_a_configuration_that_acts_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="acts nowhere"):
        read(folder(tmp_path, output_reft=False))


def test_positions_that_the_library_counts_otherwise_are_not_written() -> None:
    made = with_adapters(family("bart"), x="noreft[suffix_positions=1]").adapter("x")
    with pytest.raises(UnsupportedError, match="positions=adapters"):
        adapters_format.encode(made)
    same = dataclasses.replace(made, config=(dataclasses.replace(made.config[0], positions="adapters"),))  # type: ignore[type-var]
    assert adapters_format.decode(adapters_format.encode(same)).config == same.config


@pytest.mark.parametrize(
    "text", ["loreft[r=3,suffix_positions=2]", "noreft[layers=[2],tied_weights=true]", "loreft+lora"]
)
def test_an_adapter_made_here_survives_the_format_bit_for_bit(text: str) -> None:
    made = with_adapters(model(), x=text).adapter("x")
    again = adapters_format.decode(adapters_format.encode(made))
    assert again.config == made.config
    assert again.tensors.keys() == made.tensors.keys()
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in made.tensors.items())
