#!/usr/bin/env bash
# Train on a Slurm cluster, with one process for each GPU:
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#       tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]

if [ $# -lt 4 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
. "$(dirname "$0")/_slurm.sh"
slurm "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
