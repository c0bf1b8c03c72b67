"""Compositions: values, nesting rules, JSON, the text form, and files that pin adapters by digest."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterhub import composition
from adapterhub.arrangement import Arrangement, Pin
from adapterhub.composition import Average, BatchSplit, Composition, Fuse, MultiTask, Node, Parallel, Split, Stack
from adapterhub.errors import SchemaError, UsageError

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Busy machines are slow; that is no fault."""

DIGEST = "sha256:" + "ab" * 32

MAKERS: dict[str, Callable[..., Composition]] = {
    "stack": Stack,
    "fuse": Fuse,
    "split": lambda *children: Split(*children, splits=1),
    "batch_split": lambda *children: BatchSplit(*children, batch_sizes=1),
    "parallel": Parallel,
    "average": Average,
    "multi_task": MultiTask,
}
# As `adapters` 1.3.0 has them (ALLOWED_NESTINGS).
ALLOWED = {
    "stack": {"fuse", "split", "parallel", "batch_split", "average", "multi_task"},
    "fuse": {"stack"},
    "split": {"split", "stack", "batch_split", "average"},
    "parallel": {"stack", "batch_split", "average"},
    "multi_task": {"stack", "average", "fuse"},
    "batch_split": {"stack", "split", "batch_split", "average"},
    "average": {"stack", "split", "batch_split"},
}


@pytest.mark.parametrize("outer", MAKERS)
@pytest.mark.parametrize("inner", MAKERS)
def test_what_may_stand_in_what_is_as_in_adapters(outer: str, inner: str) -> None:
    child = MAKERS[inner]("a", "b")
    if inner in ALLOWED[outer]:
        assert MAKERS[outer](child, "c").leaves() == ("a", "b", "c")
    else:
        with pytest.raises(UsageError, match=f"^{inner} may not stand in {outer}; {outer} holds names, "):
            MAKERS[outer](child, "c")


def test_at_the_third_level_there_are_only_names_and_stacks() -> None:
    Stack(Fuse(Stack("a", "b"), "c"), "d")
    with pytest.raises(UsageError, match="average in split in stack is too deep"):
        Stack(Split(Average("a", "b"), "c", splits=1))


@pytest.mark.parametrize("bad", [5, None, "", "a b", "a,b", "a(b", "x" * 201, "a=b", 'a"', "a\n"])
def test_a_part_is_a_name_or_a_composition(bad: Any) -> None:
    with pytest.raises(UsageError):
        Stack("a", bad)


def test_a_composition_without_parts_is_refused() -> None:
    for make in MAKERS.values():
        with pytest.raises(UsageError, match="has no parts"):
            make()


def test_one_number_stands_for_every_child() -> None:
    assert Split("a", "b", splits=64) == Split("a", "b", splits=[64, 64])
    assert BatchSplit("a", "b", batch_sizes=2).batch_sizes == (2, 2)


@pytest.mark.parametrize("counts", [[1], [1, 2, 3], [0, 1], [-1, 1], [1.0, 2], [True, 1], "12", None, 0, {1: 2}])
def test_counts_are_one_positive_whole_number_for_each_child(counts: Any) -> None:
    with pytest.raises(UsageError, match="does not fit 2 parts; give each a whole number above 0"):
        Split("a", "b", splits=counts)
    with pytest.raises(UsageError, match="does not fit 2 parts"):
        BatchSplit("a", "b", batch_sizes=counts)


def test_weights_are_divided_by_their_sum_unless_they_are_to_stay() -> None:
    assert Average("a", "b").weights == (0.5, 0.5)
    assert Average("a", "b", weights=[1, 3]).weights == (0.25, 0.75)
    assert Average("a", "b", weights=[1, 3], normalize_weights=False).weights == (1.0, 3.0)
    assert Average("a", "b", weights=[2, -1]).weights == (2.0, -1.0)


@pytest.mark.parametrize(
    "weights", [[1], [1, -1], [float("nan"), 1], ["1", "2"], 3, [1, True], "ab", [1e308, 1e308], [10**400, 1]]
)
def test_weights_are_finite_numbers_that_do_not_cancel(weights: Any) -> None:
    with pytest.raises(UsageError, match="weights"):
        Average("a", "b", weights=weights)


def test_a_fusion_is_called_after_its_last_adapters_unless_it_has_a_name() -> None:
    assert Fuse("a", Stack("b", "c")).key == "a,c"
    assert Fuse("a", "b", name="mine").key == "mine"
    with pytest.raises(UsageError, match="'' is not the name of a fusion"):
        Fuse("a", name="")


def test_compositions_are_frozen_values() -> None:
    stack = Stack("a", Fuse("b", "c"))
    assert stack == Stack("a", Fuse("b", "c"))
    assert hash(stack) == hash(Stack("a", Fuse("b", "c")))
    assert len({stack, Stack("a"), Parallel("a")}) == 3
    assert (len(stack), stack[0], list(stack)[1]) == (2, "a", Fuse("b", "c"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        stack.children = ()  # type: ignore[misc]


def test_kinds_with_the_same_parts_differ() -> None:
    stack: Composition = Stack("a")
    assert stack != Parallel("a")
    assert Stack("b", "a") != Stack("a", "b")
    assert Fuse("a", name="x") != Fuse("a")


def test_the_leaves_are_each_adapter_once_in_order() -> None:
    assert Stack("b", Fuse("a", "b")).leaves() == ("b", "a")
    assert composition.leaves("a") == ("a",)


NAMES = st.sampled_from(["a", "lang-en", "sst2@^1", "hf://user/repo@main", "./x.y", "stack", "1", "true", "é"])


def blocks(children: st.SearchStrategy[Any], kinds: str) -> st.SearchStrategy[Any]:
    lists = st.lists(children, min_size=1, max_size=3)
    count, weight = st.integers(1, 9), st.floats(-5, 5)
    labels = st.none() | st.sampled_from(["f", "x y", 'quo"te', "5", "a\\b", "true"])
    makers = {
        "stack": lists.map(lambda c: Stack(*c)),
        "fuse": st.builds(lambda c, name: Fuse(*c, name=name), lists, labels),
        "split": st.builds(lambda c, n: Split(*c, splits=[n + i for i in range(len(c))]), lists, count),
        "batch_split": st.builds(lambda c, n: BatchSplit(*c, batch_sizes=n), lists, count),
        "parallel": lists.map(lambda c: Parallel(*c)),
        "average": st.builds(
            lambda c, w: Average(*c, weights=[w * (i + 1) for i in range(len(c))], normalize_weights=False),
            lists,
            weight,
        ),
        "multi_task": lists.map(lambda c: MultiTask(*c)),
    }
    return st.one_of([makers[kind] for kind in kinds.split()])


STACKS = NAMES | blocks(NAMES, "stack")
NODES = NAMES | blocks(STACKS, "fuse split batch_split parallel average multi_task")
NODES = NODES | blocks(NAMES | blocks(STACKS, "fuse split parallel batch_split average multi_task"), "stack")


@STEADY
@given(NODES)
def test_what_is_written_as_json_is_read_as_the_same(node: Node) -> None:
    assert composition.from_json(composition.to_json(node)) == node


@STEADY
@given(NODES)
def test_what_is_written_as_text_is_read_as_the_same(node: Node) -> None:
    assert composition.parse(str(node)) == node


@STEADY
@given(NODES)
def test_the_representation_is_python_that_makes_the_same(node: Node) -> None:
    assert eval(repr(node), vars(composition)) == node


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("a", "a"),
        (" stack( a ,fuse(b,c) ) ", Stack("a", Fuse("b", "c"))),
        ("Stack(a)", Stack("a")),
        ("BatchSplit(a, b, batch_sizes=2)", BatchSplit("a", "b", batch_sizes=2)),
        ("batch_split(a, b, batch_sizes=[1, 3])", BatchSplit("a", "b", batch_sizes=[1, 3])),
        ("multitask(a)", MultiTask("a")),
        ("average(a, b, weights=[1, 3])", Average("a", "b", weights=[1, 3])),
        ("average(a, weights=[2], normalize_weights=False)", Average("a", weights=[2], normalize_weights=False)),
        ('fuse(a, name="x (y)")', Fuse("a", name="x (y)")),
        ("stack(sst2-bert@^1, ./folder)", Stack("sst2-bert@^1", "./folder")),
    ],
)
def test_text_is_read_as_people_write_it(text: str, node: Node) -> None:
    assert composition.parse(text) == node


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a name or a kind of composition is missing at its end"),
        ("stack(", "is missing at its end"),
        ("stack(a", "',' is missing at its end"),
        ("stack()", "stack has no parts"),
        ("stack(a))", "something follows the end before ')'"),
        ("a b", "something follows the end before 'b'"),
        ("nix(a)", "'nix' is no kind of composition before 'nix(a)'"),
        ("stack(a,,b)", "is missing before ',b)'"),
        ("stack(a,)", "is missing before ')'"),
        ("stack('a')", "cannot be read"),
        ("split(a, b)", "split lacks splits"),
        ("stack(a, size=1)", "stack has no setting 'size'"),
        ("split(a, splits=1, splits=2)", "splits is there twice"),
        ("split(splits=1, a)", "a part follows a setting"),
        ("split(a, splits=)", "a value is missing"),
        ("split(a, splits=[1)", "',' is missing"),
        ("stack(stack(a))", "stack may not stand in stack"),
        ("stack(" * 50, "nested too deeply"),
        ("a" * 30_000, "too long"),
        ("x" * 300, "is not the name of an adapter"),
    ],
)
def test_text_that_cannot_be_read_says_where(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        composition.parse(text)
    assert words in str(caught.value)


def an_arrangement() -> Arrangement:
    pins = {"lang-en": Pin(digest=DIGEST, reference="lang-en@1.0.0"), "b": Pin(digest=DIGEST)}
    node = Stack("lang-en", Average("b", "lang-en", weights=[1, 2], normalize_weights=False))
    return Arrangement(composition=node, adapters=pins, name="both", version="1.0.0", summary="s", extra={"x": 1})


def test_an_arrangement_is_read_as_it_was_written() -> None:
    assert Arrangement.from_json(an_arrangement().to_json()) == an_arrangement()
    plain = Arrangement(composition="b", adapters={"b": Pin(digest=DIGEST)})
    assert set(plain.to_json()) == {"$schema", "format", "composition", "adapters"}
    assert Arrangement.from_json(plain.to_json()) == plain


def test_every_name_of_an_arrangement_is_pinned_and_no_other() -> None:
    data = an_arrangement().to_json()
    data["adapters"]["c"] = data["adapters"].pop("b")
    with pytest.raises(SchemaError) as caught:
        Arrangement.from_json(data, "my.json")
    assert caught.value.faults == (
        "adapters: lacks 'b', which is in the composition",
        "adapters: 'c' is not in the composition",
    )
    assert str(caught.value).startswith("my.json breaks its schema")


def test_an_arrangement_that_nests_what_may_not_be_nested_breaks_its_schema() -> None:
    data = an_arrangement().to_json()
    data["composition"] = {"type": "stack", "children": [{"type": "stack", "children": ["b"]}, "lang-en"]}
    with pytest.raises(SchemaError, match="composition: stack may not stand in stack"):
        Arrangement.from_json(data)


def test_json_of_a_node_is_checked() -> None:
    with pytest.raises(SchemaError, match=r"children\[1\]\.splits: is empty"):
        composition.from_json({"type": "stack", "children": ["a", {"type": "split", "children": ["a"], "splits": []}]})
    with pytest.raises(UsageError, match=r"splits .* does not fit 1 parts"):
        composition.from_json({"type": "split", "children": ["a"], "splits": [1, 2]})


def test_compositions_need_no_torch() -> None:
    program = "import sys, adapterhub.arrangement; sys.exit(bool({'torch', 'jsonschema'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
