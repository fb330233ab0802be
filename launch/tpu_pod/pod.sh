#!/usr/bin/env bash
# One run on all hosts of a Google Cloud TPU slice, requested as a queued resource.
#
#   launch/tpu_pod/pod.sh [--dry_run] create NAME --zone=ZONE --type=TYPE
#       --runtime=VERSION [--spot]                  request it, wait until it is active
#   launch/tpu_pod/pod.sh [--dry_run] copy NAME --zone=ZONE --share=SERVER:/PATH
#                                                   install this clone on all hosts
#   launch/tpu_pod/pod.sh [--dry_run] run NAME --zone=ZONE -- --config=FILE
#       --workdir=/mnt/share/RUN [flags of rethink_gen.main]
#                                                   start on all hosts, and return
#   launch/tpu_pod/pod.sh [--dry_run] logs NAME --zone=ZONE [--worker=0]
#                                                   follow a host's output to the end
#   launch/tpu_pod/pod.sh [--dry_run] resume NAME (all options of create, copy and run)
#                                                   after a preemption: redo all of this
#   launch/tpu_pod/pod.sh [--dry_run] delete NAME --zone=ZONE
#
#   launch/tpu_pod/pod.sh create mine --zone=us-east5-b --type=v6e-16 \
#       --runtime=v2-alpha-tpuv6e --spot
#   launch/tpu_pod/pod.sh copy mine --zone=us-east5-b --share=10.0.0.2:/share
#   launch/tpu_pod/pod.sh run mine --zone=us-east5-b -- \
#       --config=configs/inception_random.py --workdir=/mnt/share/inception_random
#
# A run's folder is a path that all hosts share: --share is an NFS export (Filestore) in the
# slice's network, which copy mounts at /mnt/share on each host. The state of a run is there
# and not on the slice, so a run can resume from its last checkpoint on another slice. Data
# sets are expected in /mnt/share/tensorflow_datasets.
#
# Needs gcloud, logged in, with a project that has TPU quota.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

host=(bash rethink_gen/launch/tpu_pod/host.sh)

queued_resource() {
  local verb=$1
  shift
  run gcloud compute tpus queued-resources "$verb" "$name" "--zone=$zone" "$@"
}

# Prints the state of the resource; a dry run prints the command instead.
describe() {
  queued_resource describe '--format=value(state.state)'
}

on_hosts() {
  run gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" "--worker=$1" "--command=$2"
}

create() {
  queued_resource create "--node-id=$name" "--accelerator-type=$type" \
    "--runtime-version=$runtime" "${spot[@]}"
  if $dry_run; then
    echo "until [ \"\$($(describe))\" = ACTIVE ]; do sleep 30; done"
    return
  fi
  local state=
  until [[ $state == ACTIVE ]]; do
    [[ -z $state ]] || sleep 30
    state=$(describe)
    echo "$name: $state" >&2
    [[ $state != @(FAILED|SUSPEND*|DELETING) ]] ||
      refuse "$name is $state; 'delete' it and 'create' it again."
  done
}

copy() {
  on_hosts all 'mkdir -p rethink_gen'
  # Omits runs, caches and environments.
  run gcloud compute tpus tpu-vm scp --recurse --worker=all "--zone=$zone" \
    pyproject.toml README.md LICENSE configs launch rethink_gen "$name:rethink_gen/"
  on_hosts all "$(quote "${host[@]}" install "$share")"
}

start() {
  on_hosts all "$(quote "${host[@]}" start "${flags[@]}")"
}

read_arguments "$@"
action=${options[0]:-} name=${options[1]:-}
zone='' type='' runtime='' spot=() share='' worker=0
case $action in
  create) accepted='--zone --type --runtime' ;;
  copy) accepted='--zone --share' ;;
  run | delete) accepted='--zone' ;;
  logs) accepted='--zone --worker' ;;
  resume) accepted='--zone --type --runtime --share' ;;
  *) refuse "'$action' is not one of create, copy, run, logs, resume, delete; --help shows them." ;;
esac
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] ||
  refuse "'$name' cannot be a name; it must start with a-z, then contain a-z, 0-9 and -."
for option in "${options[@]:2}"; do
  if [[ $option == --spot && $action == @(create|resume) ]]; then
    spot=(--spot)
  elif [[ $option == --*=?* && " $accepted " == *" ${option%%=*} "* ]]; then
    declare "${option:2}"
  else
    refuse "$option is not an option of $action, which takes $accepted, each with =VALUE."
  fi
done
for option in $accepted; do
  variable=${option:2}
  [[ -n ${!variable} ]] || refuse "$action needs $option=VALUE; --help shows an example."
done
[[ -z $share || $share =~ ^[A-Za-z0-9._-]+:/[A-Za-z0-9._/-]*$ ]] ||
  refuse "--share is '$share', but it must be SERVER:/PATH."
if [[ $action == @(run|resume) ]]; then
  require_flag config '' FILE
  require_flag workdir /mnt/share/ RUN
fi
require_command gcloud
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case $action in
  create) create ;;
  copy) copy ;;
  run) start ;;
  logs) on_hosts "$worker" "$(quote "${host[@]}" follow)" ;;
  delete) queued_resource delete --force --quiet ;;
  resume)
    state=$(describe)
    if $dry_run; then
      echo "$state"
    elif [[ $state != SUSPENDED ]]; then
      refuse "$name is $state: there is nothing to resume until it is SUSPENDED."
    fi
    queued_resource delete --force --quiet
    create
    copy
    start
    ;;
esac
