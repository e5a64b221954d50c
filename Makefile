# Every target does the set-up by itself; `make setup` does nothing when nothing changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
# Many tests wait for programs of theirs, so that two cores are busy with three. What is shared stays in one process: see tests/conftest.py.
AT_ONCE := --dist=loadscope --no-loadscope-reorder --numprocesses=3
# Where this is set, as in many containers, each program of the tests compiles the modules of the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Which tests `make test-long` runs.
LONG ?= long or chaos or hypothesis
# How many workers `make chaos` kills.
KILLS ?= 300
# How often `make bench` measures everything.
ROUNDS ?= 5

.PHONY: help setup train test test-long test-untaped chaos test-nodes test-arm64 papers check check-peers check-cluster hooks format bench clean

help:
	@echo "make train   set up, and train a network on handwritten digits on all cores"
	@echo "make test    set up, and run all tests"
	@echo "make test-long   what is rare or takes long: more places, more examples, damaged files and signals by the hundred"
	@echo "make test-untaped   the same bits when every step goes through Python, and nothing is recorded"
	@echo "make chaos   kill, stop and starve workers of trainings by the hundred, and print a table; KILLS=30 for fewer"
	@echo "make test-nodes   test on several hosts, which it makes out of network namespaces (as root)"
	@echo "make test-arm64   train on an emulated arm64 processor and compare the bits (as root, some 6 minutes)"
	@echo "make check   format, lint, types and layers"
	@echo "make hooks   run these checks before every commit, with pre-commit, which it installs"
	@echo "make format  format the code"
	@echo "make papers  run the experiments of the papers on ReLU again: tables, verdicts on claims, pictures in papers/"
	@echo "make bench   measure speed beside PyTorch and JAX, which it installs, and write it to bench.md; ROUNDS=1 is quicker"
	@echo "make check-peers   compare with PyTorch, which it installs"
	@echo "make check-cluster   check the scripts and manifests in cluster/, with tools that it installs"
	@echo "make clean   remove the virtual environment and all caches"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --constraint constraints.txt --editable '.[test]'
	-$(BIN)/python -c 'import dist_relu, ray'  # compiles what later processes, that may write nothing, need most
	touch $@

train: setup
	$(BIN)/python scripts/train.py

test: setup
	$(BIN)/python -m pytest $(AT_ONCE) --durations=20

test-long: setup
	$(BIN)/python -m pytest $(AT_ONCE) --durations=20 --hypothesis-profile=long -m "$(LONG)"

test-untaped: setup
	DIST_RELU_TAPES=off $(BIN)/python -m pytest $(AT_ONCE) tests/conformance tests/test_same_bits.py

chaos: setup
	$(BIN)/python -m tests.chaos --kills $(KILLS)

test-nodes: setup
	@test "$$(id -u)" = 0 || { echo "make test-nodes needs root, to make network namespaces."; exit 1; }
	$(BIN)/python -m pytest tests/hosts

test-arm64: setup
	$(BIN)/python -m tests.arm64

papers: setup
	for script in $(filter-out %/common.py,$(wildcard scripts/papers/*.py)); do $(BIN)/python $$script || exit 1; done

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers=auto
	$(BIN)/lint-imports

hooks: setup
	$(PIP) --editable '.[hooks]'
	$(BIN)/pre-commit install

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(PIP) --editable '.[peers]'
	$(BIN)/python scripts/bench.py all --rounds $(ROUNDS) --output bench.md

check-peers: setup
	$(PIP) --editable '.[peers]'
	$(BIN)/python -m pytest $(AT_ONCE) -m peer $$(grep -rl mark.peer tests)

check-cluster: setup
	$(PIP) --editable '.[cluster]'
	$(BIN)/python cluster/check.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
