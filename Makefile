# metadarts: the commands. `make help` lists them.
#
# demo and test need only make, a Python >= 3.11 and a package index that pip can reach; they keep their own .venv.
# gpu needs no network and installs nothing: it uses the Python and torch that the machine already has, and pytest, or what
# carry brought. GPU_ARGS=... chooses steps: make gpu GPU_ARGS='--only tests meta_step'.

.SHELLFLAGS := -eu -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo quick test lint types packages tests interpreted notebooks docs learn2learn carry gpu clean

# THOROUGH=1: the tests marked thorough too, as .ci/run has it.
THOROUGH ?=
EVERYONES = $(if $(THOROUGH),,-m "not thorough")

# Processes that share the tests, file by file; each computes on one thread.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed.stamp
TRIED := $(VENV)/learn2learn.tried

# The interpreter to build .venv from: PYTHON=... alone if it is given, else the first of these that works.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python)

# .venv must not see packages that the caller exported for another project; gpu keeps them, below.
unexport PYTHONHOME
unexport PYTHONPATH

say = printf '\n== %s\n' "$(1)"

help:  ## list the commands
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1  \2/p' $(MAKEFILE_LIST) | sort

# A name on PATH proves nothing (a version manager's shim may stand for no interpreter), so each one is run.
# A .venv that still works is kept: only what pyproject.toml changed is installed again.
$(STAMP): pyproject.toml
	@if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  $(call say,environment: $(VENV)); \
	  found=; \
	  for python in $(CANDIDATES); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	      found=$$python; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    printf '%s\n' 'No usable Python >= 3.11 with the venv and ensurepip modules. Tried: $(CANDIDATES).' \
	      'Install one (on Debian and Ubuntu also python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python' >&2; \
	    exit 1; \
	  fi; \
	  "$$found" --version; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	@$(call say,install: metadarts and what it needs (the first time some 3 GB: torch))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## learn to search architectures on built-in tasks, in minutes
	@$(call say,demo)
	@$(BIN)/metadarts demo

# What one change is most likely to break, of each package: the rest takes minutes.
QUICK := core costs derive inner networks operations optim relaxations spaces stats store tasks viz
quick: $(STAMP)  ## for every save: ruff, and the quick tests of the inner packages
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet .
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow and not thorough" $(QUICK:%=tests/%)

# Each check runs whatever became of the others. Those of one process share the cores; the others have them one by one.
LIGHT := notebooks types docs packages lint
HEAVY := tests interpreted
DONE := build/checks
test: $(STAMP) $(TRIED)  ## every check: the seven below
	@rm -rf $(DONE); mkdir -p $(DONE); failed=0; \
	$(MAKE) --no-print-directory --keep-going --jobs=$(JOBS) --output-sync=target $(LIGHT:%=checked-%) || failed=1; \
	$(MAKE) --no-print-directory --keep-going --jobs=1 $(HEAVY:%=checked-%) || failed=1; \
	$(call say,checks); \
	cat $(DONE)/*; \
	exit $$failed

checked-%:
	@begun=$$(date +%s); how=FAILED; code=1; \
	if $(MAKE) --no-print-directory $*; then how=passed; code=0; fi; \
	printf '  %-12s %s in %d s\n' $* $$how $$(($$(date +%s) - begun)) >$(DONE)/$*; \
	exit $$code

lint: $(STAMP)  ## ruff: rules and layout
	@$(call say,lint)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	@$(call say,types)
	@$(BIN)/mypy

packages: $(STAMP)  ## which package may import which
	@$(call say,packages)
	@$(BIN)/lint-imports

tests: $(STAMP) $(TRIED)  ## pytest
	@$(call say,tests)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(EVERYONES)

docs: $(STAMP)  ## the site of docs/, in build/site: start with index.html; a link that leads nowhere is an error
	@$(call say,docs)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# A process of its own: Triton decides at its import whether kernels are compiled or interpreted.
interpreted: $(STAMP)  ## pytest, Triton kernels under Triton's interpreter
	@$(call say,Triton kernels under the interpreter)
	@TRITON_INTERPRET=1 $(BIN)/python -m pytest -n $(JOBS) $(EVERYONES) tests/interpreted

# A warning here comes from Jupyter, not from the notebook, whose kernel is a process of its own: it is no error.
notebooks: $(STAMP)  ## execute every notebook
	@set -- notebooks/*.ipynb; if [ -e "$$1" ]; then \
	  $(call say,notebooks); \
	  $(BIN)/python -m pytest -n $(JOBS) -W default --nbmake --nbmake-timeout=300 "$$@"; \
	fi

# The release's Cython sources do not compile on Python 3.11 and later: they are generated anew. Of what it declares,
# these four packages are what it imports; they come first, so that pip does not miss the rest aloud.
learn2learn: $(STAMP)  ## build the package learn2learn, for its tasksets and its MAML
	@$(call say,install: learn2learn 0.2.0 (built from source))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check gym requests scipy tqdm
	@CYTHON_FORCE_REGEN=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --use-pep517 --config-settings="--build-option=build_ext" learn2learn==0.2.0
	@$(BIN)/python -c 'from metadarts.integrations import import_learn2learn; import_learn2learn()'

# The tests try it once for an environment; without it, they skip what needs it.
$(TRIED): $(STAMP)
	@if ! $(MAKE) --no-print-directory learn2learn >$@.log 2>&1; then \
	  printf '%s\n' 'learn2learn cannot be built here ($@.log says why): the tests that need it are skipped.'; \
	fi
	@touch $@

# For a machine with a GPU and without a network: build/carried is pure Python.
carry: $(STAMP)  ## pytest as a folder, build/carried, for `make gpu` where pytest is not installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target build/carried pytest

gpu:  ## checks and timings on this machine's GPU, with its own Python and torch
	@PYTHONPATH="$(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))" $(if $(PYTHON),"$(PYTHON)",python3) -m benchmarks.gpu $(GPU_ARGS)

clean:  ## remove .venv, caches and build output; runs/ is kept
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
