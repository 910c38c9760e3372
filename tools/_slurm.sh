# Shared by slurm_train.sh and slurm_test.sh: slurm PARTITION JOB_NAME TOOL ARGUMENTS.
# Slurm sends SIGTERM two minutes before the time limit, so that a run can save a
# checkpoint.

slurm() {
    local partition=$1 job_name=$2 tool=$3
    local gpus=${GPUS:-8}
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    # SRUN_ARGS comes last, so that it overrides the others. It is several arguments, so
    # it has no quotes.
    # shellcheck disable=SC2086
    srun --partition="$partition" \
        --job-name="$job_name" \
        --gres="gpu:$per_node" \
        --ntasks="$gpus" \
        --ntasks-per-node="$per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        --signal=TERM@120 \
        ${SRUN_ARGS:-} \
        python -u "$(dirname "$0")/$tool" "${@:4}" --launcher slurm
}
