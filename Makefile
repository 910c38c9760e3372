# make demo             train, test and draw on the built-in data set
# make test             the tests, with the maintained toolbox stack
# make test-openmmlab   the tests, with the classic toolbox stack
# make test-long        what runs may meet: kills at every moment, many epochs, processes,
#                       bad input; half an hour
# make test-export      every architecture, full size, through both export formats: an
#                       hour and 12 GB
# make test-gpu         on a GPU, in under ten minutes: the kernels' tests, then time and
#                       memory beside timm's, as a table. With PYTHON=... in that
#                       interpreter's environment as it is, else in .venv
# make errors           docs/errors.md, from the table of tests/bad_inputs
# make lint             ruff and mypy
# make test-isa         the models' tests with other instruction sets and one thread
# make coverage         the share of lines that the tests of TESTED run, by file
# PYTHON=python3.12 chooses the interpreter of a new environment; JOBS=4 how many tests
# run at a time; TESTED=tests/optim which tests coverage runs.

PYTHON ?= python3
JOBS ?= 2
TESTED ?= tests
TESTS = -n $(JOBS) --dist loadfile
DEMO = configs/det/cascade_mask_rcnn_convnext_atto_shapes.py

.PHONY: demo test test-openmmlab test-long test-isa test-export test-gpu \
	errors coverage lint

# --no-compile: Python compiles what is imported, which is little of 6 GB; it must be let,
# or each process compiles it again.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL = bin/pip install --no-compile --disable-pip-version-check -e

.venv/.onedl: setup.py
	$(PYTHON) -m venv .venv
	.venv/$(PIP_INSTALL) '.[onedl]'
	touch $@

.venv/.dev: .venv/.onedl
	.venv/$(PIP_INSTALL) '.[onedl,dev]'
	touch $@

.venv-openmmlab/.dev: setup.py
	$(PYTHON) -m venv .venv-openmmlab
	.venv-openmmlab/$(PIP_INSTALL) '.[openmmlab,dev]'
	touch $@

demo: .venv/.onedl
	.venv/bin/python tools/train.py $(DEMO) --work-dir work_dirs/demo
	.venv/bin/python tools/test.py $(DEMO) work_dirs/demo/epoch_4.pth \
		--work-dir work_dirs/demo --show-dir work_dirs/demo/pictures
	@echo "Truth beside prediction, image by image: work_dirs/demo/pictures"

test: .venv/.dev
	.venv/bin/python -m pytest $(TESTS)

# The GPU's kernels know nothing of a toolbox: make test has their tests.
test-openmmlab: .venv-openmmlab/.dev
	.venv-openmmlab/bin/python -m pytest $(TESTS) --ignore=tests/models/gpu

# Tests must hold whichever kernels PyTorch and oneDNN choose for the processor.
MODEL_TESTS = .venv/bin/python -m pytest $(TESTS) tests/models --ignore=tests/models/gpu

test-isa: .venv/.dev
	ATEN_CPU_CAPABILITY=default $(MODEL_TESTS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 $(MODEL_TESTS)

test-long: .venv/.dev
	.venv/bin/python -W ignore -m tests.programs.kill_points --random 10
	CONVNEXT_DENSE_LOAD=1 .venv/bin/python -m pytest -rP -o faulthandler_timeout=0 \
		tests/engine tests/commands/test_bad_inputs.py \
		tests/patches/test_run_checkpoints.py

test-export: .venv/.dev
	CONVNEXT_DENSE_EVERY_ARCH=1 .venv/bin/python -m pytest tests/commands/test_export.py \
		-k test_every_architecture

# An interpreter that is given has all it needs: the machine may have no package index.
GIVEN = $(filter-out file,$(origin PYTHON))
GPU_PYTHON = $(if $(GIVEN),$(PYTHON),.venv/bin/python)

test-gpu: $(if $(GIVEN),,.venv/.dev)
	$(GPU_PYTHON) -m pytest -m gpu
	$(GPU_PYTHON) -m tests.programs.gpu_table

errors: .venv/.dev
	.venv/bin/python -m tests.bad_inputs > docs/errors.md

# Lines that only run in processes of their own count as not run.
coverage: .venv/.dev
	.venv/bin/python -m pytest $(TESTS) --cov=convnext_dense --cov-report=term \
		$(TESTED)

lint: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
