#!/usr/bin/env bash
# The job that run.sh and grid.sh submit: srun COMMAND, requeued when interrupted.
#
#   sbatch [options] launch/slurm/job.sh COMMAND [ARGUMENTS]
#
# Two minutes before the time limit, and when it is preempted, COMMAND gets SIGTERM: it
# saves and exits with status 143. The job is then requeued under the same number, and the
# same command resumes. In the arguments, %a stands for the task index of an array job.
#
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail

status=0
srun "${@//%a/${SLURM_ARRAY_TASK_ID:-}}" || status=$?
if ((status == 143)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
