# Sourced by the launchers: how they read their arguments, refuse, and --dry_run.
# shellcheck shell=bash
set -euo pipefail

# One sentence on standard error, and exit status 2.
refuse() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Sets dry_run, options (what stands before --) and flags (what stands after it).
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

# Refuses unless the flags have --NAME=VALUE, before a queue is waited for in vain.
require_flag() {
  local flag
  for flag in "${flags[@]}"; do
    [[ $flag == --$1=$2* ]] && return
  done
  refuse "--$1=$2${3:-} is missing after --; --help shows how this is called."
}

# Refuses when the command is not installed; a dry run does without it.
require_command() {
  $dry_run || command -v "$1" > /dev/null || refuse "$1 is not installed on this machine."
}

# The words in one line, as a shell reads them again.
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
