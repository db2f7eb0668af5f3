# Each target works from a fresh clone, with nothing but Python (3.11 to 3.13) and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2  # tests at a time

.PHONY: help demo test test-slow mutants lint format bench bench-full peers nuclei clean

help:
	@echo "make demo    install, segment a synthetic time-lapse, show what came of it"
	@echo "make test    install what tests need, run them (STACKSEG_DATA=... adds real data)"
	@echo "make test-slow   the long ones: hundreds of kills, memory of long jobs"
	@echo "make mutants     break each promise in turn; the tests must see it"
	@echo "make lint    ruff, mypy, and that imports run one way"
	@echo "make bench   measure this machine: the limit, the paper's second, stages, peers if they are there"
	@echo "make peers   install what bench compares with (PyTorch, MONAI, bioimageio.core) into .peers"
	@echo "make bench-full   all of docs/benchmarks.md and docs/scale.md, and both pages: 20 minutes or so"
	@echo "make nuclei  train the bundled model again (STACKSEG_DATA/dsb2018 is needed)"

$(VENV)/.base: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "stackseg needs Python 3.11 to 3.13; name one, as in: make demo PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --editable '.[train,dicom,nifti]' --group test
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group lint
	@touch $@

demo: $(VENV)/.base
	$(BIN)/stackseg demo --output demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

# Breaks the product in one way after the other, and expects the tests to fail: a quarter of an hour or so.
mutants: $(VENV)/.test
	$(BIN)/python -m tests.mutants

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.bench: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	@touch $@

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

peers: .peers/.done

.peers/.done: pyproject.toml
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet --upgrade pip
	.peers/bin/python -m pip install --quiet --editable '.[train]' 'dask[array]' monai bioimageio.core
	@touch $@

bench-full: $(VENV)/.bench
	$(BIN)/python -m benchmarks --full

# Three teachers, two students of theirs, and one of these that learns on from all in three rounds: six hours of a core that
# multiplies in bf16 (AMD Zen 5), longer on others. A run that is whole is not repeated.
TRAIN_NUCLEI = $(BIN)/stackseg train --data $(STACKSEG_DATA)/dsb2018 --layout pairs --epochs 44 \
    --steps-per-epoch 240 --batch 8 --ema 0.995 --synthetic 160 --synthetic-share 0.2 --class-name nucleus
TEACHERS := runs/strong runs/light runs/quarter

runs/strong/summary.json: | $(VENV)/.test
	$(TRAIN_NUCLEI) --augment strong --output runs/strong

runs/light/summary.json: | $(VENV)/.test
	$(TRAIN_NUCLEI) --augment light --output runs/light

runs/quarter/summary.json: | $(VENV)/.test
	$(TRAIN_NUCLEI) --augment strong --channels 32,64,128,256,512 --shuffle 4 --output runs/quarter

runs/first/summary.json: | $(TEACHERS:%=%/summary.json)
	$(TRAIN_NUCLEI) --augment strong $(TEACHERS:%=--teacher %) --teacher-share 0.8 --output runs/first

runs/deep/summary.json: | $(TEACHERS:%=%/summary.json)
	$(TRAIN_NUCLEI) --augment strong $(TEACHERS:%=--teacher %) --teacher-share 0.7 \
	    --channels 16,32,64,128,256 --output runs/deep

LEARN_ON = $(TRAIN_NUCLEI) --augment strong --teacher runs/deep $(TEACHERS:%=--teacher %) --teacher-share 0.9 --lr 0.001

runs/second/summary.json: | runs/first/summary.json runs/deep/summary.json
	$(LEARN_ON) --init runs/first --output runs/second

runs/third/summary.json: | runs/second/summary.json
	$(LEARN_ON) --init runs/second --output runs/third

runs/nuclei/summary.json: | runs/third/summary.json
	$(LEARN_ON) --teacher runs/third --init runs/third --output runs/nuclei

nuclei:
	test -n "$(STACKSEG_DATA)" || { echo "set STACKSEG_DATA to a folder that holds dsb2018/"; exit 2; }
	$(MAKE) runs/nuclei/summary.json
	$(BIN)/stackseg export runs/nuclei --output engine/model/bundled/nuclei.onnx --overwrite --name nuclei \
	    --description "Nuclei in fluorescence microscopy, any size from about 8 to 80 px across."

clean:
	rm -rf $(VENV) .peers .bench demo
