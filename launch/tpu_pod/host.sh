#!/usr/bin/env bash
# The part of pod.sh that runs on each host of the slice; copied there with the clone.
#
#   host.sh install SERVER:/PATH     mount the share, install rethink_gen for TPU
#   host.sh start [flags]            rethink_gen.main --distributed, in the background
#   host.sh follow                   its output, to the end
set -euo pipefail
cd "$(dirname "$0")/../.."
SHARE=/mnt/share

case $1 in
  install)
    if ! mountpoint -q "$SHARE"; then
      sudo apt-get -qq update
      sudo apt-get -qq install -y nfs-common
      sudo mkdir -p "$SHARE"
      sudo mount -t nfs "$2" "$SHARE"
    fi
    # The host's own Python may be too old; uv provides one.
    python3 -m pip install --quiet --user uv
    uv=~/.local/bin/uv
    "$uv" venv --quiet --clear --python 3.12 .venv
    "$uv" pip install --quiet --python .venv/bin/python --editable '.[tpu]'
    ;;
  start)
    if [[ -f run.pid ]] && kill -0 "$(cat run.pid)" 2> /dev/null; then
      echo "error: a run is already in progress; 'logs' follows it." >&2
      exit 1
    fi
    export TFDS_DATA_DIR=$SHARE/tensorflow_datasets
    nohup .venv/bin/python -m rethink_gen.main --distributed "${@:2}" \
      > run.log 2>&1 < /dev/null &
    echo $! > run.pid
    ;;
  follow) tail -n +1 --pid="$(cat run.pid)" -f run.log ;;
esac
