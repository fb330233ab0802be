#!/usr/bin/env bash
# One run on several nodes of a SLURM cluster: submits it and prints the job number.
#
#   launch/slurm/run.sh [--dry_run] [options of sbatch] -- --config=FILE [flags of
#       rethink_gen.main]
#
#   launch/slurm/run.sh --nodes=4 --time=2:00:00 -- --config=configs/inception_random.py
#   launch/slurm/run.sh --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 -- \
#       --config=configs/inception_random.py
#
# Options of sbatch are given as --NAME=VALUE; the default is two nodes with one task each.
# On SLURM, JAX gives each task the one GPU with its index: ask for as many tasks as GPUs,
# and for GPUs per node (not with --gpus-per-task, which hides the other GPUs from a task).
#
# Needs sbatch, and a `python` that has rethink_gen. Must be called from the clone, in a
# folder that all nodes share. The output goes to runs/rethink_gen-JOB.log.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

read_arguments "$@"
for option in "${options[@]}"; do
  [[ $option == --?* ]] || refuse "$option is not an option of sbatch as --NAME=VALUE."
done
require_flag config '' FILE
require_command sbatch

run mkdir -p runs  # sbatch does not create the folder of --output
run sbatch --parsable --job-name=rethink_gen --output=runs/%x-%j.log \
  --nodes=2 --ntasks-per-node=1 "${options[@]}" \
  "$(dirname "$0")/job.sh" python -m rethink_gen.main --distributed "${flags[@]}"
