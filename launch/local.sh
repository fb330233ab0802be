#!/usr/bin/env bash
# One run as several processes on this machine, to check that they do what one does.
#
#   launch/local.sh [--dry_run] NUM_PROCESSES -- --config=FILE [flags of rethink_gen.main]
#
#   launch/local.sh 2 -- --config=configs/quickstart.py --workdir=runs/two
#
# Each process gets the GPU with its index, if there are GPUs; on CPU they share the cores.
# If one fails, the others are stopped and this script exits with its status. Ctrl-C and
# SIGTERM reach all of them; the same command then resumes.
#
# Needs bash 4.4, and a `python` that has rethink_gen.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_arguments "$@"
[[ ${#options[@]} == 1 && ${options[0]} =~ ^[1-9][0-9]*$ ]] ||
  refuse "give the number of processes, then -- and the flags of rethink_gen.main."
require_flag config '' FILE
count=${options[0]}
require_command python

port=$(python -c 'import socket
with socket.socket() as free:
  free.bind(("127.0.0.1", 0))
  print(free.getsockname()[1])')
# Each process has its own group, so that a signal reaches it once, from here.
set -m
# Signals are passed on in the loop below, once all processes are running and known.
processes=() received='' stopping=false
trap 'received=INT' INT
trap 'received=TERM' TERM
for ((index = 0; index < count; index++)); do
  command=(
    env
    "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_NUM_PROCESSES=$count"
    "JAX_PROCESS_ID=$index" "JAX_LOCAL_DEVICE_IDS=$index"
    python -m rethink_gen.main --distributed "${flags[@]}"
  )
  if $dry_run; then
    echo "$(quote "${command[@]}") &"
  else
    "${command[@]}" &
    processes+=($!)
  fi
done
if $dry_run; then
  echo wait
  exit
fi

# The processes print their own errors; bash would report each one that a signal ends.
exec 2> /dev/null
status=0
while ((${#processes[@]})); do
  sleep 0.2 || true
  running=()
  for process in "${processes[@]}"; do
    if kill -0 "$process"; then
      running+=("$process")
    else
      code=0
      wait "$process" || code=$?
      ((status)) || status=$code
    fi
  done
  processes=("${running[@]}")
  # One has failed, and the others would wait for it.
  if ((status)) && ! $stopping; then
    received=${received:-TERM}
  fi
  if [[ -n $received ]]; then
    signal=$received received='' stopping=true
    kill -s "$signal" -- "${processes[@]/#/-}" || true
  fi
done
exit "$status"
