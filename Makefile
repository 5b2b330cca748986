# make run    set up and watch ./inbox          make check   lint (ruff, mypy) and test
# make test   set up and test                   make slow    the long tests; CI runs them, too
#                                               make bench   the figures of docs/benchmarks.md
#
# PYTHON=python3.12 chooses the interpreter (3.11 or newer), VENV=dir where it is set up, BENCH_PHOTOS=dir photographs
# for `make bench` in the place of docs/bee.jpg.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TESTS ?=
BENCH_PHOTOS ?=

.PHONY: run test lint check slow bench clean

run: $(VENV)/dropscale.ready
	@$(BIN)/dropscale init > /dev/null
	exec $(BIN)/dropscale run

test: $(VENV)/test.ready
	$(BIN)/pytest -n 4 --dist worksteal $(TESTS)

lint: $(VENV)/test.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

slow: $(VENV)/test.ready
	$(BIN)/pytest -n 4 --dist worksteal -m slow $(TESTS)

bench: $(VENV)/test.ready
	$(BIN)/python benchmarks/watching.py
	$(BIN)/python benchmarks/workload.py $(if $(BENCH_PHOTOS),--photos '$(BENCH_PHOTOS)')
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/engine.py $(if $(BENCH_PHOTOS),--photos '$(BENCH_PHOTOS)')

clean:
	rm -rf $(VENV)

# The headless wheel of OpenCV: see deploy/requirements.py.
$(VENV)/dropscale.ready: pyproject.toml deploy/requirements.py
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "dropscale needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python deploy/requirements.py web > $(VENV)/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(BIN)/python deploy/requirements.py --only openvino > $(VENV)/requirements-openvino.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: -r $(VENV)/requirements-openvino.txt || echo "There is no OpenVINO for this machine: dropscale runs on OpenCV, which is slower."
	@$(BIN)/python deploy/requirements.py --only heif > $(VENV)/requirements-heif.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: -r $(VENV)/requirements-heif.txt || echo "There is no pillow-heif for this machine: HEIC pictures will be refused."
	touch $@

$(VENV)/test.ready: $(VENV)/dropscale.ready
	$(BIN)/python deploy/requirements.py test > $(VENV)/requirements-test.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r $(VENV)/requirements-test.txt
	touch $@
