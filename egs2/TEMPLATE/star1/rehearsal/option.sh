# shellcheck shell=bash
# Sourced by a recipe's run.sh before anything else: with --rehearse true among its options
# the recipe is rehearsed (rehearse.sh) and nothing else is done.
_rest=()
_rehearse=false
while [ $# -gt 0 ]; do
    if [ "$1" = --rehearse ]; then
        case "${2:-}" in
            true | false) _rehearse=$2 ;;
            *) echo "$0: --rehearse must be true or false, got '${2:-}'" >&2; exit 2 ;;
        esac
        shift 2
    else
        _rest+=("$1")
        shift
    fi
done
set -- ${_rest[@]+"${_rest[@]}"}
! "${_rehearse}" || exec ./rehearsal/rehearse.sh "$@"
