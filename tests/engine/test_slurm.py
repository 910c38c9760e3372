"""tools/slurm_train.sh and slurm_test.sh, with scripts in place of Slurm's commands."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..helpers.paths import ROOT
from ..helpers.runs import DET, SEG, options

# Starts the tasks as Slurm does, two on one machine, and does not end them.
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > srun.said
tasks=0
while [[ $1 == -* ]]; do
    [[ $1 == --ntasks=* ]] && tasks=${1#*=}
    shift
done
export SLURM_JOB_ID=4321 SLURM_NTASKS=$tasks SLURM_NODELIST='node[7-8]'
for ((rank = 0; rank < tasks && START; rank++)); do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" > $rank.said 2>&1 &
    echo $! > $rank.pid
done
code=0
for pid in $(jobs -p); do
    wait $pid || code=$?
done
exit $code
"""
SCONTROL = """#!/usr/bin/env bash
[[ "$*" == "show hostnames node[7-8]" ]] && printf '127.0.0.1\\nnode8\\n'
"""


@pytest.fixture
def slurm(tmp_path):
    """Starts a script as if Slurm were installed; START says whether its tasks run."""

    def run(script, *arguments, start=1, **environment):
        for name, text in dict(srun=SRUN, scontrol=SCONTROL).items():
            (tmp_path / name).write_text(text.replace("START", str(start)))
            (tmp_path / name).chmod(0o755)
        path = [tmp_path, Path(sys.executable).parent, os.environ["PATH"]]
        return subprocess.Popen(
            [ROOT / "tools" / script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                **environment,
                "OMP_NUM_THREADS": "1",  # Slurm binds each task to cores
                "PATH": os.pathsep.join(map(str, path)),
                "PYTHONPATH": str(ROOT),
            },
        )

    return run


def wait_until_said(text, file, job):
    while not file.exists() or text not in file.read_text():
        assert job.poll() is None, file.read_text()
        time.sleep(0.1)


def test_trains_until_a_task_is_killed(slurm, shapes_root, tmp_path):
    """Two tasks train; one is killed, and the other ends by itself with a message."""
    job = slurm(
        *("slurm_train.sh", "gpus", "shapes", SEG, tmp_path / "run"),
        *options(
            f"data_root={shapes_root}",
            "train_dataloader.batch_size=2",
            "default_hooks.logger.interval=1",
        ),
        GPUS="2",
    )
    first, second = (tmp_path / f"{rank}.said" for rank in (0, 1))
    wait_until_said("Iter(train) [  2/400]", first, job)
    os.kill(int((tmp_path / "1.pid").read_text()), signal.SIGKILL)
    killed = time.monotonic()
    job.communicate(timeout=60)
    seconds = time.monotonic() - killed
    print(f"ended {seconds:.1f} s after its peer")
    assert seconds < 30
    said = first.read_text()
    assert "no GPU here: NCCL by gloo replaced" in said
    assert re.search(
        r"^error: rank 0 of 2: another process of this run has ended.*--resume$",
        said,
        re.MULTILINE,
    )
    assert "Traceback" not in said
    assert "Iter(train)" not in second.read_text()

    asked = (tmp_path / "srun.said").read_text().splitlines()
    start = asked.index("python")
    assert asked[:start] == [
        *("--partition=gpus", "--job-name=shapes", "--gres=gpu:2", "--ntasks=2"),
        *("--ntasks-per-node=2", "--cpus-per-task=5", "--kill-on-bad-exit=1"),
        "--signal=TERM@120",
    ]
    assert asked[start:][:6] == [
        *("python", "-u", str(ROOT / "tools/train.py"), str(SEG)),
        *("--work-dir", str(tmp_path / "run")),
    ]
    assert asked[-2:] == ["--launcher", "slurm"]


def test_srun_gets_the_resources_that_are_set(slurm, tmp_path):
    arguments = ("slurm_test.sh", "gpus", "a name", DET, "x.pth", "--out", "a b.pkl")
    environment = dict(GPUS="16", CPUS_PER_TASK="9", SRUN_ARGS="--gres=none --qos=low")
    assert slurm(*arguments, start=0, **environment).wait() == 0
    assert (tmp_path / "srun.said").read_text().splitlines() == [
        *("--partition=gpus", "--job-name=a name", "--gres=gpu:8", "--ntasks=16"),
        *("--ntasks-per-node=8", "--cpus-per-task=9", "--kill-on-bad-exit=1"),
        *("--signal=TERM@120", "--gres=none", "--qos=low"),
        *("python", "-u", str(ROOT / "tools/test.py"), str(DET), "x.pth"),
        *("--out", "a b.pkl", "--launcher", "slurm"),
    ]
    slurm(*arguments, start=0, GPUS="16", GPUS_PER_NODE="4").wait()
    assert "--ntasks-per-node=4\n" in (tmp_path / "srun.said").read_text()


@pytest.mark.parametrize("script", ["slurm_train.sh", "slurm_test.sh"])
def test_too_few_arguments(slurm, script):
    job = slurm(script, "gpus", "name", DET)
    said, _ = job.communicate()
    assert job.returncode == 2
    assert f"tools/{script} PARTITION JOB_NAME CONFIG" in said


def test_machines_that_scontrol_does_not_name(tool, monkeypatch, shapes_root, tmp_path):
    for name, value in dict(PROCID=0, NTASKS=1, LOCALID=0, NODELIST="node9").items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    (tmp_path / "scontrol").write_text(SCONTROL)
    (tmp_path / "scontrol").chmod(0o755)
    for path in (f"{tmp_path}:{os.environ['PATH']}", ""):
        monkeypatch.setenv("PATH", path)
        done = tool(
            *("train", DET, "--launcher", "slurm"),
            *("--cfg-options", f"data_root={shapes_root}"),
        )
        assert done.code == 2
        assert re.search(
            r"scontrol show hostnames node9 does not name.*set MASTER_ADDR", done.err
        )
