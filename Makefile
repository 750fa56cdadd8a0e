# Every target makes its own environment: nothing but Python is needed beforehand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
ROWS ?=
PUBLISH ?=
# Not every part of the tests has some of those that ARGS choose: 5 is pytest's status for none.
NONE := $(if $(ARGS),|| test $$? = 5)
COMMA := ,
FAULTS := $(if $(ROWS),$(patsubst %,tests/faults/test_%.py,$(subst $(COMMA), ,$(ROWS))),tests/faults)
FIRST_LOOK ?= cassettes/lxd/first-look.yaml

.PHONY: help run test check docs cassettes bench campaign

help:  ## say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/run  ## tap the LXD or Incus daemon of this machine; where there is none, play a recorded one
	@$(BIN)/lxdtap run --hello --or-replay $(FIRST_LOOK) $(ARGS)

test: $(VENV)/dev  ## run all tests; those with real daemons where these are installed
	@$(BIN)/python tests/coverage_gate.py
	@$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS) tests/bench tests/process tests/faults $(NONE)
	@$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS) tests/daemons $(NONE)

campaign: $(VENV)/dev  ## the tests of faults in full counts, for hours; ROWS=kills,soak some of it, beside others
	@mkdir -p build
	@$(BIN)/python -m pytest -s --campaign --timeout 14400 --figures build/campaign.json $(ARGS) $(FAULTS)

check: $(VENV)/dev docs  ## lint, format, types and docs, as CI does
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

docs: $(VENV)/docs  ## build the documentation's site, build/docs/index.html
	@$(BIN)/sphinx-build -q -E -W --keep-going -d build/doctrees docs build/docs
	@echo "the site is in build/docs/index.html"

cassettes: $(VENV)/dev  ## record cassettes/ again, from throwaway daemons (see .ci/install-daemons)
	@$(BIN)/python -m tests.daemons.cassettes $(ARGS)

bench: $(VENV)/bench  ## measure lxdtap beside its peers; ROWS=relay,bulk some of it, PUBLISH=docs for the docs
	@$(BIN)/python -m tests.bench $(if $(ROWS),--rows $(ROWS)) $(if $(PUBLISH),--publish $(PUBLISH)) $(ARGS)

$(VENV)/pip:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: there is no $(PYTHON); on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is older than Python 3.11; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "make: $(PYTHON) cannot make environments; on Debian: apt-get install python3-venv" >&2; \
	  rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/run: $(VENV)/pip pyproject.toml
	@echo "installing lxdtap into $(VENV) ..." >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/dev: $(VENV)/pip pyproject.toml
	@echo "installing lxdtap and what its tests need into $(VENV) ..." >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/run

$(VENV)/bench: $(VENV)/pip pyproject.toml
	@echo "installing lxdtap and what its measurements need into $(VENV) ..." >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,bench]'
	@touch $@ $(VENV)/dev $(VENV)/run

$(VENV)/docs: $(VENV)/pip pyproject.toml
	@echo "installing lxdtap and what its documentation needs into $(VENV) ..." >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@ $(VENV)/run
