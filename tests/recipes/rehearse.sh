#!/usr/bin/env bash
# Rehearse a recipe: every stage of its run.sh on a miniature corpus in the corpus's own
# layout, with miniature teachers and the recipe's own configurations, shrunk by overlay.yaml.
#   make rehearse RECIPE=voxceleb
#   tests/recipes/rehearse.sh voxceleb [--python PYTHON] [options of run.sh]
# It happens in the recipe's rehearsal_run/, where its files are links: its own data, dump, exp
# and results are not touched. RECIPE.sh beside this file says what the recipe needs.
# shellcheck disable=SC2034,SC2317,SC2329  # what RECIPE.sh uses
set -euo pipefail

title() { echo; echo "=== $*"; }
fail() { echo "rehearsal: $*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
python=python3
recipe=
given=()
while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h) sed -n '2,7s/^# //p' "$0"; exit 0 ;;
        --python) python=${2:?--python needs a value}; shift 2 ;;
        *) if [ -n "${recipe}" ]; then given+=("$1"); else recipe=$1; fi; shift ;;
    esac
done
# A path from here would lead nowhere from rehearsal_run.
case "${python%% *}" in
    /*) ;;
    */*) python=${PWD}/${python} ;;
esac
[ -f "${here}/${recipe}.sh" ] && [ -d "${here}/../../egs2/${recipe}" ] \
    || fail "'${recipe}' is no recipe with a rehearsal; see ${here}/README.md"
cd "${here}/../../egs2/${recipe}/star1"
# More threads only get in each other's way in models of this size.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
started=${SECONDS}
run=${PWD}/rehearsal_run
log=${run}/rehearsal.log

# Clips of the demo corpus, which is fetched once; a recipe may take others.
demo=$(cd ../../amazon_queen/star1 && pwd)
clips=(--root "${demo}" --datadirs "${demo}"/data/asr_{train,valid,test})
fetch_demo_clips() {
    (
        # One at a time, where recipes are rehearsed side by side.
        exec 9< "${here}/rehearse.sh"
        ! command -v flock > /dev/null || flock 9
        # The demo's local/data.sh writes this set last.
        [ ! -f "${demo}/data/sid_test/wav.scp" ] || exit 0
        cd "${demo}" && PYTHON=${python} local/data.sh --fetch_teacher false
    )
}

# What RECIPE.sh may set; make_corpus DIR is its own.
make_corpus() { fail "${here}/${recipe}.sh defines no make_corpus"; }
options=()       # Of run.sh, in every call.
first=()         # Of run.sh, in those of the whole recipe.
more=()          # Of run.sh, in a further call each.
results=results  # Folder of results.json,
expect=()        # SYSTEM.METRIC that it must hold,
packs=(student)  # and packs that must be there.
overlay=${here}/overlay.yaml  # What shrinks the configurations.
# shellcheck disable=SC1090
. "${here}/${recipe}.sh"

title "rehearsal of ${recipe}: corpus, teachers, configurations"
rm -rf "${run}"
mkdir -p "${run}"
make_corpus "${run}"
${python} "${here}"/make_teachers.py --output_dir "${run}/teachers"
${python} "${here}"/shrink.py --overlay "${overlay}" --confdir conf --output_dir "${run}/conf"
for file in *.sh local; do
    ln -s "../${file}" "${run}/${file}"
done
cd "${run}"

call() {  # call OPTIONS...: run.sh, on the screen and in the log
    echo "=== $*" >> "${log}"
    ./run.sh --python "${python}" "${options[@]}" ${given[@]+"${given[@]}"} "$@" 2>&1 | tee -a "${log}" \
        || fail "run.sh $* failed; ${log}"
    date '+%H:%M:%S end' >> "${log}"
}

title "check: what it will cost"
call ${first[@]+"${first[@]}"} --stop_stage check

title "distillation, stopped after its first epoch"
set -m  # The run gets a process group of its own, as under a batch system.
call ${first[@]+"${first[@]}"} --stage 2 --stop_stage 5 &
group=$!
set +m
trap 'kill -TERM -- "-${group}" 2> /dev/null || true' EXIT  # Ctrl-C does not reach that group.
checkpoint=""
while kill -0 "${group}" 2> /dev/null && [ -z "${checkpoint}" ]; do
    checkpoint=$(find exp -name checkpoint.pth -print -quit 2> /dev/null || true)
    sleep 0.05
done
kill -TERM -- "-${group}" 2> /dev/null || true
if wait "${group}"; then fail "the distillation ended before it could be stopped; see ${log}"; fi
while kill -0 -- "-${group}" 2> /dev/null; do sleep 0.1; done  # Until the last of it has gone.
trap - EXIT
[ -n "${checkpoint}" ] || fail "the distillation failed; see ${log}"
stopped=$(dirname "${checkpoint}")
[ ! -f "${stopped}/.train.done" ] || fail "a stopped distillation counts as done (${stopped})"
echo "stopped; ${checkpoint} is there"

title "the same again, and all stages after it"
call ${first[@]+"${first[@]}"} --stage 5 \
    --hf_repo nobody/rehearsal --pack_args "--license cc-by-4.0" --upload_args "--dry_run true"
grep -q "resumed using" "${stopped}"/train.log || fail "${stopped}/train.log: did not resume"

for further in ${more[@]+"${more[@]}"}; do
    title "further: ${further}"
    # shellcheck disable=SC2086  # words of options
    call ${further}
done

title "check of all outputs"
${python} "${here}"/check_outputs.py --expdir exp --results "${results}" \
    --expect ${expect[@]+"${expect[@]}"} --packs "${packs[@]}"
title "seconds by stage"
${python} "${here}"/stage_times.py "${log}"
cat << EOF

Rehearsed in $((SECONDS - started)) s: ${recipe}
Not rehearsed: GPUs (NCCL, AMP in bf16 or fp16, memory), Slurm and several nodes, downloads and
their checksums, published teachers, the upload itself (stage 17 only shows what it would send),
and what shows at full size alone: time, disk, convergence. Where there are GPUs, --ngpu 2
rehearses on two of them.
EOF
