"""The plug-in: bottlenecks as one more type of PEFT, which loads, trains, switches and saves them."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import test_family_outputs as families
import test_further_outputs as further
import torch
from golden import GOLDEN, Case
from test_integration import Sentences
from test_peft_outputs import BY_PLUG_IN, assert_close, base_of, output_of
from tiny_models import (
    answers,
    cast,
    classifier,
    family,
    family_inputs,
    generated,
    hidden,
    logits,
    model,
    with_adapters,
)
from transformers import PreTrainedModel, Trainer, TrainingArguments

from adapterhub.adapter import Adapter
from adapterhub.converters import read, write
from adapterhub.converters.peft.bottleneck import PLUGIN, TYPE
from adapterhub.errors import StateError, UnsupportedError, UsageError
from adapterhub.loader import attach
from adapterhub.peft_plugin import BottleneckConfig

HOULSBY = "double_seq_bn[reduction_factor=4]+layer_norm"
KINDS = (
    "seq_bn[reduction_factor=4]",
    "par_bn[reduction_factor=4]",
    "compacter[reduction_factor=4]",
    "seq_bn[reduction_factor=4]+layer_norm",
    "seq_bn[reduction_factor=4,original_ln_after=false]+layer_norm",
    HOULSBY,
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let PEFT warn about itself, but not about tensors that it misses or does not know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing adapter keys|nexpected keys|not found).*")
        yield


def bare(adapter: Adapter) -> Adapter:
    """Return an adapter that is written for the base model without a head."""
    return dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, extra={"peft": {"prefix": ""}}))


def ours(text: str, *, name: str = "x", base: PreTrainedModel | None = None) -> Adapter:
    """Return an adapter of our own with random values."""
    return bare(with_adapters(base or model(), **{name: text}).adapter(name))


def wrapped(base: PreTrainedModel, folder: Path, **options: Any) -> Any:
    """Return what PEFT makes of a bare base and a folder, whatever task the folder names."""
    config = peft.PeftConfig.from_pretrained(folder)
    config.task_type = None
    return peft.PeftModel.from_pretrained(base, folder, config=config, **options).eval()


def loaded(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Return a base into which transformers itself has loaded a folder."""
    base.load_adapter(str(folder))
    return base.eval()


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=2e-6, rtol=1e-5)


def in_our_loader(folder: Path, base: PreTrainedModel) -> PreTrainedModel:
    attach(base).load(folder, set_active=True)
    return base


# The same outputs


GOLDEN_CASES = [
    case
    for case in (*GOLDEN.cases(groups="A"), GOLDEN.case(BY_PLUG_IN))
    if {config.method for config in read(case.adapter).config} <= {"bottleneck", "compacter", "layer_norm"}
]


def test_every_family_that_people_ask_for_has_a_golden_case() -> None:
    found = {case["arch"] for case in GOLDEN_CASES}
    assert {"bert", "roberta", "gpt2", "llama", "vit", "bart", "xlm-roberta"} <= found


@pytest.mark.parametrize("case", GOLDEN_CASES, ids=str)
def test_a_bottleneck_of_adapters_gives_its_output_in_peft_and_in_transformers(case: Case, tmp_path: Path) -> None:
    folder = write(read(case.adapter), tmp_path / "x", format="peft")
    assert_close(case, output_of(case, peft.PeftModel.from_pretrained(base_of(case), folder).eval()))
    assert_close(case, output_of(case, loaded(base_of(case), folder)))


EVERYWHERE = [
    *(pytest.param(families, case, id=families.name_of(case)) for case in families.CASES),
    *(
        pytest.param(further, case, id=further.name_of(case))
        for case in further.CASES
        if {config.method for config in read(further.FOLDER / further.name_of(case)).config} == {"compacter"}
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "case"), EVERYWHERE)
def test_every_family_gives_the_output_of_the_reference(module: Any, case: dict[str, Any], tmp_path: Path) -> None:
    name = case["family"]
    adapter = read(module.FOLDER / module.name_of(case))
    if name.startswith("xmod"):
        with pytest.raises(UnsupportedError, match="took modules out of the xmod model, which PEFT leaves in"):
            write(adapter, tmp_path / "x", format="peft")
        return
    folder = write(bare(adapter), tmp_path / "x", format="peft")
    batch, expected = families.inputs_of(name), module.EXPECTED[module.name_of(case)]
    assert families.close(answers(wrapped(families.base_of(name), folder).get_base_model(), batch), expected)
    assert families.close(answers(loaded(families.base_of(name), folder), batch), expected)


@pytest.mark.parametrize("text", KINDS)
def test_an_adapter_of_our_own_gives_the_same_output(text: str, tmp_path: Path) -> None:
    folder = write(ours(text), tmp_path / "x", format="peft")
    expected = hidden(in_our_loader(folder, model()))
    assert not torch.allclose(expected, hidden(model()), atol=1e-2)
    assert close(hidden(wrapped(model(), folder).get_base_model()), expected)
    assert close(hidden(loaded(model(), folder)), expected)


HEADS = {
    "bert": "classification_head[num_labels=3,pooling=pooler,activation_function=null]",
    "roberta": "classification_head[num_labels=3,pooling=first,layers=2]",
    "vit": "image_classification_head[num_labels=3,pooling=first,activation_function=null]",
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_goes_along_and_answers(name: str, tmp_path: Path) -> None:
    kind = {"bert": "BertFor", "roberta": "RobertaFor", "vit": "ViTForImage"}[name]
    kind += "Classification" if name == "vit" else "SequenceClassification"
    adapters = with_adapters(family(name), x=f"{HOULSBY}+{HEADS[name]}")
    folder = write(adapters.adapter("x"), tmp_path / "x", format="peft")
    batch = family_inputs(family(name))
    expected = answers(in_our_loader(folder, family(name, kind, num_labels=3)), batch)
    config = peft.PeftConfig.from_pretrained(folder)
    assert config.modules_to_save
    for made in (
        peft.PeftModel.from_pretrained(family(name, kind, num_labels=3), folder).eval(),
        loaded(family(name, kind, num_labels=3), folder),
    ):
        assert torch.allclose(answers(made, batch), expected, atol=1e-6)


# Switching


def two(folder: Path) -> tuple[Path, Path]:
    first = write(ours(KINDS[0]), folder / "one", format="peft")
    second = write(ours("compacter[reduction_factor=4,leave_out=[0]]", name="y"), folder / "two", format="peft")
    return first, second


def test_adapters_are_switched_switched_off_and_deleted_in_peft(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    expected = {name: hidden(in_our_loader(folder, model())) for name, folder in {"a": one, "b": other}.items()}
    found = wrapped(model(), one, adapter_name="a")
    base = found.get_base_model()
    found.load_adapter(other, "b")
    assert close(hidden(base), expected["a"])
    found.set_adapter("b")
    assert close(hidden(base), expected["b"])
    with found.disable_adapter():
        assert close(hidden(base), hidden(model()))
    assert close(hidden(base), expected["b"])
    with pytest.raises(UnsupportedError, match="several bottleneck adapters cannot be active at once in PEFT: a, b"):
        found.base_model.set_adapter(["a", "b"])
    assert close(hidden(base), expected["b"])
    found.delete_adapter("b")
    assert close(hidden(base), expected["a"])


def test_adapters_are_switched_switched_off_and_deleted_in_transformers(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    expected = {name: hidden(in_our_loader(folder, model())) for name, folder in {"a": one, "b": other}.items()}
    base = model()
    base.load_adapter(str(one), "a")
    base.load_adapter(str(other), "b")
    base.set_adapter("b")
    assert close(hidden(base), expected["b"])
    base.set_adapter("a")
    assert close(hidden(base), expected["a"])
    base.disable_adapters()
    assert close(hidden(base), hidden(model()))
    base.enable_adapters()
    assert close(hidden(base), expected["a"])
    with pytest.raises(UnsupportedError, match="several bottleneck adapters"):
        base.set_adapter(["a", "b"])
    base.delete_adapter("a")
    base.set_adapter("b")
    assert close(hidden(base), expected["b"])


def test_a_model_that_loses_its_adapters_is_as_before(tmp_path: Path) -> None:
    base, fresh = model(), model()
    modules, attributes = list(dict(fresh.named_modules())), set(vars(fresh))
    found = wrapped(base, two(tmp_path)[0])
    hidden(base)
    plain = found.unload()
    assert plain is base
    assert list(dict(plain.named_modules())) == modules
    assert "forward" not in vars(plain)
    assert set(vars(plain)) - attributes <= {"peft_config", "_hf_peft_config_loaded"}
    assert close(hidden(plain), hidden(fresh))


@pytest.mark.parametrize("verb", ["merge_and_unload", "merge_adapter"])
def test_merging_is_refused_by_name(verb: str, tmp_path: Path) -> None:
    found = wrapped(model(), two(tmp_path)[0])
    with pytest.raises(UnsupportedError, match="PEFT cannot merge a bottleneck adapter"):
        getattr(found, verb)()


def test_a_lora_that_is_loaded_besides_acts_besides(tmp_path: Path) -> None:
    names = {"a": "seq_bn[reduction_factor=4,mh_adapter=true]", "b": 'lora[r=4,targets=["attention_output","output"]]'}
    folders = {n: write(ours(text, base=family("llama")), tmp_path / n, format="peft") for n, text in names.items()}
    together = attach(family("llama"))
    for name, folder in folders.items():
        together.load(folder, name=name)
    joined = Adapter(
        tuple(c for n in names for c in together.adapter(n).config),
        {key: t for n in names for key, t in together.adapter(n).tensors.items()},
        together.adapter("a").manifest,
    )
    both = attach(family("llama"))
    both.load(write(joined, tmp_path / "both.safetensors"), set_active=True)
    batch = family_inputs(both.model)
    for order in (("a", "b"), ("b", "a")):
        base = family("llama")
        for name in order:
            base.load_adapter(str(folders[name]), name)
        base.set_adapter(["a", "b"])
        assert torch.allclose(answers(base, batch), answers(both.model, batch), atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_model_generates_with_the_adapter_that_was_set_last(name: str, tmp_path: Path) -> None:
    kind, changes = {"gpt2": ("GPT2LMHeadModel", {}), "t5": ("T5ForConditionalGeneration", {"num_decoder_layers": 2})}[
        name
    ]
    texts = {"a": "double_seq_bn[reduction_factor=4]", "b": "par_bn[reduction_factor=4]"}
    folders, expected = {}, {}
    for key, text in texts.items():
        folders[key] = write(
            with_adapters(family(name, kind, **changes), x=text).adapter("x"), tmp_path / key, format="peft"
        )
        expected[key] = generated(in_our_loader(folders[key], family(name, kind, **changes)))
    found = peft.PeftModel.from_pretrained(family(name, kind, **changes), folders["a"], adapter_name="a").eval()
    found.load_adapter(folders["b"], "b")
    assert not torch.equal(expected["a"], expected["b"])
    for key in ("b", "a"):
        found.set_adapter(key)
        assert torch.equal(generated(found), expected[key])


# Training and saving


def trainable(module: torch.nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_only_a_new_adapter_trains_and_starts_near_the_identity() -> None:
    base = model()
    found = peft.get_peft_model(base, BottleneckConfig.of("double_seq_bn[reduction_factor=4]"))
    names = trainable(found)
    assert len(names) == 3 * 2 * 4
    assert all(".bottleneck.bottleneck_" in name for name in names)
    found.eval()
    assert torch.allclose(hidden(base), hidden(model()), atol=0.1)
    found.train()
    hidden_states = base(**family_inputs(base)).last_hidden_state
    hidden_states.square().mean().backward()
    assert all(parameter.grad is not None for parameter in found.parameters() if parameter.requires_grad)
    assert all(parameter.grad is None for parameter in found.parameters() if not parameter.requires_grad)


def test_what_a_compacter_does_not_train_stays_frozen() -> None:
    found = peft.get_peft_model(model(), BottleneckConfig.of("compacter[reduction_factor=4,learn_phm=false]"))
    assert not any("rule" in name for name in trainable(found))
    found.add_adapter(
        "more", BottleneckConfig.of("compacter[reduction_factor=4,learn_phm=false,shared_phm_rule=false]")
    )
    found.set_adapter("more")
    assert trainable(found)
    assert not any("rule" in name for name in trainable(found))


@pytest.mark.parametrize("text", ["double_seq_bn[reduction_factor=4]", "compacter[reduction_factor=4]"])
def test_what_is_trained_and_saved_is_read_back_to_the_bit(text: str, tmp_path: Path) -> None:
    found = peft.get_peft_model(
        classifier(), BottleneckConfig.of(text, task_type="SEQ_CLS", modules_to_save=["output.LayerNorm"])
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "runs"),
        max_steps=3,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    start = {name: parameter.detach().clone() for name, parameter in found.named_parameters()}
    Trainer(model=found, args=arguments, train_dataset=Sentences()).train()
    changed = {name for name, parameter in found.named_parameters() if not torch.equal(parameter, start[name])}
    assert changed <= trainable(found)
    assert any("bottleneck_" in name for name in changed)
    assert any("classifier" in name for name in changed)
    assert any("LayerNorm" in name for name in changed)
    found.save_pretrained(tmp_path / "x")
    adapter = read(tmp_path / "x")
    state = found.state_dict()
    for key, tensor in peft.get_peft_model_state_dict(found).items():
        assert any(torch.equal(tensor, own) for own in state.values()), key
    assert sum(t.numel() for t in adapter.tensors.values()) == sum(
        t.numel() for t in peft.get_peft_model_state_dict(found).values()
    )
    expected = logits(found.eval().get_base_model())
    assert torch.allclose(logits(in_our_loader(tmp_path / "x", classifier())), expected, atol=1e-6)
    again = write(adapter, tmp_path / "again", format="peft")
    assert (again / "adapter_config.json").read_text().split() == (
        tmp_path / "x/adapter_config.json"
    ).read_text().split()
    back = peft.PeftModel.from_pretrained(classifier(), again).eval()
    assert torch.allclose(logits(back.get_base_model()), expected, atol=1e-6)


def test_the_optimiser_of_a_second_session_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    folder = write(ours(KINDS[0]), tmp_path / "x", format="peft")
    found = wrapped(model(), folder, is_trainable=True)
    assert len(trainable(found)) == 3 * 4
    assert not trainable(wrapped(model(), folder))


def test_checkpointing_gives_the_same_gradients(tmp_path: Path) -> None:
    folder = write(ours("double_seq_bn[reduction_factor=4]"), tmp_path / "x", format="peft")
    gradients = []
    for checkpoints in (False, True):
        base = model()
        if checkpoints:
            base.gradient_checkpointing_enable()
        found = wrapped(base, folder, is_trainable=True).train()
        for module in base.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        found.base_model.enable_input_require_grads()
        base(**family_inputs(base)).last_hidden_state.square().mean().backward()
        gradients.append({n: p.grad for n, p in found.named_parameters() if p.requires_grad})
    assert all(torch.allclose(gradients[1][name], grad, atol=1e-6) for name, grad in gradients[0].items())


# Inside other things


@pytest.mark.parametrize("text", KINDS)
def test_a_copy_and_a_pickle_compute_the_same_and_switch_alone(text: str, tmp_path: Path) -> None:
    found = wrapped(model(), write(ours(text), tmp_path / "x", format="peft"))
    expected = hidden(found.get_base_model())
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert close(hidden(other.get_base_model()), expected)
        with other.disable_adapter():
            assert close(hidden(other.get_base_model()), hidden(model()))
            assert close(hidden(found.get_base_model()), expected)
        assert close(hidden(other.get_base_model()), expected)


@pytest.mark.parametrize("autocast", [True, False], ids=["float32 adapter", "bfloat16 adapter"])
def test_a_half_model_takes_an_adapter_of_either_dtype(autocast: bool, tmp_path: Path) -> None:
    folder = write(ours(HOULSBY), tmp_path / "x", format="peft")
    found = wrapped(cast(model(), torch.bfloat16), folder, autocast_adapter_dtype=autocast)
    output = hidden(found.get_base_model())
    assert output.dtype == torch.bfloat16
    assert torch.allclose(output.float(), hidden(in_our_loader(folder, model())), atol=0.15)


def test_weights_that_wait_on_the_meta_device_are_found(tmp_path: Path) -> None:
    folder = write(ours("compacter[reduction_factor=4]"), tmp_path / "x", format="peft")
    found = wrapped(model(), folder, low_cpu_mem_usage=True)
    assert close(hidden(found.get_base_model()), hidden(in_our_loader(folder, model())))


@pytest.mark.slow
@pytest.mark.parametrize("text", [KINDS[0], HOULSBY])
def test_a_compiled_model_follows_every_switch_without_a_graph_break(text: str, tmp_path: Path) -> None:
    folder = write(ours(text), tmp_path / "x", format="peft")
    found = wrapped(model(), folder)
    base = found.get_base_model()
    expected = hidden(base)
    torch.compiler.reset()
    compiled: Any = torch.compile(base, backend="eager", fullgraph=True)
    assert close(hidden(compiled), expected)
    found.base_model.disable_adapter_layers()
    assert close(hidden(compiled), hidden(model()))


def test_another_library_s_forward_over_ours_is_noticed(tmp_path: Path) -> None:
    found = wrapped(model(), two(tmp_path)[0])
    base = found.get_base_model()
    hidden(base)
    module = base.encoder.layer[0].output.dropout
    inner = module.forward
    module.forward = lambda *args: inner(*args)
    with pytest.raises(StateError, match="another library has replaced the forward"), found.disable_adapter():
        hidden(base)


def test_nothing_outlives_a_model(tmp_path: Path) -> None:
    import weakref

    found = wrapped(model(), two(tmp_path)[0])
    hidden(found.get_base_model())
    gone = weakref.ref(found.get_base_model().encoder.layer[0].output.dense.weight)
    del found
    gc.collect()
    assert gone() is None


# What is refused


def test_a_folder_for_another_class_or_size_is_refused_with_the_modules(tmp_path: Path) -> None:
    folder = write(ours(KINDS[0]), tmp_path / "x", format="peft")
    with pytest.raises(UnsupportedError, match=r"there is no bottleneck at encoder\.layer\.0\.output"):
        peft.PeftModel.from_pretrained(classifier(), folder)
    with pytest.raises(UnsupportedError, match=r"it does not name encoder\.layer\.3\.output"):
        peft.PeftModel.from_pretrained(family("bert", num_hidden_layers=4, hidden_size=32), folder)


@pytest.mark.parametrize(
    ("text", "says"), [("lora", "'lora' is not a bottleneck alone"), ("seq_bn+layer_norm", "modules_to_save names")]
)
def test_a_text_that_names_more_than_bottlenecks_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BottleneckConfig.of(text)


def test_a_wrong_field_is_refused_when_the_configuration_is_made() -> None:
    with pytest.raises(UsageError, match="reduction_factor must be positive"):
        BottleneckConfig(reduction_factor=0)
    with pytest.raises(UsageError, match="one of mh_adapter, output_adapter and cross_adapter"):
        BottleneckConfig(mh_adapter=False, output_adapter=False)


def test_a_model_that_is_none_of_transformers_is_refused() -> None:
    with pytest.raises(UsageError, match="pass the transformers model itself"):
        peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), BottleneckConfig())


@pytest.mark.slow
def test_peft_names_the_module_to_import_where_it_was_not(tmp_path: Path) -> None:
    folder = write(ours(KINDS[0]), tmp_path / "x", format="peft")
    code = (
        "import sys, torch, peft; from transformers import BertConfig, BertModel\n"
        "base = BertModel(BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1))\n"
        "load = {'peft': lambda: peft.PeftModel.from_pretrained(base, sys.argv[2]), "
        "'transformers': lambda: base.load_adapter(sys.argv[2])}\n"
        "load[sys.argv[1]]()"
    )
    for library in ("peft", "transformers"):
        done = subprocess.run(
            [sys.executable, "-c", code, library, str(folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == f"KeyError: {TYPE!r}"
    assert TYPE.lower().startswith(PLUGIN)


def test_the_configuration_has_the_fields_that_are_written() -> None:
    from adapterhub.converters.peft.bottleneck import FIELDS

    assert {field.name for field in dataclasses.fields(BottleneckConfig)} == FIELDS.keys()
