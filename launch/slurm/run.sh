#!/usr/bin/env bash
# One run on several nodes of a SLURM cluster: submits it and prints the job's number.
#
#   launch/slurm/run.sh [--dry_run] [options of sbatch] -- --config=FILE [flags of
#       rethink_gen.main]
#
#   launch/slurm/run.sh --nodes=4 --time=2:00:00 -- --config=configs/inception_random.py
#   launch/slurm/run.sh --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 -- \
#       --config=configs/inception_random.py
#
# Options of sbatch are given as --NAME=VALUE; the default is two nodes with one task each.
# On SLURM, JAX gives each task the one GPU of its number: ask for as many tasks as GPUs,
# and for GPUs by node (not by --gpus-per-task, which hides the others from it).
#
# Needs sbatch, and to be called from the clone, in a folder that all nodes share, with the
# Python that has rethink_gen as `python`. The output goes to
# runs/rethink_gen-JOB.log.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

read_arguments "$@"
for option in "${options[@]}"; do
  [[ $option == --?* ]] || refuse "$option is not an option of sbatch, --NAME=VALUE."
done
require_flag config '' FILE
require_command sbatch

run mkdir -p runs  # sbatch does not make the folder of --output
run sbatch --parsable --job-name=rethink_gen --output=runs/%x-%j.log \
  --nodes=2 --ntasks-per-node=1 "${options[@]}" \
  "$(dirname "$0")/job.sh" python -m rethink_gen.main --distributed "${flags[@]}"
