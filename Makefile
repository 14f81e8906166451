# Everything here sets up what it needs first; only Python >= 3.11 must be there.
#   make demo | test | test-java | lint | format | bench | bench-quick | bench-import | peers | setup | wheel | clean
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV ?= .venv
# Arguments for pytest, the demo and the benchmarks: make test ARGS="tests/client -x"
ARGS ?=
# Processes that share the tests: one for each core; 0 runs them all in one, as a debugger wants it.
JOBS ?= logical

BIN := $(VENV)/bin
# The stamps carry the version: an environment of another interpreter does not count, and is made anew.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
READY := $(VENV)/.ready-$(VERSION)
WEIGHTS := $(VENV)/.weights-$(VERSION)
STEP := .ci/step
PIP := $(BIN)/python -m pip --disable-pip-version-check install --no-input
# The pinned versions are those that were tried together; CONSTRAINTS= takes the newest ones.
CONSTRAINTS ?= constraints.txt
PINNED := $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

PROOFS := bench-swap bench-malformed bench-overload bench-peers bench-workers bench-front

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-java lint format bench bench-quick $(PROOFS) bench-import bench-java bench-jmh peers wheel clean

help:
	@sed -n '2,3s/^# *//p' Makefile

setup: $(READY) $(WEIGHTS)

demo: setup
	@$(BIN)/python examples/demo.py $(ARGS)

test: setup
	@$(BIN)/python -m pytest $(if $(filter-out 0,$(JOBS)),-n $(JOBS) --dist worksteal) $(ARGS)
	@$(if $(ARGS),,.ci/java --optional "tests of the Java client" verify)

# The Java client's own tests, which use the server of this environment, and its Javadoc.
test-java: $(READY)
	@.ci/java "tests of the Java client" verify

lint: $(READY)
	@$(STEP) "ruff check" $(BIN)/ruff check --quiet
	@$(STEP) "ruff format" $(BIN)/ruff format --check --quiet
	@$(STEP) "basedpyright" $(BIN)/basedpyright

format: $(READY)
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

# Under two minutes. Figures worth quoting need a machine that does nothing else.
bench-quick: $(READY)
	@$(BIN)/python -m tensorwire.bench quick --check $(ARGS)

# One of the proofs: no failed call while versions change, nothing that bad input, overload,
# bad peers or dying workers can harm.
$(PROOFS): bench-%: $(READY)
	@$(BIN)/python -m tensorwire.bench $* --check $(ARGS)

# Everything, each part to its end; fails at the end if a part did. Ctrl-C ends all of it.
bench: $(READY)
	@failed=; \
	run() { echo; echo "== $$*"; $(BIN)/python -m "$$@" || { [ $$? -ne 130 ] || exit 130; failed="$$failed $${2:-$$1}"; }; }; \
	run tensorwire.bench quick --rounds 7 --duration 2 --warmup 0.5 --out out/bench.json --check; \
	for proof in $(PROOFS:bench-%=%); do run tensorwire.bench $$proof --check; done; \
	run tensorwire.bench.import_time; \
	[ -z "$$failed" ] || { echo "not passed:$$failed" >&2; exit 1; }

bench-import: $(READY)
	@$(BIN)/python -m tensorwire.bench.import_time $(ARGS)

# The Java client beside grpc-java; needs a JDK and Maven, which fetches gRPC.
bench-java: $(READY)
	@.ci/java "building the Java benchmarks" -Pbench package -DskipTests
	@$(BIN)/python -m tensorwire.bench java --check $(ARGS)

# What writing and reading messages costs in Java.
bench-jmh:
	@.ci/java "building the Java benchmarks" -Pbench package -DskipTests
	@java -cp 'client/java/bench/target/tensorwire-bench.jar:client/java/bench/target/lib/*' org.openjdk.jmh.Main CodecBenchmark $(ARGS)

# Systems in other languages that the benchmarks compare, where what they are built of is installed.
peers:
	@$(MAKE) --silent --no-print-directory -C bench/peers/grpc_cpp BUILD='$(CURDIR)/build/peers/grpc_cpp'
	@echo "built: build/peers/grpc_cpp"

wheel: $(READY)
	@$(STEP) "building dist/" $(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) build dist out client/java/target client/java/*/target *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- set-up

# Where a part of the compiled pump has changed it is built anew.
$(READY): setup.cfg setup.py pyproject.toml constraints.txt $(wildcard $(foreach part,rpc/pump server/processes,$(part)/*.pyx $(part)/*.pxi))
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there; name another one: make PYTHON=..." >&2; exit 1; }
	@$(STEP) "virtual environment in $(VENV)" $(PYTHON) .ci/venv.py $(VENV)
	@$(STEP) "installing tensorwire and its tools into $(VENV)" $(PIP) $(PINNED) --editable '.[dev]'
	@touch $@

# Only the model files of these packages are used, never their code: silero-vad alone would bring PyTorch.
$(WEIGHTS): constraints.txt | $(READY)
	@$(STEP) "installing the examples' models" $(PIP) $(PINNED) --no-deps --ignore-requires-python \
		'magika>=1.0.1' 'rapidocr-onnxruntime>=1.4.0' 'silero-vad>=6.2.2'
	@touch $@
