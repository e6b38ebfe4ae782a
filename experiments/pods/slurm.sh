#!/usr/bin/env bash
# Two nodes of 8 GPUs by Slurm, a process for each GPU:
#
#     RUN=/shared/runs/r50 sbatch experiments/pods/slurm.sh --data.data-dir DATA [more options of train]
#
# From the repository's folder, after `make setup` and `uv pip install -e '.[cuda]' --group data`. All
# nodes must see RUN. Two minutes before the time limit Slurm sends SIGTERM to all processes; they
# save, end with status 143, and the job goes back into the queue, as it does after a preemption.
#SBATCH --job-name=unitnorm-r50
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail
python=${PYTHON:-.venv/bin/python}
run=${RUN:-/shared/runs/r50}
status=0
srun "$python" -m experiments train imagenet_resnet50 \
    --optim.batch-size 4096 --optim.learning-rate 1.6 \
    --run-dir "$run" --resume auto --checkpoint-every 1 --grace-seconds 100 "$@" || status=$?
if ((status == 143)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
