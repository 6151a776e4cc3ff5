# make quickstart   set up and run a whole small study on embedded data
# make test         set up and run the fast tests;   make test-slow   those of minutes
# make test-long    those that want a machine for themselves, one after another
# make durations    all tests, and which took longest;   make cover   which lines the fast ones enter
# make lint         ruff, pyright and codespell;   make fix   what ruff can mend by itself
# make bench        the short benchmarks, about ten minutes of one core; ratios into benchmarks/measured
# make docs         the documentation's site, into site/; strict: links, anchors and all fields
# make k8s-render   k8s/*.yaml and k8s/jobs/*.yaml from k8s/base; IMAGE=name:tag names the image
# make k8s-secret   the cluster's random secrets, once;   make compose-secret   those of compose
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
# A third of the modules is ever imported, so bytecode is written then and not by pip; without any,
# each of the hundreds of processes that tests start would compile everything anew.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# What tests compare with, and whose own pins don't go with those of the lock.
PEERS  := robustbench adv-lib attackbenchlib pytorch-pretrained-biggan
PYTHON_CACHES := PYTHONDONTWRITEBYTECODE=
# Processes that share the tests; what must stay together does (tests/conftest.py). The slow ones
# wait for servers, clusters and patience half of the time.
JOBS   ?= 2
JOBS_SLOW ?= 3
PYTEST := $(PYTHON_CACHES) $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test test-slow test-long durations cover lint fix bench docs clean k8s-render k8s-secret compose-secret
.DELETE_ON_ERROR:

quickstart: $(VENV)/.run
	$(PYTHON_CACHES) $(BIN)/robustray quickstart

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.dev
	$(PYTEST) --numprocesses $(JOBS_SLOW) -m "slow and not long"

test-long: $(VENV)/.dev
	$(PYTEST) --numprocesses 0 -m long

durations: $(VENV)/.dev
	$(PYTEST) --durations 40 --durations-min 5

cover: $(VENV)/.dev
	$(PYTEST) -m "not slow" --cov robustray --cov-report term:skip-covered

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --threads 2 --pythonpath $(BIN)/python
	$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs robustray tests benchmarks scripts jobs manifests

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(PYTHON_CACHES) $(BIN)/python benchmarks/short.py --fresh

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(PYTHON_CACHES) $(BIN)/python -m mkdocs build --quiet

k8s-render: $(VENV)/.run
	$(if $(IMAGE),$(BIN)/python scripts/render_k8s.py --image '$(IMAGE)',$(BIN)/python scripts/render_k8s.py)

k8s-secret:
	$(PYTHON) scripts/make_secrets.py kubernetes

compose-secret:
	$(PYTHON) scripts/make_secrets.py compose

# torch and its torchvision come first, so that nothing else chooses their build.
$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes)"
	$(PIP) --constraint constraints.txt torch torchvision
	$(PIP) --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --constraint constraints.txt --editable '.[dev,docs,timm,hf,robustbench]'
	$(PIP) --constraint constraints.txt --no-deps $(PEERS)
	touch $@

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache .hypothesis build *.egg-info
