#!/usr/bin/env bash
# Installs a wheel into a fresh environment, and uses it from an empty folder as a new user
# would: doctor, train, test, predict, report, export.
#
#   tests/programs/try_wheel.sh dist/convnext_dense-0.2.0-py3-none-any.whl
#
# SHORT=1 takes all other packages from .venv, and trains 20 steps instead of 400. PYTHON is
# the interpreter of the environment.
set -euo pipefail
wheel=$(realpath "$1")
checkout=$(realpath "$(dirname "$0")/../..")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

if [ -n "${SHORT:-}" ]; then
    "$checkout/.venv/bin/python" -m venv env
    site=$(env/bin/python -c "import site; print(site.getsitepackages()[0])")
    # A line in a .pth file adds a folder to sys.path. The editable installation of the
    # checkout in that folder is not added: only .pth files of env itself are read.
    "$checkout/.venv/bin/python" -c "import site; print(site.getsitepackages()[0])" \
        > "$site/packages.pth"
    env/bin/pip install --quiet --disable-pip-version-check --no-deps "$wheel"
    steps="train_cfg.max_iters=20 train_cfg.val_interval=20"
else
    "${PYTHON:-python3}" -m venv env
    env/bin/pip install --quiet --disable-pip-version-check "${wheel}[onedl,export]"
    steps="train_cfg.max_iters=400"
fi
mkdir work
cd work
PATH="$folder/env/bin:$PATH"
# The package of the wheel, not of the checkout.
python -c "import convnext_dense_cli as c; assert c.__file__.startswith('$folder'), c"

step() {
    local start=$SECONDS
    echo "== $*"
    "$@"
    echo "== $((SECONDS - start)) s"
}

run=work_dirs/upernet_convnext_atto_shapes
step convnext-dense --version
step convnext-dense doctor
step convnext-dense configs shapes
# shellcheck disable=SC2086 # two settings
step convnext-dense train upernet_convnext_atto_shapes --cfg-options $steps \
    default_hooks.checkpoint.interval=20
checkpoint=$(find $run -name 'iter_*.pth' | sort -V | tail -1)
step convnext-dense test upernet_convnext_atto_shapes "$checkpoint"
step convnext-dense predict "$checkpoint" data/shapes/images/val --out predictions
step convnext-dense report $run
step convnext-dense export upernet_convnext_atto_shapes "$checkpoint" --out model.onnx
ls $run/report.html predictions model.onnx
