"""Configurations and manifests in words: from their JSON, without the modules that know what they mean."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import adapterhub
from adapterhub.adapter import Probe, to_json
from adapterhub.cli import sentences, words
from adapterhub.errors import UsageError
from adapterhub.methods import METHODS, PRESETS, ClassificationHeadConfig, describe, method_of, parse_method

BUNDLED = Path(adapterhub.__file__).parent / "registry" / "bundled"
HEAD = ClassificationHeadConfig(num_labels=3, pooling="first")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("double_seq_bn", "bottlenecks behind attention and feed-forward, 1/16 as wide as the model, swish"),
        (
            "par_bn[reduction_factor=0.5,leave_out=[0,1]]",
            "bottlenecks beside feed-forward, 2 times as wide as the model, relu, scaled by 4, not in layers 0, 1",
        ),
        (
            'seq_bn[reduction_factor={"default": 16, "1": 8}]',
            "bottlenecks behind feed-forward, of widths that differ by layer (reduction default: 16, 1: 8), relu",
        ),
        ("compacter++",
         "bottlenecks behind feed-forward, 1/32 as wide as the model, gelu, weights of 4 Kronecker products"),
        ("invertible", "an invertible adapter behind the embeddings, relu"),
        ("invertible[before_output=true,non_linearity=gelu]",
         "an invertible adapter behind the embeddings, gelu, undone in front of the output embeddings"),
        ("loreft", "LoReFT of rank 1 at the first 3 positions"),
        ("noreft[suffix_positions=2,layers=[0,2]]",
         "NoReFT of rank 1 at the first 3 and the last 2 positions, in layers 0, 2"),
        ("direft[prefix_positions=0]", "DiReFT of rank 1 at no positions"),
        ("lora", "LoRA of rank 8 on query, value, alpha 8"),
        ('lora[ranks={"query": 4},rank_stabilised=true]',
         "LoRA of rank 8 on query, value, alpha 8, scaled by alpha / √rank, ranks or alphas that differ by place"),
        ("dora[gating=false]", "DoRA of rank 8 on query, value, alpha 8"),
        ("ia3[leave_out=[2]]", "(IA)³ on key, value, and on what goes into output, not in layers 2"),
        ("vera", "VeRA of rank 256 on query, value"),
        ("mtl_lora[ups=3]", "MTL-LoRA of rank 8 on query, value, alpha 8, 3 up projections"),
        ("prefix_tuning", "prefixes of 30 tokens in the attentions, made by a network of width 512, tanh"),
        ("prefix_tuning_flat[use_gating=true]", "prefixes of 30 tokens in the attentions, gated"),
        ("prompt_tuning", "a prompt of 10 vectors"),
        ("p_tuning", "a prompt of 20 vectors, made by an encoder (mlp)"),
        ("layer_norm", "all layer norms"),
        ("multilabel_classification_head[pooling=last]",
         "head for 2 classes, any of them: a linear layer on the last token"),
        ("classification_head[num_labels=1,layers=2,pooling=eos]",
         "head for 1 number: 2 layers, tanh, on the end token"),
        ("image_classification_head", "head for 2 classes: a linear layer on what the model's family reads"),
        ("multiple_choice_head[pooling=pooler]",
         "head for one of several texts: a linear layer on the pooler's output"),
        ("tagging_head[num_labels=9]", "head for 9 classes of tokens: a linear layer"),
        ("question_answering_head[layers=2]", "head for the first and the last token of an answer: 2 layers, tanh"),
        ("masked_lm_head[vocab_size=100]", "head for masked tokens out of 100: 2 layers, gelu"),
        ("causal_lm_head[layers=2]", "head for the next token: 2 linear layers"),
        ("dependency_parsing_head", "head for the word that each word depends on, by 2 relations"),
    ],
)  # fmt: skip
def test_a_configuration_is_told_in_a_sentence(text: str, sentence: str) -> None:
    (config,) = parse_method(text)
    assert sentences.sentence(config.to_json()) == sentence


def test_a_head_is_told_in_a_sentence() -> None:
    assert sentences.sentence(HEAD.to_json()) == "head for 3 classes: a linear layer on the first token"
    assert sentences.method([HEAD.to_json()]) == describe([HEAD])


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_file_leaves_out_is_said_as_if_it_were_there(name: str) -> None:
    for preset in PRESETS[name]:
        config = preset.to_json()
        said = sentences.sentence(config)
        for field in dataclasses.fields(method_of(preset).config):
            if config[field.name] == field.default:
                assert sentences.sentence({key: value for key, value in config.items() if key != field.name}) == said


@pytest.mark.parametrize(
    "value", [None, -1, 0, "x", [], {}, [[]], {"x": "y"}, True, 10**400], ids=lambda value: str(value)[:9]
)
def test_a_value_that_cannot_be_is_refused_by_its_method(value: Any) -> None:
    refused = []
    for method in METHODS:
        preset = next(iter(method.presets.values()), HEAD).to_json()
        for field in preset.keys() - {"method"}:
            try:
                assert sentences.sentence({**preset, field: value})
            except UsageError as error:
                refused.append(error.message)
    assert len(refused) > 3
    assert all("configuration cannot be used" in message for message in refused)


def test_a_method_without_a_sentence_is_named_by_its_configuration() -> None:
    (config,) = parse_method("fusion_static")
    assert sentences.sentence(config.to_json()) == describe([config])


def test_a_method_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match="no method is called 'nix'"):
        sentences.sentence({"method": "nix"})


def test_the_tolerance_of_a_probe_is_the_one_of_its_record() -> None:
    probe = Probe(inputs={"input_ids": [[1], [2]]}, output="logits", values=[[0.5]])
    assert words.probe(to_json(probe)) == f"2 inputs with their logits, same within {probe.atol:g}"
    loose = dataclasses.replace(probe, atol=0.5)
    assert words.probe(to_json(loose)) == "2 inputs with their logits, same within 0.5"


def test_showing_a_native_file_loads_neither_methods_nor_records_nor_other_formats() -> None:
    code = (
        "import sys; from adapterhub.cli.application import run\n"
        "assert run(['show', 'sst2-bert']) == 0\n"
        "print(*sorted(name for name in sys.modules if name.startswith('adapterhub.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=BUNDLED)
    loaded = set(done.stderr.split())
    assert "adapterhub.converters.native_head" in loaded
    unwanted = ("adapter", "methods", "architectures", "sites", "converters.native", "converters.adapters", "loader")
    assert not loaded & {f"adapterhub.{name}" for name in unwanted}
