#!/usr/bin/env bash
# The job that run.sh and grid.sh submit: srun COMMAND; queued again when interrupted.
#
#   sbatch [options] launch/slurm/job.sh COMMAND [ARGUMENTS]
#
# Two minutes before the time limit, and when it is preempted, COMMAND gets SIGTERM: it
# saves and leaves with status 143. The job then goes back into the queue under its number,
# and the same command resumes. In the arguments %a is the task's number in an array job.
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
