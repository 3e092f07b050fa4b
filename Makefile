# `make demo` and `make test` need Python 3.11+ and make, and nothing else: they set up .venv by themselves.
PYTHON ?= python3
EXTRAS ?= dev
DEMO_OUT ?= runs/demo

# without bytecode every process of the tests compiles anew, for seconds
unexport PYTHONDONTWRITEBYTECODE

PYTEST = -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# other releases and another Python break a line of code, and not one case of a test more than another; pytest takes half
# a minute to make assertions tell more where they fail
ELSEWHERE = $(PYTEST) -m 'not slow' --ends --assert=plain

.PHONY: demo test test-fast test-long test-lowest test-python coverage test-frameworks test-ray lint docs clean

demo: .venv/ready  ## the main job on the embedded digits; prints where the report lies
	.venv/bin/leakbench run --defense privatesnn --attack reconversion --attack direct --attack auto --out $(DEMO_OUT)

test: .venv/ready  ## all tests but the long ones; ten minutes or so
	.venv/bin/python $(PYTEST)

test-fast: .venv/ready  ## the tests of the inner loop: every layer and one tiny run; some minutes
	.venv/bin/python $(PYTEST) -m 'not slow'

test-long: .venv/ready  ## what takes more than some seconds of a core: before a release, and after changes that it is about
	.venv/bin/python $(PYTEST) -m long

test-lowest: .venv-lowest/ready  ## two cases of each fast test with the lowest release of each dependency; wants Python 3.11
	.venv-lowest/bin/python $(ELSEWHERE)

test-python: .venv-$(notdir $(PYTHON))/ready  ## two cases of each fast test: make test-python PYTHON=python3.13
	.venv-$(notdir $(PYTHON))/bin/python $(ELSEWHERE)

coverage: .venv-$(notdir $(PYTHON))/ready  ## of the fast tests, all cases: make coverage PYTHON=python3.13; wants Python 3.12
	rm -f .coverage*
	.venv-$(notdir $(PYTHON))/bin/coverage run $(PYTEST) -m 'not slow'
	.venv-$(notdir $(PYTHON))/bin/coverage combine --quiet
	.venv-$(notdir $(PYTHON))/bin/coverage report

test-frameworks: .venv-frameworks/ready  ## networks of SpikingJelly, snnTorch, Norse and sinabs, trained there and read here
	.venv-frameworks/bin/python -m pytest tests/foreign

test-ray: .venv-ray/ready  ## runs on a Ray cluster on this machine; minutes
	.venv-ray/bin/python -m pytest tests/bench/test_ray.py

# pip would compile all of PyTorch, which takes longer than to install it; what is imported is compiled then
.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "LeakBench needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --no-compile --editable '.[$(EXTRAS)]'
	touch $@

.venv-lowest/ready: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) .ci/lowest.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/pip install --quiet --no-compile --requirement .venv-lowest/lowest.txt --editable '.[test]'
	touch $@

# sinabs asks for an older nir than SpikingJelly's exchange
.venv-frameworks/ready: pyproject.toml
	$(PYTHON) -m venv .venv-frameworks
	.venv-frameworks/bin/pip install --quiet --editable '.[nir,test]' 'spikingjelly>=2.0' 'snntorch>=1.0' 'norse>=1.1' \
	    'nir>=1.0.8' nirtorch pbr
	.venv-frameworks/bin/pip install --quiet --no-deps 'sinabs>=3.1'
	touch $@

.venv-ray/ready: pyproject.toml
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --editable '.[ray,test]'
	touch $@

# what the interpreter brings already (Debian's PyTorch is a tenth of the other) is not installed again
.venv-%/ready: pyproject.toml
	$(PYTHON) -m venv --system-site-packages .venv-$*
	.venv-$*/bin/pip install --quiet --no-compile --editable '.[test]' coverage
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

docs: .venv/ready  ## the documentation as a site that opens from disk: site/index.html
	.venv/bin/pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build

clean:
	rm -rf .venv .venv-* build site *.egg-info
