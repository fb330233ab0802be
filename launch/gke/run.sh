#!/usr/bin/env bash
# One run on all hosts of a TPU slice on Google Kubernetes Engine, as a JobSet.
#
#   launch/gke/run.sh [--dry_run] build --image=IMAGE     build the image and push it
#   launch/gke/run.sh [--dry_run] apply NAME --image=IMAGE --accelerator=ACCELERATOR
#       --topology=TOPOLOGY --hosts=NUMBER --chips=NUMBER --claim=CLAIM [--spot]
#       -- --config=FILE --workdir=/mnt/share/RUN [flags of rethink_gen.main]
#   launch/gke/run.sh [--dry_run] logs NAME               follow the output of all hosts
#   launch/gke/run.sh [--dry_run] delete NAME
#
#   launch/gke/run.sh build --image=us-docker.pkg.dev/mine/images/rethink_gen
#   launch/gke/run.sh apply mine --image=us-docker.pkg.dev/mine/images/rethink_gen \
#       --accelerator=tpu-v6e-slice --topology=4x4 --hosts=4 --chips=4 --claim=share -- \
#       --config=configs/inception_random.py --workdir=/mnt/share/inception_random
#
# The number of hosts times the chips per host is the product of the topology. A run's
# folder is a path that all hosts share: CLAIM is a claim on a volume with access mode
# ReadWriteMany, such as Filestore's, mounted at /mnt/share; data sets are expected in its
# tensorflow_datasets. After a preemption the JobSet restarts all hosts, and the run resumes
# from its last checkpoint.
#
# Needs docker for build, and kubectl with a cluster that has JobSet installed and a node
# pool of that accelerator and topology.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

read_arguments "$@"
action=${options[0]:-} name='' first=2
image='' accelerator='' topology='' hosts='' chips='' claim='' spot=false
case $action in
  build) accepted='--image' first=1 ;;
  apply) accepted='--image --accelerator --topology --hosts --chips --claim' ;;
  logs | delete) accepted='' ;;
  *) refuse "'$action' is not one of build, apply, logs, delete; --help shows them." ;;
esac
if [[ $action != build ]]; then
  name=${options[1]:-}
  [[ $name =~ ^[a-z][a-z0-9-]*$ ]] ||
    refuse "'$name' cannot be a name; it must start with a-z, then contain a-z, 0-9 and -."
fi
for option in "${options[@]:first}"; do
  if [[ $option == --spot && $action == apply ]]; then
    spot=true
  elif [[ $option == --*=?* && " $accepted " == *" ${option%%=*} "* ]]; then
    declare "${option:2}"
  else
    refuse "$option is not an option of $action, which takes ${accepted:-none}."
  fi
done
for option in $accepted; do
  variable=${option:2}
  value=${!variable}
  [[ -n $value ]] || refuse "$action needs $option=VALUE; --help shows an example."
  case $variable in
    hosts | chips) pattern='^[1-9][0-9]*$' ;;
    topology) pattern='^[1-9][0-9]*(x[1-9][0-9]*){1,2}$' ;;
    *) pattern='^[A-Za-z][A-Za-z0-9._/:@-]*$' ;;
  esac
  [[ $value =~ $pattern ]] || refuse "$option is '$value', which is not a valid value."
done

# Prints the template with everything filled in.
manifest() {
  local arguments='' flag line filled
  for flag in "${flags[@]}"; do
    # Goes in YAML double quotes, where \ and " are escaped as in JSON.
    flag=${flag//\\/\\\\}
    arguments+=", \"${flag//\"/\\\"}\""
  done
  while IFS= read -r line; do
    if [[ $line == *'# with --spot' ]] && ! $spot; then continue; fi
    case $line in
      *': NAME') filled=${line/NAME/$name} ;;
      *': HOSTS') filled=${line/HOSTS/$hosts} ;;
      *': ACCELERATOR') filled=${line/ACCELERATOR/$accelerator} ;;
      *': TOPOLOGY') filled=${line/TOPOLOGY/$topology} ;;
      *': IMAGE') filled=${line/IMAGE/$image} ;;
      *': ARGUMENTS') filled="${line%ARGUMENTS}[${arguments:2}]" ;;
      *': CHIPS') filled=${line/CHIPS/$chips} ;;
      *': CLAIM') filled=${line/CLAIM/$claim} ;;
      *) filled=$line ;;
    esac
    printf '%s\n' "$filled"
  done < launch/gke/jobset.yaml
}

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
case $action in
  build)
    require_command docker
    run docker build --file=launch/gke/Dockerfile "--tag=$image" .
    run docker push "$image"
    ;;
  apply)
    require_flag config '' FILE
    require_flag workdir /mnt/share/ RUN
    product=$((${topology//x/ * }))
    ((hosts * chips == product)) ||
      refuse "$topology has $product chips, but $hosts hosts of $chips have $((hosts * chips))."
    require_command kubectl
    if $dry_run; then
      echo "kubectl apply --filename=- << 'EOF'"
      manifest
      echo EOF
    else
      manifest | kubectl apply --filename=-
    fi
    ;;
  logs)
    require_command kubectl
    run kubectl logs --follow --prefix --tail=-1 --max-log-requests=256 \
      "--selector=jobset.sigs.k8s.io/jobset-name=$name"
    ;;
  delete)
    require_command kubectl
    run kubectl delete jobset "$name"
    ;;
esac
