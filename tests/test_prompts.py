"""Laws of prompts: vectors in front of the text act as tokens in front of it would."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from families import FAMILIES
from tiny_models import answers, family, family_inputs, generated, hidden, inputs, model, randomise, with_adapters
from torch import Tensor, nn

from adapterhub import BatchSplit, Stack
from adapterhub.adapter import Adapter, Base, Manifest
from adapterhub.errors import UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach
from adapterhub.methods import PromptTuningConfig, PTuningConfig
from adapterhub.methods.p_tuning import ejected

TOKENS = "prompt_tuning[prompt_length=3,place=tokens]"
BEHIND = "prompt_tuning[prompt_length=3]"
SEEING = "prompt_tuning[prompt_length=3,sees_padding=true,combine=prefix_after_bos]"
WEIGHED = "prompt_tuning[prompt_length=3,padded_bonus=0.7]"
NETWORKS = ("p_tuning[prompt_length=3]", "p_tuning[prompt_length=3,encoder=lstm,hidden_size=6]")
READERS = [n for n in FAMILIES if n not in ("vit", "beit", "whisper") and not n.startswith("clip")]
LENGTHENED = ["bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "deberta", "deberta-v2", "vit"]
GENERATING = {
    "gpt2": "GPT2LMHeadModel",
    "gptj": "GPTJForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
}


def of_words(adapters: AdapterSet, ids: Tensor, name: str = "words") -> None:
    """Load and activate a prompt that is what the model makes of some token ids (1, n)."""
    ground = adapters._ground
    (embedding,) = ground.layout.embeddings
    with torch.no_grad():
        vectors = ground.modules[embedding.tokens or ""](ids)[0].clone()
    config = PromptTuningConfig(prompt_length=ids.shape[1], place="tokens")
    manifest = Manifest(name=name, base=Base(architecture=ground.layout.architecture))
    adapters.load(Adapter((config,), {f"{embedding.tokens}.prompt": vectors}, manifest), set_active=True)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("masked", [True, False])
def test_a_prompt_of_word_embeddings_is_those_words(name: str, masked: bool) -> None:
    base = family(name)
    batch = family_inputs(base, rows=1)
    ids, mask = batch["input_ids"], torch.ones_like(batch["input_ids"])
    batch = {key: value for key, value in batch.items() if key.startswith("decoder")}

    def called(ids: Tensor, mask: Tensor) -> Tensor:
        return answers(base, {**batch, "input_ids": ids, **({"attention_mask": mask} if masked else {})})

    wanted = called(ids, mask)
    of_words(attach(base), ids[:, :3])
    assert torch.allclose(called(ids[:, 3:], mask[:, 3:]), wanted, atol=1e-5)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", [TOKENS, BEHIND])
def test_a_padded_row_is_as_if_it_were_alone(name: str, text: str) -> None:
    if text == BEHIND and name not in LENGTHENED:
        name = "bert"
    base = family(name)
    with_adapters(base, a=text).activate("a")
    batch = family_inputs(base)
    alone = {key: value[1:] for key, value in batch.items() if key != "attention_mask"}
    alone["input_ids"] = alone["input_ids"][:, batch["attention_mask"][1].bool()]
    wanted = answers(base, alone)
    assert torch.allclose(answers(base, batch)[1:, : wanted.shape[1]], wanted, atol=1e-5)


@pytest.mark.parametrize("name", LENGTHENED)
@pytest.mark.parametrize("text", [BEHIND, SEEING, WEIGHED])
def test_a_prompt_behind_the_embeddings_lengthens_the_output_and_leaves_no_trace(name: str, text: str) -> None:
    if text == WEIGHED and name.startswith("deberta"):
        text = BEHIND
    base = family(name)
    batch = family_inputs(base)
    before = answers(base, batch)
    adapters = with_adapters(base, a=text)
    assert torch.equal(answers(base, batch), before)
    found = []
    for implementation in ("eager",) if name.startswith("deberta") else ("eager", "sdpa"):
        base.set_attn_implementation(implementation)
        adapters.activate("a")
        found.append(answers(base, batch))
        assert found[-1].shape == (2, before.shape[1] + 3, before.shape[2])
        assert not torch.allclose(found[-1][:, 3:], before, atol=1e-3)
        adapters.activate(None)
    # What padding does to a prompt it does under sdpa alone.
    same = text == BEHIND or name.startswith("deberta") or "attention_mask" not in batch
    assert torch.allclose(found[0], found[-1], atol=1e-5) == same
    adapters.detach()
    assert torch.allclose(answers(base, batch), before, atol=1e-5)


def test_a_prompt_that_sees_padding_depends_on_it_and_another_does_not() -> None:
    base = model()
    adapters = with_adapters(
        base, blind=BEHIND, seeing="prompt_tuning[prompt_length=3,sees_padding=true]", weighed=WEIGHED
    )
    batch = inputs()
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][-1, -3:] = 7
    for name, rows, same in (("blind", 3, True), ("seeing", 3, False), ("weighed", 3, True)):
        adapters.activate(name)
        assert torch.allclose(hidden(base, batch)[-1, :rows], hidden(base, other)[-1, :rows], atol=1e-5) == same
    unpadded = {"input_ids": batch["input_ids"]}
    plain: list[Tensor] = []
    weighed: list[Tensor] = []
    for name, found in (("blind", plain), ("weighed", weighed)):
        tensors = adapters.adapter("blind").tensors
        adapters.load(
            Adapter(adapters.adapter(name).config, tensors, adapters.manifest(name)), name="x", overwrite_ok=True
        )
        adapters.activate("x")
        found += [hidden(base, unpadded), hidden(base, batch)]
    assert torch.equal(plain[0], weighed[0])
    assert not torch.allclose(plain[1], weighed[1], atol=1e-3)


def test_labels_of_tokens_are_none_at_the_prompt() -> None:
    base = family("gpt2", "GPT2LMHeadModel")
    ids = inputs(rows=2)["input_ids"][:1]
    labels = ids.clone()
    labels[:, :3] = -100
    wanted = base(input_ids=ids, labels=labels).loss
    of_words(attach(base), ids[:, :3])
    # The prediction of the first token behind the prompt counts; without a prompt it has none.
    assert torch.allclose(base(input_ids=ids[:, 3:], labels=ids[:, 3:]).loss, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("bert", "BertForSequenceClassification"),
        ("gpt2", "GPT2ForSequenceClassification"),
        ("llama", "LlamaForTokenClassification"),
    ],
)
def test_heads_of_the_model_read_the_longer_sequence(name: str, cls: str) -> None:
    base = family(name, cls)
    batch = {key: value[:1] for key, value in inputs(rows=2).items()}
    adapters = with_adapters(base, a=TOKENS)
    words = base.get_input_embeddings()(batch["input_ids"])
    prompt = next(iter(adapters.adapter("a").tensors.values()))
    longer = torch.cat((prompt[None], words), dim=1)
    with torch.no_grad():
        wanted = base(inputs_embeds=longer, attention_mask=torch.ones(longer.shape[:2])).logits
        adapters.activate("a")
        assert torch.allclose(base(**batch).logits, wanted, atol=1e-6)


@pytest.mark.parametrize("text", [TOKENS, BEHIND, *NETWORKS])
@pytest.mark.parametrize("pooling", ["first", "pooler", "mean"])
def test_heads_of_the_adapter_read_the_longer_sequence(text: str, pooling: str) -> None:
    base = model()
    adapters = attach(base)
    adapters.add("a", f"{text}+classification_head[num_labels=2,pooling={pooling}]")
    randomise(adapters, "a")
    adapters.train("a")
    base.train()
    loss = base(**inputs(), labels=torch.tensor([0, 1, 1, 0])).loss
    loss.backward()
    grads = {key: p.grad for key, p in adapters._loaded["a"].bank.tensors().items()}
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads.values())
    assert base.embeddings.word_embeddings.weight.grad is None


@pytest.mark.parametrize("name", GENERATING)
@pytest.mark.parametrize("text", [TOKENS, NETWORKS[0]])
def test_generation_with_a_cache_is_generation_without(name: str, text: str) -> None:
    # A cache is made with as many layers as the encoder has.
    base = family(name, GENERATING[name], **({"num_decoder_layers": 2} if name == "t5" else {}))
    adapters = with_adapters(base, a=text)
    plain = generated(base)
    adapters.activate("a")
    found = generated(base)
    assert not torch.equal(found, plain)
    assert torch.equal(found, generated(base, use_cache=False))
    assert torch.equal(found[1:2], generated(base, slice(1, 2)))


def test_a_static_cache_has_no_room_for_a_prompt_and_says_so() -> None:
    base = family("llama", "LlamaForCausalLM")
    with_adapters(base, a=TOKENS).activate("a")
    with pytest.raises(UnsupportedError, match="static cache"):
        generated(base, cache_implementation="static")


@pytest.mark.parametrize("text", NETWORKS)
def test_an_ejected_prompt_computes_the_same(text: str) -> None:
    base = model()
    adapters = with_adapters(base, a=text)
    adapter = adapters.adapter("a")
    (config,) = adapter.config
    assert isinstance(config, PTuningConfig)
    tensors = ejected(config, adapter.tensors, base)
    plain = PTuningConfig(prompt_length=3, encoder="none")
    adapters.load(Adapter((plain,), tensors, adapter.manifest), name="ejected")
    adapters.activate("a")
    wanted = hidden(base)
    adapters.activate("ejected")
    assert torch.allclose(hidden(base), wanted, atol=1e-5)


def test_the_networks_are_those_of_the_papers() -> None:
    adapters = with_adapters(model(), mlp=NETWORKS[0], lstm=NETWORKS[1])
    for name in ("mlp", "lstm"):
        adapter = adapters.adapter(name)
        own = {key.partition(".prompt")[2].lstrip("_."): t for key, t in adapter.tensors.items()}
        h = own[""][None]
        if name == "lstm":
            lstm = nn.LSTM(32, 6, num_layers=2, bidirectional=True, batch_first=True)
            lstm.load_state_dict({key.removeprefix("lstm."): t for key, t in own.items() if key.startswith("lstm.")})
            h = lstm(h)[0]
        for k in range(2 if name == "lstm" else 3):
            h = nn.functional.linear(h.relu() if k else h, own[f"mlp.{k}.weight"], own[f"mlp.{k}.bias"])
        config = adapter.config[0]
        assert isinstance(config, PTuningConfig)
        (found,) = ejected(config, adapter.tensors, adapters.model).values()
        assert torch.allclose(found, h[0], atol=1e-5)


def test_a_prompt_starts_from_words_again_and_again() -> None:
    base = model()
    adapters = attach(base)
    adapters.add("a", "prompt_tuning[prompt_length=5,spare=2,place=tokens,init_tokens=[7,9]]")
    (found,) = adapters.adapter("a").tensors.values()
    scaled = attach(family("gemma3_text"))
    scaled.add("a", "prompt_tuning[prompt_length=1,place=tokens,init_tokens=[7]]")
    (vector,) = scaled.adapter("a").tensors.values()
    assert torch.allclose(vector[0], scaled.model.get_input_embeddings()(torch.tensor(7)), atol=1e-5)
    assert torch.equal(found, base.embeddings.word_embeddings.weight[[7, 9, 7, 9, 7, 9, 7]])
    adapters.activate("a")
    assert hidden(base).shape == (4, 14, 32)


@pytest.mark.parametrize("text", [TOKENS, BEHIND, "prefix_tuning[prefix_length=3]"])
def test_what_stands_in_front_cannot_be_merged_and_says_so(text: str) -> None:
    adapters = with_adapters(model(), a=f"lora+{text}")
    with pytest.raises(UnsupportedError, match=r"prompts|prefixes"):
        adapters.merge("a")


def test_the_summary_tells_where_the_parameters_stand() -> None:
    adapters = with_adapters(model("distilbert"), a=TOKENS, b="prefix_tuning[prefix_length=3,bottleneck_size=5]")
    rows = {(row.adapter, row.site): row.parameters for row in adapters.summary().rows}
    assert rows == {
        ("a", "embedding"): 3 * 32,
        ("b", "prefix"): 3 * 2 * (32 * 5 + 32),
        ("b", "shared"): 3 * 32 + 5 * 32 + 5,
    }


def test_a_stack_may_have_one_prompt() -> None:
    base = model()
    adapters = with_adapters(base, a=BEHIND, b=TOKENS, bottleneck="seq_bn", union=f"{BEHIND}+seq_bn")
    tensors = {**adapters.adapter("a").tensors, **adapters.adapter("bottleneck").tensors}
    union = adapters.adapter("union")
    adapters.load(Adapter(union.config, tensors, union.manifest), name="both", set_active=True)
    wanted = hidden(base)
    adapters.activate(Stack("a", "bottleneck"))
    assert torch.allclose(hidden(base), wanted, atol=1e-6)
    for setup in (Stack("a", "b"), BatchSplit("a", "bottleneck", batch_sizes=[2, 2])):
        with pytest.raises(UnsupportedError, match="prompts concern the whole batch"):
            adapters.activate(setup)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("gpt2", BEHIND, "fix their length before drop"),
        ("beit", BEHIND, "fix their length before embeddings"),  # it has a relative position bias
        ("llama", BEHIND, "place='tokens'"),
        ("vit", TOKENS, "read no tokens"),
        ("clip", TOKENS, "2 inputs"),
        ("clip_text_model", TOKENS, "takes no inputs_embeds"),
    ],
)
def test_a_model_without_the_place_is_refused_by_name(name: str, text: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        attach(family(name)).add("a", text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt_tuning[prompt_length=0]", "prompt_length is 0"),
        ("prompt_tuning[place=tokens,combine=prefix_after_bos]", "only with place 'embeddings'"),
        ("prompt_tuning[spare=-1]", "spare is -1"),
        ("prompt_tuning[init_scale=0.0]", "positive"),
        ("p_tuning[hidden_size=0]", "hidden_size is 0"),
        ("p_tuning[lstm_layers=0]", "lstm_layers is 0"),
        ("p_tuning[lstm_dropout=1.0]", r"\[0, 1\)"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        attach(model()).add("a", text)


@pytest.mark.parametrize("text", [TOKENS, BEHIND, SEEING, *NETWORKS])
def test_copies_of_a_model_keep_its_prompt(text: str) -> None:
    base = model()
    with_adapters(base, a=text).activate("a")
    wanted = hidden(base)
    for other in (copy.deepcopy(base), pickle.loads(pickle.dumps(base))):
        assert torch.equal(hidden(other), wanted)


def test_a_prompt_behind_the_embeddings_and_a_cache_exclude_each_other() -> None:
    base = model()
    with_adapters(base, a=BEHIND).activate("a")
    cache = family("llama")(**inputs(), use_cache=True).past_key_values
    with pytest.raises(UnsupportedError, match="cache"):
        base(**inputs(), past_key_values=cache)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "deberta", "gpt2", "t5"])
@pytest.mark.parametrize("text", [TOKENS, BEHIND, SEEING, WEIGHED, *NETWORKS])
def test_a_compiled_model_follows_every_activation_without_a_graph_break(name: str, text: str) -> None:
    if (name not in LENGTHENED and text in (BEHIND, SEEING, WEIGHED)) or (name == "deberta" and text == WEIGHED):
        name = "bert"
    base = family(name)
    batch = family_inputs(base)
    adapters = with_adapters(base, a=text)
    torch._dynamo.reset()
    compiled = torch.compile(base, backend="eager", fullgraph=True)
    for active in (None, "a", None, "a"):
        adapters.activate(active)
        with torch.no_grad():
            assert torch.allclose(compiled(**batch).last_hidden_state, answers(base, batch), atol=1e-6), active
