# Everything a developer types. The environments are made once; a second call finds their stamps and asks no network.
#   make demo      see it work: pull, show, run, swap, verify, all from the bundled index
#   make test      every test          make quick   without the slow ones
#   make check     format, lint, types, documents, tests
#   make docs      write docs/cli.md, peft-types.md and conversions.md anew from the program
#   make bench     ratios against adapters and PEFT, measured in the same run
#   make peers     what is written for adapters and PEFT, loaded by them, with the outputs compared
#   make fuzz      look for inputs that break the readers, FUZZ_SECONDS long (600)
#   make adapters  train the four bundled adapters again
#   make clean     remove everything that is made here

PYTHON ?= python3
VENV := .venv
PIP_INSTALL = -m pip install --disable-pip-version-check --quiet -c constraints.txt
BIN := $(VENV)/bin

.PHONY: demo test quick check docs bench peers fuzz adapters clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

test: $(VENV)/.test
	$(BIN)/pytest

quick: $(VENV)/.test
	$(BIN)/pytest -m "not slow"

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

docs: $(VENV)/.demo
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_peft_types.py
	$(BIN)/python docs/make_conversions.py

# The peers may live elsewhere: $ADAPTERHUB_BENCH_ADAPTERS_PYTHON, $ADAPTERHUB_BENCH_PEFT_PYTHON name interpreters.
bench: $(VENV)/$(if $(ADAPTERHUB_BENCH_PEFT_PYTHON),.demo,.bench) \
       $(if $(ADAPTERHUB_BENCH_ADAPTERS_PYTHON),,.venv-adapters/.ready)
	$(BIN)/python -P -m adapterhub.benchmarks $(BENCH)

# The same interpreters as for `bench`; PEFT is in the environment of the tests.
peers: $(VENV)/.test $(if $(ADAPTERHUB_BENCH_ADAPTERS_PYTHON),,.venv-adapters/.ready)
	$(BIN)/python -P tests/peers $(PEERS)

FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.fuzz
	$(BIN)/python tests/fuzz/fuzz.py -max_total_time=$(FUZZ_SECONDS)

adapters: $(VENV)/.demo
	$(BIN)/python examples/train_bundled.py --data build/data --out build/adapters

clean:
	rm -rf $(VENV) .venv-adapters build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'adapterhub needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo 'the venv module is missing: apt install python3-venv' >&2; exit 1; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP_INSTALL) -e '.[demo]'
	@touch $@

# The test extra includes the demo extra.
$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP_INSTALL) -e '.[test]'
	@touch $(VENV)/.demo $@

$(VENV)/.fuzz: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP_INSTALL) -e '.[fuzz]'
	@touch $(VENV)/.demo $(VENV)/.test $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP_INSTALL) -e '.[bench]'
	@touch $(VENV)/.demo $@

# The library `adapters` needs an older transformers, and so an environment of its own.
.venv-adapters/.ready: benchmarks/adapters.txt
	$(PYTHON) -m venv .venv-adapters
	.venv-adapters/bin/python -m pip install --disable-pip-version-check --quiet -r benchmarks/adapters.txt
	@touch $@
