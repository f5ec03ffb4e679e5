# `make demo` and `make test` need only Python 3.11 or later and make; each does its own set-up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKSPACE ?= workspace
TEST_FLAGS ?=

.PHONY: demo app test lint bench pocket install browser clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.default
	$(BIN)/versus demo --workspace $(WORKSPACE)

app: $(VENV)/.default
	$(BIN)/versus app --workspace $(WORKSPACE)

test: $(VENV)/.dev browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(TEST_FLAGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

pocket: $(VENV)/.default
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m finetune.pocket.make --checks docs_corpus/fairfold-listings/checks.jsonl

install: $(VENV)/.dev

$(VENV)/.pip:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	@touch $@

$(VENV)/.default: $(VENV)/.pip pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.default
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The browser tests drive Chromium. It is installed where that is allowed; where it is not, those tests are skipped.
browser: $(VENV)/.dev
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	  || { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] \
	       && apt-get update -qq && apt-get install -qq --yes chromium >/dev/null; } \
	  || $(BIN)/python -m playwright install chromium \
	  || echo "no Chromium could be installed: browser tests will be skipped"

clean:
	rm -rf $(VENV) workspace .pytest_cache .mypy_cache .ruff_cache
