# Everything a developer types. `make setup` runs by itself before whatever needs it.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
PIP := $(RUN)/pip install --quiet --constraint constraints.txt
OLD := .venv-compat

.PHONY: setup demo test test-gpu test-compat test-containers check audit docs lock lock-image bench bench-kill bench-serving defaults results base-model clean

setup: $(VENV)/.dev

$(VENV)/.train: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[serve]"
	touch $@

$(VENV)/.dev: $(VENV)/.train
	$(PIP) --editable ".[dev]"
	touch $@

demo: $(VENV)/.train
	$(RUN)/python -m orchestrator submit dreambooth

test: setup
	$(RUN)/python -m pytest --numprocesses 2 --dist worksteal

# On a machine with a GPU, and a build of torch for it: what only a GPU shows, and that resuming there changes no bit.
test-gpu: setup
	ORCHESTRATOR_OWN_GPU=1 $(RUN)/python -m pytest tests/entrypoints/test_gpu.py tests/entrypoints/training/test_resume.py

# Loads what we make with the oldest libraries that people use, which need an environment of their own.
$(OLD)/.installed: tests/compat/constraints.txt
	$(PYTHON) -m venv --clear $(OLD)
	$(OLD)/bin/pip install --quiet --constraint tests/compat/constraints.txt accelerate diffusers peft torch transformers
	touch $@

test-compat: setup $(OLD)/.installed
	$(RUN)/python -m pytest tests/compat

# With a real Docker engine, which `make test` does not need: what it cannot run it counts. ORCHESTRATOR_BASE_IMAGE is the
# image that those of the tests are built on. `.ci/containers` prepares a machine for it.
test-containers: setup
	ORCHESTRATOR_CONTAINERS=1 $(RUN)/python -m pytest tests/containers

check: setup
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/python docs/generate.py --check
	$(RUN)/python containers/lock.py --check
	$(RUN)/python -m benchmarks.density

# Known vulnerabilities of everything that is pinned; asks an advisory service, so it is no part of `make check`.
audit:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet pip-audit
	for file in constraints.txt containers/*/requirements.txt; do \
	  .venv-lock/bin/pip-audit --strict --no-deps --disable-pip --requirement $$file || exit 1; done
	rm -r .venv-lock

docs: setup
	$(RUN)/python docs/generate.py

bench: setup
	$(RUN)/python -m benchmarks

bench-serving: setup
	$(RUN)/python -m benchmarks.serving

bench-kill: setup
	$(RUN)/python -m benchmarks.kill
	$(RUN)/python -m benchmarks.phases
	$(RUN)/python -m benchmarks.interruptions

defaults: setup
	$(RUN)/python -m benchmarks.defaults

results: setup
	$(RUN)/python -m benchmarks.results
	$(RUN)/python -m benchmarks.reinforcement

base-model: setup
	$(RUN)/python -m pretraining all

# Pins what a fresh installation of the newest allowed versions gets, the `container` extra excepted; then `make test`.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet ".[dev]"
	echo "# Every package that \`make setup\` installs, exactly. \`make lock\` renews it." > constraints.txt
	.venv-lock/bin/pip freeze --exclude orchestrator | sed 's/+cpu//' >> constraints.txt
	rm -r .venv-lock
	$(MAKE) lock-image

# What the images install, with the versions of constraints.txt, and what local mode does; another content is another tag
# of the images.
lock-image:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet packaging uv
	.venv-lock/bin/python containers/lock.py
	rm -r .venv-lock

clean:
	rm -rf $(VENV) $(OLD) .venv-sdk
