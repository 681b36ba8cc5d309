#!/usr/bin/env bash
# The demo: a student of about 4 M parameters from Whisper base's encoder and the voices of
# "Flight of the Amazon Queen", on 2 CPU cores. Options go to star.sh (--help lists them).
#   ./run.sh               all of it, 25 to 30 minutes
#   ./run.sh --long true   a better student, twice as long
set -euo pipefail

long=false
rest=()
while [ $# -gt 0 ]; do
    if [ "$1" = --long ]; then
        long=${2:?--long needs true or false}
        shift 2
    else
        rest+=("$1")
        shift
    fi
done

opts=(--expdir exp --dumpdir dump --results results --train_set asr_train)
hours="asr_train=0.8 sid_train=0.5"
cache=cache_dir=exp/cache
if [ "${long}" = true ]; then
    opts=(--expdir exp_long --dumpdir dump_long --results results_long --train_set train --students train_star_long)
    hours="train=2.0 asr_train=1.3 sid_train=0.9"
    cache=cache_dir=exp_long/cache
fi

# CI looks for this file to tell a corpus that cannot be had from a failure of ours.
rm -f .cannot_fetch
status=0
# The heads of recognition learn on the speech that was distilled on, as LibriSpeech serves both in
# SUPERB: the teacher hears it once. A log-mel normalized by utterance would have nothing left to
# tell speakers by after mean pooling, a raw one is not what recognition is fed.
./star.sh \
    --valid_set valid --asr_sets "asr_train asr_valid asr_test" --sid_sets "sid_train sid_valid sid_test" \
    --prepare_args "--min_duration 0.5 --max_hours ${hours} valid=0.05 asr_valid=0.08 sid_valid=0.08" \
    --channel_seed 0 --teacher downloads/whisper-base-encoder --distill_args "--model_conf ${cache}" \
    --systems "teacher student undistilled logmel_raw" --frontend_conf "normalize=true ${cache}" \
    --inference_args "" --head_nj 2 \
    "${opts[@]}" ${rest[@]+"${rest[@]}"} || status=$?
[ "${status}" -ne 3 ] || touch .cannot_fetch
exit "${status}"
