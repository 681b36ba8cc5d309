# shellcheck shell=bash disable=SC2034,SC2086,SC2154
# Sourced by star.sh: what several of its stages use.

log() { echo "$(date '+%H:%M:%S') $*"; }
fail() { echo "$0: $*" >&2; exit 2; }
star() { ${python} -m espnet_star "$@"; }
in_range() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }

# Jobs of a stage are collected, then run side by side with one line of progress.
jobs=$(mktemp)
trap 'rm -f "${jobs}"' EXIT
threads=()
[ "${head_nj}" -gt 1 ] && [ "${ngpu}" -eq 0 ] && threads=(env OMP_NUM_THREADS=1)

add_job() {  # add_job NAME DIR MARKER COMMAND...: log in DIR, done when MARKER exists
    local name=$1 dir=$2 marker=$3
    shift 3
    mkdir -p "${dir}"
    ! "${force}" || rm -f "${dir}/.${marker}.done"
    printf '%s\t%s\t%s\t%s\n' "${name}" "${dir}/${marker}.log" "${dir}/.${marker}.done" \
        "$(printf '%q ' "$@")" >> "${jobs}"
}
run_jobs() {  # run_jobs TITLE
    local title=$1
    [ -s "${jobs}" ] || return 0
    "${threads[@]}" ${python} -m espnet_star star_run --jobs "${jobs}" --nj "${head_nj}" \
        --title "${title}"
    : > "${jobs}"
}

speech() {  # speech SPLIT DIR [FILE NAME TYPE]: ESPnet's data options of a split
    local split=$1 dir=$2
    echo "--${split}_data_path_and_name_and_type ${dir}/wav.scp,speech,sound" \
        "--${split}_shape_file ${dir}/utt2num_samples"
    [ $# -lt 3 ] || echo "--${split}_data_path_and_name_and_type ${dir}/$3,$4,text"
}

frontend() {  # frontend SYSTEM: the options that tell one system from another
    local conf
    case "$1" in
        student) conf="upstream=${student} normalize=${normalize_states}" ;;
        undistilled) conf="upstream=${undistilled} normalize=${normalize_states}" ;;
        teacher) conf="upstream=${teacher} normalize=${normalize_states}" ;;
        logmel) conf=${logmel_conf}; echo "--frontend default --normalize utterance_mvn" ;;
        logmel_raw) conf=${logmel_conf}; echo "--frontend default" ;;
        *) fail "unknown system '$1'; choose from student undistilled teacher logmel logmel_raw" ;;
    esac
    case "$1" in
        logmel*) ;;
        *) echo "--frontend star"; conf+=${feature_cache:+ cache_dir=${feature_cache}} ;;
    esac
    for pair in ${conf}; do echo "--frontend_conf ${pair}"; done
}

score() {  # score NAME TASK DIR REF HYP [FILE]: one line of output, all of it in DIR/score.json
    echo "$1: $(star star_score "$2" --ref "$4" --hyp "$5" --output "$3/${6:-score.json}" | sed -n 1p)"
}

of_test() {  # of_test SET: what names of a test set end in; nothing where it is the only one
    [ ${#asr_tests[@]} -eq 1 ] || echo "_$1"
}

check() {  # check SET OPTIONS...: refuse a prepared set that training would stumble over
    local set=$1
    shift
    star star_data check --data_dir "${raw}/${set}" --histogram false "$@"
}

look() {  # look WHAT PLACE [MORE]: where something is, if it is there
    [ ! -e "$2" ] || echo "  $1: $2${3:+ ($3)}"
}

prepare() {  # prepare SET HOURS [SUFFIX OPTIONS...]: data/SET to dump/raw/SET
    local set=$1 hours=$2 suffix=${3:-}
    shift $(($# < 3 ? $# : 3))
    star star_data prepare --source "data/${set}" --output_dir "${raw}/${set}${suffix}" --nj "${nj}" \
        --min_duration "${min_duration}" --max_duration "${max_duration}" --force "${force}" \
        ${hours:+--max_hours "${hours}"} "$@"
}
