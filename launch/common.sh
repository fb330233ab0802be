# Sourced by the launchers: reading arguments, refusing them, and --dry_run.
# shellcheck shell=bash
set -euo pipefail

# Prints one sentence to standard error and exits with status 2.
refuse() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Sets dry_run, options (the arguments before --) and flags (those after it).
# --help prints the comment at the head of the script.
read_arguments() {
  dry_run=false options=() flags=()
  while (($#)); do
    case $1 in
      --help)
        awk 'NR > 1 { if (!sub(/^# ?/, "")) exit; print }' "$0"
        exit
        ;;
      --dry_run) dry_run=true ;;
      --)
        flags=("${@:2}")
        return
        ;;
      *) options+=("$1") ;;
    esac
    shift
  done
}

# Refuses unless the flags contain --NAME=VALUE, rather than wait in a queue in vain.
require_flag() {
  local flag
  for flag in "${flags[@]}"; do
    [[ $flag == --$1=$2* ]] && return
  done
  refuse "--$1=$2${3:-} is missing after --; --help shows the usage."
}

# Refuses if the command is not installed; a dry run does not need it.
require_command() {
  $dry_run || command -v "$1" > /dev/null || refuse "$1 is not installed on this machine."
}

# Prints the words on one line, quoted so that a shell reads them back.
quote() {
  local word line=
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

# Runs the words as a command; a dry run prints them instead.
run() {
  if $dry_run; then
    quote "$@"
  else
    "$@"
  fi
}
