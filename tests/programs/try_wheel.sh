#!/usr/bin/env bash
# Installs a wheel into a fresh environment, and uses it from an empty folder as a new user
# would: doctor, train, test, predict, report, export, demo page.
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
    steps="--cfg-options train_cfg.max_iters=20 train_cfg.val_interval=20
        default_hooks.checkpoint.interval=20"
else
    "${PYTHON:-python3}" -m venv env
    env/bin/pip install --quiet --disable-pip-version-check "${wheel}[onedl,export,demo]"
    steps=""
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

# The demo's page answers, and Ctrl-C ends it.
demo_page() {
    python -c "import signal, sys; from convnext_dense_cli import main; \
signal.signal(signal.SIGINT, signal.default_int_handler); main()" \
        demo "$run" --port 7861 > demo.txt 2>&1 &
    local server=$!
    for _ in $(seq 120); do
        if python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:7861')" \
            2> /dev/null; then
            echo "the page answers"
            kill -INT $server
            wait $server || true
            cat demo.txt
            return
        fi
        sleep 1
    done
    cat demo.txt
    kill $server
    return 1
}

step convnext-dense --version
step convnext-dense doctor
step convnext-dense configs shapes
# shellcheck disable=SC2086 # several arguments, or none
step convnext-dense train upernet_convnext_atto_shapes $steps
step convnext-dense test upernet_convnext_atto_shapes $run
step convnext-dense predict $run data/shapes/images/val --out predictions
step convnext-dense report $run
step convnext-dense export $run --out model.onnx
python -c "import gradio" 2> /dev/null && step demo_page
ls $run/report.html predictions model.onnx
