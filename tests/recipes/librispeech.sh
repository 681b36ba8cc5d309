# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by rehearse.sh: the rehearsal of both LibriSpeech recipes. Paths are
# those of rehearsal_run.

make_corpus() {
    fetch_demo_clips || return $?
    ${python} "${here}"/make_librispeech.py "${clips[@]}" --output_dir "$1/corpus"
    ${python} "${here}"/make_lm.py --corpus "$1/corpus/LibriSpeech" --output_dir "$1/downloads/lm"
}

# Decoding through the n-gram needs a library that has no wheel for the newest Python.
lm=true
${python} -c "import flashlight.lib.text.decoder" 2> /dev/null || lm=false

model=starhubert  # Or the one that is asked for.
for index in "${!given[@]}"; do [ "${given[index]}" != --model ] || model=${given[index + 1]:-}; done
case "${model}" in
    starwavlm) teacher=wavlm ;;
    starwav2vec2) teacher=wav2vec2 ;;
    *) teacher=hubert ;;
esac
results=results/${model}
# Of the official n-gram's checksum and the number of utterances a miniature has neither. A
# miniature's words hold few pieces.
options=(--librispeech corpus --lm "${lm}" --local_data_opts "--allow_fewer true --lm false"
    --teacher "teachers/${teacher}" --ngpu 0 --cpu_ranks 2 --nj 2 --head_nj 2
    --vocab_size 60)
packs=(student asr asr_finetuned)
ways=("")
[ "${lm}" = false ] || ways+=(_lm)
case "${recipe}" in
    librispeech)
        tests="test_clean test_other"
        # The other families, distilled alone: one in a single process, one from shards, whose
        # batches are made within each of the two processes and so hold fewer utterances.
        more=("--model starwavlm --teacher teachers/wavlm --stage 4 --stop_stage 5 --cpu_ranks 1"
            "--model starwav2vec2 --teacher teachers/wav2vec2 --train_shards dump/shards/train_960 --stage 2 --stop_stage 5
                --distill_args --expected_batch=4") ;;
    *) tests=test_clean ;;
esac
options+=(--asr_test "${tests}")
for set in ${tests}; do
    end=
    [ "${tests}" = "${set}" ] || end=_${set}
    for system in teacher student; do
        for way in "${ways[@]}"; do expect+=("${system}.wer${way}${end}" "${system}.cer${way}${end}"); done
    done
    expect+=("student_finetuned.wer${end}")
done
