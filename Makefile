# make demo             train, test and draw on the built-in data set
# make test             the tests, with the maintained toolbox stack
# make test-openmmlab   the tests of what uses a toolbox, with the classic stack
# make test-kernels     the GPU's kernels on a CPU: interpreted, emulated and compiled
# make test-isa         the models' tests with other instruction sets and with one thread
# make test-long        kills at every moment, many epochs, many processes, bad input;
#                       half an hour
# make test-export      every architecture, full size, and four whole detectors, through both
#                       export formats; an hour and a half, and 12 GB
# make test-configs     every config of COCO and ADE20K trains two steps of real samples; an
#                       hour and 10 GB
# make fuzz             mutated files for MINUTES=60; what is found is in work_dirs/fuzz
# make fuzz-short       the same for one minute, with the same cases each time
# make fuzz-coverage    unpickling and run lengths with atheris, for MINUTES=60
# make test-apps        the tests of optional features, which need packages of their own
# make wheel            dist/*.whl and the sdist, checked
# make try-wheel        the wheel in a fresh environment and an empty folder; SHORT=1 borrows
#                       the packages of .venv
# make families         a step of every model family of mmdet and mmseg, as shipped and
#                       with ConvNeXt; half an hour. FAMILIES="detr pspnet" for some
# make test-gpu         on a GPU: the kernels' tests, then a table of time and memory
#                       beside timm's; ten minutes. PYTHON=... takes that interpreter's
#                       environment as it is, instead of .venv
# make lint             ruff check, ruff format --check, mypy
# make coverage         the share of lines that tests run, by file
# make errors           docs/errors.md, from the table of tests/bad_inputs
# make site             the documentation site, in work_dirs/site
# PYTHON=python3.12     the interpreter of a new environment
# JOBS=4                how many tests run at a time
# TESTED=tests/optim    which tests coverage runs

PYTHON ?= python3
JOBS ?= 2
TESTED ?= tests
MINUTES ?= 60
# No reorder: by default xdist starts files with few tests last. Some of them take minutes,
# in which the other workers would have nothing to do.
TESTS = -n $(JOBS) --dist loadfile --no-loadscope-reorder
# The tests that run at a time share the cores: more threads would wait for each other.
test test-openmmlab test-apps test-kernels: export OMP_NUM_THREADS = 1
DEMO = configs/det/cascade_mask_rcnn_convnext_atto_shapes.py

.PHONY: demo test test-openmmlab test-kernels test-long test-isa test-export \
	test-configs test-gpu test-apps wheel try-wheel families fuzz fuzz-short \
	fuzz-coverage errors coverage lint site

# --no-compile: few of the 6 GB of modules are imported, and Python compiles those at the
# first import. Without bytecode files each process would compile them again.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL = bin/pip install --no-compile --disable-pip-version-check -e

.venv/.onedl: pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	.venv/$(PIP_INSTALL) '.[onedl]'
	touch $@

.venv/.dev: .venv/.onedl
	.venv/$(PIP_INSTALL) '.[onedl,dev]'
	touch $@

.venv-openmmlab/.dev: pyproject.toml setup.py
	$(PYTHON) -m venv .venv-openmmlab
	.venv-openmmlab/$(PIP_INSTALL) '.[openmmlab,dev]'
	touch $@

demo: .venv/.onedl
	.venv/bin/python tools/train.py $(DEMO) --work-dir work_dirs/demo
	.venv/bin/python tools/test.py $(DEMO) work_dirs/demo/epoch_4.pth \
		--work-dir work_dirs/demo --show-dir work_dirs/demo/pictures
	@echo "Truth beside prediction, image by image: work_dirs/demo/pictures"

APP_TESTS = tests/commands/test_demo.py tests/commands/test_mim.py \
	tests/engine/test_trackers.py tests/test_docs.py::test_python_blocks_run tests/test_inference.py \
	tests/test_notebook.py tests/test_site.py

# The GPU's kernels use no toolbox. Their tests are apart, because interpreting them takes
# minutes.
KERNEL_TESTS = tests/models/gpu tests/ops/gpu
WITHOUT_KERNELS = $(KERNEL_TESTS:%=--ignore=%)

test: .venv/.dev
	.venv/bin/python -m pytest $(TESTS) $(WITHOUT_KERNELS)

# PyTorch's arithmetic and the package's own files: no toolbox has a say in these tests,
# and `make test` runs them with the same PyTorch.
NO_TOOLBOX = $(addprefix tests/models/test_,depthwise.py good_citizen.py images.py) \
	$(addprefix tests/models/test_,lean_block.py output_stride.py patch_conv.py) \
	$(addprefix tests/utils/test_,files.py images.py json_files.py memory.py partials.py) \
	tests/test_habits.py

test-openmmlab: .venv-openmmlab/.dev
	.venv-openmmlab/bin/python -m pytest $(TESTS) $(WITHOUT_KERNELS) \
		$(addprefix --ignore=,$(NO_TOOLBOX))

test-kernels: .venv/.dev
	.venv/bin/python -m pytest $(TESTS) $(KERNEL_TESTS)

# PyTorch and oneDNN choose kernels by the processor: the tests must pass with each.
MODEL_TESTS = .venv/bin/python -m pytest $(TESTS) tests/models $(WITHOUT_KERNELS)

test-isa: .venv/.dev
	ATEN_CPU_CAPABILITY=default $(MODEL_TESTS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 $(MODEL_TESTS)

test-long: .venv/.dev
	.venv/bin/python -W ignore -m tests.programs.kill_points --random 10
	.venv/bin/python -W ignore -m tests.programs.kill_commands --random 5
	CONVNEXT_DENSE_LOAD=1 .venv/bin/python -m pytest -rP -o faulthandler_timeout=0 \
		tests/engine tests/commands/test_bad_inputs.py \
		tests/patches/test_run_checkpoints.py

test-export: .venv/.dev
	CONVNEXT_DENSE_EVERY_ARCH=1 .venv/bin/python -m pytest -rP \
		-o faulthandler_timeout=0 tests/commands/test_export.py \
		tests/commands/test_export_detectors.py tests/commands/test_export_queries.py \
		-k "test_every_architecture or test_full_size or test_torch_export or to_onnx"

test-configs: .venv/.dev
	CONVNEXT_DENSE_EVERY_CONFIG=1 .venv/bin/python -m pytest -rP \
		tests/config/test_training_steps.py tests/config/test_training_steps_seg.py \
		-k test_every

# Packages that a few families need, in an environment beside .venv, which takes
# everything else from there. Grounding DINO and GLIP use what transformers 5 left out.
.venv-families/.ready: .venv/.dev
	.venv/bin/python -m venv .venv-families
	.venv/bin/python -c "import site; print(site.getsitepackages()[0])" > \
		$$(.venv-families/bin/python -c "import site; print(site.getsitepackages()[0])")/all.pth
	.venv-families/bin/pip install --disable-pip-version-check \
		onedl-mmpretrain==1.3.6 fairscale==0.4.13 scikit-learn 'transformers<5'
	touch $@

# Packages that optional features use, in an environment beside .venv, which takes
# everything else from there: the main tests run without them.
.venv-apps/.ready: .venv/.dev
	.venv/bin/python -m venv .venv-apps
	.venv/bin/python -c "import site; print(site.getsitepackages()[0])" > \
		$$(.venv-apps/bin/python -c "import site; print(site.getsitepackages()[0])")/all.pth
	.venv-apps/$(PIP_INSTALL) '.[apps]'
	touch $@

test-apps: .venv-apps/.ready
	.venv-apps/bin/python -m pytest $(TESTS) $(APP_TESTS)

wheel: .venv-apps/.ready
	rm -rf dist build
	.venv-apps/bin/python -m build --outdir dist .
	.venv-apps/bin/twine check --strict dist/*
	.venv-apps/bin/check-wheel-contents dist/*.whl

# SHORT=1 takes the packages of .venv instead of installing 6 GB, and trains 20 steps.
try-wheel: wheel
	PYTHON=$(PYTHON) SHORT=$(SHORT) tests/programs/try_wheel.sh dist/*.whl

families: .venv-families/.ready
	.venv-families/bin/python -W ignore -m tests.programs.families $(FAMILIES) \
		--jobs $(JOBS) --out work_dirs/families.json

fuzz: .venv/.dev
	.venv/bin/python -m tests.fuzz --minutes $(MINUTES) --seed $$(date +%s)

fuzz-short: .venv/.dev
	.venv/bin/python -m tests.fuzz --minutes 1

# atheris has no wheels for every Python: it is in an environment beside .venv, which
# takes everything else from there.
.venv-fuzz/.atheris: .venv/.dev
	.venv/bin/python -m venv .venv-fuzz
	.venv/bin/python -c "import site; print(site.getsitepackages()[0])" > \
		$$(.venv-fuzz/bin/python -c "import site; print(site.getsitepackages()[0])")/all.pth
	.venv-fuzz/bin/pip install --disable-pip-version-check atheris==3.0.0
	touch $@

fuzz-coverage: .venv-fuzz/.atheris
	.venv-fuzz/bin/python -m tests.fuzz.coverage pickle --minutes $(MINUTES)
	.venv-fuzz/bin/python -m tests.fuzz.coverage runs --minutes $(MINUTES)

# PYTHON=... on the command line must have all packages: a GPU machine may have no index.
CHOSEN = $(filter-out file,$(origin PYTHON))
GPU_PYTHON = $(if $(CHOSEN),$(PYTHON),.venv/bin/python)

test-gpu: $(if $(CHOSEN),,.venv/.dev)
	$(GPU_PYTHON) -m pytest -m gpu
	$(GPU_PYTHON) -m tests.programs.gpu_table

errors: .venv/.dev
	.venv/bin/python -m tests.bad_inputs > docs/errors.md

# Lines that only run in subprocesses count as not run.
coverage: .venv/.dev
	.venv/bin/python -m pytest $(TESTS) --cov=convnext_dense --cov-report=term:skip-covered \
		$(TESTED)

lint: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# Strict: a link or an anchor that leads nowhere stops the build. The variable leaves out
# what the theme announces about its future.
site: .venv-apps/.ready
	NO_MKDOCS_2_WARNING=1 .venv-apps/bin/mkdocs build --strict
	@echo "Read it: open work_dirs/site/index.html. The search needs a server:"
	@echo "python3 -m http.server --bind 127.0.0.1 --directory work_dirs/site"
