#!/usr/bin/env bash
# Test on a Slurm cluster, with one process for each GPU:
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#       tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]

if [ $# -lt 4 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
. "$(dirname "$0")/_slurm.sh"
slurm "$1" "$2" test.py "${@:3}"
