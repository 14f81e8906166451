# Everything here sets up what it needs first; only Python >= 3.11 must be there.
#   make demo | test | test-java | lint | format | setup | wheel | wheels | clean
#   make bench | bench-quick | bench-proofs | bench-locust | bench-java | bench-jmh | bench-peers | bench-triton | bench-import
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV ?= .venv
# Arguments for pytest, the demo and the benchmarks: make test ARGS="tests/client -x"
ARGS ?=
# Interpreters that `make wheels` builds for.
PYTHONS ?= python3.11 python3.12 python3.13
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

PEERS := grpc_cpp thrift_cpp
PROOFS := bench-swap bench-malformed bench-overload bench-bad-peers bench-workers bench-front

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-java lint format bench bench-quick bench-proofs $(PROOFS) bench-locust bench-peers bench-triton \
	bench-import bench-java bench-jmh wheel wheels clean

help:
	@sed -n '2,4s/^# *//p' Makefile

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

# Every system in every scenario, side by side, in under twenty minutes; writes out/bench/. Systems in other
# languages are built where that is possible; those that cannot run are named as not run. Ctrl-C keeps what
# was measured. ARGS="A B --rounds 5" for some of it: see tensorwire bench run --help.
bench: setup
	@$(MAKE) --silent --no-print-directory bench-peers || echo "going on without what could not be built" >&2
	@[ -d build/peers/triton ] || $(MAKE) --silent --no-print-directory bench-triton || \
		echo "going on without Triton" >&2
	@$(BIN)/tensorwire bench run $(ARGS)

# Under two minutes, and the expected ratios are checked. Figures worth quoting need a machine that does
# nothing else.
bench-quick: $(READY)
	@$(BIN)/python -m tensorwire.bench quick --check $(ARGS)

# One of the proofs: no failed call while versions change, nothing that bad input, overload,
# bad peers or dying workers can harm.
$(PROOFS): bench-%: $(READY)
	@$(BIN)/python -m tensorwire.bench $* --check $(ARGS)

# All proofs, each to its end; fails at the end if one did. Ctrl-C ends all of it.
bench-proofs: $(READY)
	@failed=; \
	run() { echo; echo "== $$*"; $(BIN)/python -m "$$@" || { [ $$? -ne 130 ] || exit 130; failed="$$failed $${2:-$$1}"; }; }; \
	run tensorwire.bench quick --rounds 7 --duration 2 --warmup 0.5 --out out/bench.json --check; \
	for proof in $(PROOFS:bench-%=%); do \
		run tensorwire.bench $$proof --check; \
	done; \
	run tensorwire.bench.import_time; \
	[ -z "$$failed" ] || { echo "not passed:$$failed" >&2; exit 1; }

# Users in Python that Locust starts and counts; ARGS=--web for its page.
bench-locust: $(READY)
	@$(BIN)/python -m tensorwire.bench.locust_run $(ARGS)

bench-import: $(READY)
	@$(BIN)/python -m tensorwire.bench.import_time $(ARGS)

# Systems in other languages that the benchmarks compare. Each is built where what it takes is installed; what
# is missing for the others is said, and the benchmarks say it again. Fails only where none could be built.
bench-peers:
	@built=; for peer in $(PEERS); do \
		if $(MAKE) --silent --no-print-directory -C bench/peers/$$peer BUILD='$(CURDIR)/build/peers/'$$peer; then \
			built=yes; echo "built: build/peers/$$peer"; \
		else echo "not built: $$peer" >&2; fi; \
	done; [ -n "$$built" ]

# Triton's server, which is inside of a wheel of 55 MB; beside the environment, because its Python backend needs
# a NumPy before 2. ONNX Runtime is the same as in the environment.
bench-triton: $(READY)
	@$(STEP) "installing tritonserver into build/peers/triton" $(PIP) --quiet --no-deps --upgrade \
		--target build/peers/triton 'nvidia-pytriton==0.7.0' 'numpy<2' flatbuffers packaging protobuf \
		onnxruntime==$$($(BIN)/python -c 'from importlib.metadata import version; print(version("onnxruntime"))')

# The Java client beside grpc-java; needs a JDK and Maven, which fetches gRPC.
bench-java: $(READY)
	@.ci/java "building the Java benchmarks" -Pbench package -DskipTests
	@$(BIN)/python -m tensorwire.bench java --check $(ARGS)

# What writing and reading messages costs in Java.
bench-jmh:
	@.ci/java "building the Java benchmarks" -Pbench package -DskipTests
	@java -cp 'client/java/bench/target/tensorwire-bench.jar:client/java/bench/target/lib/*' org.openjdk.jmh.Main CodecBenchmark $(ARGS)

wheel: $(READY)
	@$(STEP) "building dist/" $(BIN)/python -m build --no-isolation

# One wheel for each of these interpreters, all from the same source archive.
wheels: $(READY)
	@rm -f dist/*.tar.gz
	@$(STEP) "source archive in dist/" $(BIN)/python -m build --no-isolation --sdist
	@for python in $(PYTHONS); do \
		command -v $$python >/dev/null || { echo "$$python is not there; name those that are: make wheels PYTHONS='...'" >&2; exit 1; }; \
		$(STEP) "wheel for $$python" $$python -m pip --disable-pip-version-check wheel --no-deps --no-cache-dir --wheel-dir dist dist/*.tar.gz || exit 1; \
	done

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
