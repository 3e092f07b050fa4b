# `make demo` and `make test` need Python 3.11+ and make, and nothing else: they set up .venv by themselves.
PYTHON ?= python3
DEMO_OUT ?= runs/demo

.PHONY: demo test lint clean

demo: .venv/ready  ## the main job on the embedded digits; prints where the report lies
	.venv/bin/leakbench run --defense privatesnn --attack reconversion --attack direct --attack auto --out $(DEMO_OUT)

test: .venv/ready  ## all tests
	.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "LeakBench needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --editable '.[dev]'
	touch $@

# Type checker and import linter see attacks/, defenses/ and reports/ under their package names in setuptools' strict
# editable mode only, which in turn does not see new files: so it is left again afterwards.
lint: .venv/ready  ## style, types, import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pip install --quiet --no-deps --editable . --config-settings editable_mode=strict
	cd build && ../.venv/bin/mypy --config-file ../pyproject.toml -p leakbench \
	    && ../.venv/bin/lint-imports --config ../pyproject.toml; status=$$?; cd .. && \
	    .venv/bin/pip install --quiet --no-deps --editable . && exit $$status

clean:
	rm -rf .venv build *.egg-info
