# Needs Python 3.11, pip and make; everything else is fetched from the package registries.
# No paths with $(CURDIR): the folder's name may hold a space.

# The system's own first: distributions optimize Python by a profile, version managers mostly do not, and then everything
# here takes a fifth more CPU.
PYTHON ?= $(shell /usr/bin/python3.11 -c 'import ensurepip, sys; print(sys.executable)' 2>/dev/null || \
	command -v python3.11 || command -v python3)
BIN := .venv/bin
DONE := .venv/done
EDITABLE := kit chains services/ledger services/verifier services/orders services/gateway local
PROTO_FILES := $(shell find protos -path protos/build -prune -o -type f ! -path '*.egg-info*' ! -path '*/__pycache__/*' -print)
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

.PHONY: install run demo test smoke simulate lint lock clean bench

install: $(DONE)/packages $(DONE)/contracts

run: install
	@exec $(BIN)/python -m local run

demo: install
	@exec $(BIN)/python -m local demo

bench: install
	@exec $(BIN)/python -m bench

smoke: install
	@exec $(BIN)/python -m bench --smoke

test: install
	@exec $(BIN)/python -m pytest -n 4 --dist loadfile

simulate: install
	@exec $(BIN)/python -m pytest tests/simulation/run.py

lint: install
	@exec .ci/lint

lock: install
	@exec .ci/lock

clean:
	@[ ! -e $(DONE)/packages ] || exec $(BIN)/python -m local clean

# Some systems ship Python without the part of venv that brings pip along.
$(DONE)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 is needed")'
	$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --without-pip .venv && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@mkdir -p $(DONE) && touch $@

$(DONE)/libraries: requirements/dev.txt $(DONE)/venv
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

# In one step, so that pip sees them all at once. The generated protobuf code is made here.
$(DONE)/packages: $(PROTO_FILES) $(EDITABLE:%=%/pyproject.toml) $(DONE)/libraries
	$(PIP) install --no-deps --no-build-isolation ./protos $(EDITABLE:%=-e %)
	@touch $@

# Install scripts are off: what they would do (check the platform) does not matter here.
$(DONE)/tools: package.json $(DONE)/libraries
	PATH="$$PWD/$(BIN):$$PATH" npm install --no-package-lock --no-audit --no-fund --ignore-scripts --no-update-notifier --loglevel=error
	@touch $@

$(DONE)/contracts: $(wildcard contracts/*.sol) contracts/compile.js $(DONE)/tools
	$(BIN)/node contracts/compile.js
	@touch $@
