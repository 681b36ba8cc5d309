#!/usr/bin/env bash
# STaR on LibriSpeech: a student of 9 to 27 M parameters out of HuBERT, WavLM or wav2vec 2.0 Base,
# then recognition as SUPERB does it on student and teacher, and the student fine-tuned.
#   ./run.sh                                            fetch the corpus, then all of it
#   ./run.sh --librispeech /corpora/LibriSpeech --model starhubert_l --ngpu 8
#   ./run.sh --help                                     every option of star.sh, which may follow
set -euo pipefail

model=starhubert      # starhubert, starhubert_l, _s, _xs; starwavlm; starwav2vec2
librispeech=          # LibriSpeech/ or its parent; empty: fetched to downloads/
lm=false              # Also decode through the official 4-gram (1.3 GB more to fetch)
ngpu=4                # GPUs; ESPnet divides every batch among them, 12 utterances each
accum_grad=1          # Parts of a step, where 48 utterances divided by ngpu do not fit:
                      # --ngpu 1 --accum_grad 4 is 12 at a time as well
train_set=train_960   # train_100 in the 100 h recipe
asr_test="test_clean test_other dev_clean dev_other"
skip_asr=false        # Skip recognition, and do not fetch what only it needs
distill_args=          # More options of star_train, e.g. "--use_amp true"
local_data_opts=      # More options of local/data.sh, e.g. "--download_dir /scratch"

rest=()
while [ $# -gt 0 ]; do
    case "$1" in
        --model | --librispeech | --lm | --ngpu | --accum_grad | --train_set | --asr_test | \
            --skip_asr | --distill_args | --local_data_opts)
            [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2; exit 2; }
            printf -v "${1#--}" '%s' "$2"
            shift 2 ;;
        --help | -h)
            sed -n '2,/^rest=/p' "$0" | grep -v '^set -e\|^rest='
            exec ./star.sh --help ;;
        *)
            rest+=("$1")
            shift ;;
    esac
done

case "${model}" in
    starhubert | starhubert_l | starhubert_s | starhubert_xs) teacher=facebook/hubert-base-ls960 ;;
    starwavlm) teacher=microsoft/wavlm-base ;;
    starwav2vec2) teacher=facebook/wav2vec2-base ;;
    *)
        echo "$0: unknown --model ${model}; choose from starhubert starhubert_l starhubert_s" \
            "starhubert_xs starwavlm starwav2vec2" >&2
        exit 2 ;;
esac

# Smaller batches, as many more of them: updates, learning rate and schedule stay.
case "${accum_grad}" in
    1) accumulation= ;;
    *[!0-9]* | 0* | "") echo "$0: --accum_grad must be a positive integer" >&2; exit 2 ;;
    *)
        of_base() { sed -n "s/^$1: *\([0-9]*\).*/\1/p" conf/train_star.yaml; }
        accumulation="--accum_grad ${accum_grad}"
        accumulation+=" --batch_bins $(($(of_base batch_bins) / accum_grad))"
        accumulation+=" --num_iters_per_epoch $(($(of_base num_iters_per_epoch) * accum_grad))" ;;
esac

sets="${train_set} dev"  # What local/data.sh writes, and fetches for
asr_opts=()
if [ "${skip_asr}" != true ]; then
    sets+=" train_clean_100 dev_clean ${asr_test}"
    # Frozen: characters, the best of each frame. Fine-tuned: SentencePiece.
    asr_opts=(--asr_sets "train_clean_100 dev_clean ${asr_test}" --systems "teacher student finetuned"
        --token_type char --vocab_size 300 --inference_args "" --asr_model valid.cer_ctc)
    [ "${lm}" != true ] || asr_opts+=(--lm_args
        "--lm_file downloads/lm/4-gram.arpa.gz --lexicon downloads/lm/librispeech-vocab.txt")
fi

# LibriSpeech's longest utterance lasts 35 s: nothing of a test set may be dropped. SUPERB sums
# plain states. Each model has its own exp/ and results/; the audio is shared.
data_opts="--sets ${sets} --lm ${lm} ${librispeech:+--librispeech ${librispeech}}"
./star.sh \
    --local_data_opts "${data_opts} ${local_data_opts}" \
    --train_set "${train_set}" --valid_set dev --prepare_args "--max_duration 36 --max_hours dev=1" --nj 8 \
    --teacher "${teacher}" --students "train_${model}" --distill_args "${accumulation} ${distill_args}" \
    --expdir "exp/${model}" --results "results/${model}" \
    --systems "teacher student" --frontend_conf normalize=false --ngpu "${ngpu}" \
    ${asr_opts[@]+"${asr_opts[@]}"} ${rest[@]+"${rest[@]}"}
