#!/usr/bin/env bash
# The demo: a student of about 4 M parameters from Whisper base's encoder and the voices of
# "Flight of the Amazon Queen", on 2 CPU cores. Options go to star.sh (--help lists them).
#   ./run.sh                  all of it, about 22 minutes
#   ./run.sh --short true     a rehearsal of six minutes with a table that makes sense
set -euo pipefail

short=false
rest=()
while [ $# -gt 0 ]; do
    if [ "$1" = --short ]; then
        short=${2:?--short needs true or false}
        shift 2
    else
        rest+=("$1")
        shift
    fi
done

opts=(--expdir exp --dumpdir dump --results results
    --distill_hours 1.1 --asr_hours 0.8 --sid_hours 0.5)
cache=exp/cache
if [ "${short}" = true ]; then
    opts=(--expdir exp_short --dumpdir dump_short --results results_short --channel_seed ""
        --distill_hours 0.4 --asr_hours 0.2 --sid_hours 0.3 --systems "student undistilled"
        --star_args "--max_epoch 2 --num_iters_per_epoch 80 --scheduler_conf first_cycle_steps=161"
        --skip_report true --skip_packing true
        --asr_args "--max_epoch 4")
    cache=exp_short/cache
fi

# CI looks for this file to tell a corpus that cannot be had from a failure of ours.
rm -f .cannot_fetch
status=0
./star.sh \
    --train_set train --valid_set valid \
    --asr_train asr_train --asr_valid asr_valid --asr_test asr_test \
    --sid_train sid_train --sid_valid sid_valid --sid_test sid_test \
    --min_duration 0.5 --valid_hours 0.05 --channel_seed 0 \
    --teacher downloads/whisper-base-encoder \
    --feature_cache "${cache}" --head_nj 2 \
    "${opts[@]}" ${rest[@]+"${rest[@]}"} || status=$?
[ "${status}" -ne 3 ] || touch .cannot_fetch
exit "${status}"
