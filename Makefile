# `make` alone lists the targets. Everything is installed into .venv; programs that come from the
# distribution are installed with apt-get where they are missing.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
SOURCES := $(shell find rust python packaging -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name '*.json' 2>/dev/null | grep -v /target/) Cargo.toml Cargo.lock pyproject.toml
# Two files of tests at a time: each process has an engine of its own, and much of a test is waiting.
PARALLEL := -n 2 --dist loadfile
export CARGO_TERM_PROGRESS_WHEN := never

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

.PHONY: demo
demo: install ## install, then hello, a host overlay, and an image built, served, pulled and run, with times
	packaging/require demo
	$(BIN)/python packaging/demo.py

.PHONY: test
test: install ## install, then every test (needs root; takes a few minutes)
	packaging/require test
	cargo test --workspace --exclude knarr-py -q
	$(BIN)/python -m pytest $(PARALLEL)

.PHONY: test-slow
test-slow: install ## the long tests: a thousand containers, fault injection at every point (nightly, before a release)
	packaging/require test
	$(BIN)/python -m pytest $(PARALLEL) --slow

.PHONY: tour
tour: install ## docker's command line on knarr beside Docker, which must be empty: its socket is $$KNARR_TOUR_DOCKER
	packaging/require test
	$(BIN)/python -m tests.tour.tour compare "$${KNARR_TOUR_CLI:-$$(command -v docker)}"
	$(BIN)/python -m tests.tour.tour compare $(BIN)/knarr

.PHONY: test-vm
test-vm: wheel ## the wheel on Debian's kernel with cgroup v2, in an emulated virtual machine (needs root)
	packaging/require vm
	PYTHON=$(BIN)/python packaging/vm-test.sh target/wheels/knarr-*.whl

.PHONY: check
check: $(VENV)/check ## formatting, lints, types, stubs, layers and style
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -q -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest knarr._core
	$(BIN)/python -m pytest tests/style

.PHONY: bench
bench: install ## the table of figures, side by side with crun, runc and Docker where they are installed
	packaging/require bench
	$(BIN)/python -m benches

.PHONY: bench-thousand
bench-thousand: install ## a thousand running containers: memory, and what each further one costs
	packaging/require bench
	$(BIN)/python -m benches.thousand

.PHONY: fuzz
fuzz: ## fuzz every target for a minute each (cargo-fuzz, nightly Rust)
	packaging/fuzz.sh 60

.PHONY: install
install: $(VENV)/installed ## build the wheel and install it into .venv

.PHONY: wheel
wheel: target/wheels/.stamp ## build the wheel into target/wheels

target/wheels/.stamp: $(SOURCES)
	@command -v cargo >/dev/null || { echo "knarr is built with Rust: install it first (https://rustup.rs)"; exit 1; }
	packaging/require build
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	rm -rf target/wheels && mkdir -p target/wheels
	$(BIN)/python packaging/requirements.py | $(BIN)/pip install -q -r /dev/stdin
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip wheel -q --no-build-isolation --no-deps -w target/wheels .
	touch $@

$(VENV)/installed: target/wheels/.stamp
	$(BIN)/pip install -q --force-reinstall --no-deps target/wheels/knarr-*.whl
	$(BIN)/pip install -q "$$(echo target/wheels/knarr-*.whl)[test]"
	touch $@

$(VENV)/check: $(VENV)/installed
	$(BIN)/pip install -q "$$(echo target/wheels/knarr-*.whl)[check]"
	touch $@

.PHONY: clean
clean: ## remove what was built (not images or containers)
	rm -rf target $(VENV) python/knarr/resources/hello.tar
