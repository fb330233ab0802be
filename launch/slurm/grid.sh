#!/usr/bin/env bash
# The grid of a table or figure as a SLURM array job, and a job that collects it.
#
#   launch/slurm/grid.sh [--dry_run] NUM_PARTS [options of sbatch] -- --artifact=NAME
#       [flags of rethink_gen.reproduce]
#
#   launch/slurm/grid.sh 8 --gpus-per-node=1 --time=4:00:00 -- --artifact=table1 \
#       --scale=full --workdir=runs/full
#
# Submits an array of NUM_PARTS tasks, each with a part of the runs (--shard), and a job
# that waits for all of them, finished or failed, and draws what has finished (--collect).
# Prints both job numbers. Flags that reproduce would refuse are refused here, before
# anything is submitted. Repeating the command runs only what is still missing.
#
# Options of sbatch are given as --NAME=VALUE and apply to the array's tasks; those that say
# where a job may run (--partition, --account, --qos) also apply to the collecting job.
#
# Needs sbatch, and a `python` that has rethink_gen. Must be called from the clone, in a
# folder that all nodes share. The output goes to runs/rethink_gen-JOB_TASK.log.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

read_arguments "$@"
parts=${options[0]:-}
[[ $parts =~ ^[1-9][0-9]*$ ]] ||
  refuse "give the number of parts, options of sbatch, then -- and flags of rethink_gen.reproduce."
place=()
for option in "${options[@]:1}"; do
  case $option in
    --partition=* | --account=* | --qos=*) place+=("$option") ;;
    --?*) ;;
    *) refuse "$option is not an option of sbatch as --NAME=VALUE." ;;
  esac
done
require_flag artifact '' NAME
require_command sbatch

submit=(sbatch --parsable --job-name=rethink_gen --ntasks=1)
job="$(dirname "$0")/job.sh"
check=(python -m rethink_gen.reproduce "${flags[@]}" --dry_run)
reproduce=("$job" python -m rethink_gen.reproduce "${flags[@]}")
array=("${submit[@]}" --output=runs/%x-%A_%a.log "--array=1-$parts" "${options[@]:1}"
  "${reproduce[@]}" "--shard=%a/$parts")
collect=("${submit[@]}" --output=runs/%x-%j.log "${place[@]}" "${reproduce[@]}" --collect)
if $dry_run; then
  echo "$(quote "${check[@]}") > /dev/null"
else
  "${check[@]}" > /dev/null
fi
run mkdir -p runs  # sbatch does not create the folder of --output
if $dry_run; then
  echo "number=\$($(quote "${array[@]}"))"
  echo "$(quote "${collect[@]:0:2}") --dependency=afterany:\$number $(quote "${collect[@]:2}")"
  exit
fi
number=$("${array[@]}")
echo "$number"
# With several clusters, sbatch prints NUMBER;CLUSTER.
"${collect[@]:0:2}" "--dependency=afterany:${number%%;*}" "${collect[@]:2}"
