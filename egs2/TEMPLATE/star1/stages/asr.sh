# shellcheck shell=bash disable=SC2154
# Sourced by star.sh, whose variables and functions it uses: stages 7, 8 and 10.

# Heads on frozen systems, and the student fine-tuned: exp/asr_NAME.
asr_heads=("${asr_systems[@]}")
[ -z "${finetune_config}" ] || asr_heads+=(finetuned)

asr_head() {  # asr_head NAME: sets what one head differs in from another
    dir=${expdir}/asr_$1
    # shellcheck disable=SC2206,SC2207  # words of options
    if [ "$1" = finetuned ]; then
        tokens=${expdir}/tokens_finetune
        type=${finetune_token_type}
        head_opts=(--config "${finetune_config}" --encoder_conf "upstream=${student}" ${finetune_args})
        search_opts=(${finetune_decode_args})
        model=${dir}/${finetune_model}
    else
        tokens=${expdir}/tokens_${token_type}
        type=${token_type}
        head_opts=(--config "${asr_config}" $(frontend "$1") ${asr_args})
        search_opts=(${decode_args})
        model=${dir}/${inference_asr_model}
    fi
    token_opts=(--token_type "${type}" --token_list "${tokens}/tokens.txt")
    [ "${type}" != bpe ] || token_opts+=(--bpemodel "${tokens}/bpe.model")
    ways=("")  # By itself, and through the n-gram, which spells words by characters.
    [ -z "${lm_file}" ] || [ "${type}" != char ] || ways+=(_lm)
}
can_align() {  # can_align CONFIG: with the tokens of the present head
    local bpe=()
    [ "${type}" != bpe ] || bpe=(--bpemodel "${tokens}/bpe.model")
    check "${asr_train}" --need text --ctc_config "$1" "${bpe[@]}"
}
decoder() {  # decoder WAY: sets the command and options that decode the present head
    # shellcheck disable=SC2206
    if [ "$1" = _lm ]; then
        decode=(star_lm_decode --lm_file "${lm_file}" --lexicon "${lexicon}" ${lm_decode_args})
    elif "${greedy}"; then
        decode=(star_lm_decode)
    else
        decode=(asr_inference "${search_opts[@]}")
    fi
}

asr_training() {
    if in_range 7; then
        log "Stage 7: tokens"
        star star_data tokens --text "${raw}/${asr_train}/text" --output_dir "${expdir}/tokens_${token_type}" \
            --token_type "${token_type}" --vocab_size "${vocab_size}"
        [ -z "${finetune_config}" ] || star star_data tokens --text "${raw}/${asr_train}/text" \
            --output_dir "${expdir}/tokens_finetune" --token_type "${finetune_token_type}" \
            --vocab_size "${finetune_vocab_size}"
        # Utterances with more tokens than CTC has frames teach nothing: named before training.
        [ ${#asr_systems[@]} -eq 0 ] || { asr_head "${asr_systems[0]}"; can_align "${asr_config}"; }
        [ -z "${finetune_config}" ] || { asr_head finetuned; can_align "${finetune_config}"; }
    fi
    in_range 8 || return 0
    log "Stage 8: ASR training"
    for head in "${asr_heads[@]}"; do
        asr_head "${head}"
        # shellcheck disable=SC2046,SC2086
        add_job "asr_${head}" "${dir}" train ${python} -m espnet_star asr_train \
            --output_dir "${dir}" --ngpu "${ngpu}" "${heads_ddp[@]}" --resume true \
            "${token_opts[@]}" $(speech train "${raw}/${asr_train}" text text) \
            $(speech valid "${raw}/${asr_valid}" text text) "${head_opts[@]}"
    done
}
asr_each() {  # asr_each COMMAND: with every head, test set and way of decoding
    for head in "${asr_heads[@]}"; do
        asr_head "${head}"
        for set in "${asr_tests[@]}"; do
            for way in "${ways[@]}"; do
                end=${way}$(of_test "${set}")
                "$1"
            done
        done
    done
}
asr_decode() {
    decoder "${way}"
    # shellcheck disable=SC2086
    add_job "asr_${head}${end}" "${dir}" "decode${end}" ${python} -m espnet_star \
        "${decode[@]}" --output_dir "${dir}/${set}${way}" \
        --asr_train_config "${dir}/config.yaml" --asr_model_file "${model}" \
        --data_path_and_name_and_type "${raw}/${set}/wav.scp,speech,sound" --ngpu "$((ngpu > 0))"
}
asr_score() {
    score "asr_${head}${end}" asr "${dir}" "${raw}/${set}/text" \
        "${dir}/${set}${way}/1best_recog/text" "score${end}.json"
}
asr_metrics() {  # asr_metrics NAME: "wer=FILE#wer cer=FILE#cer" of every test set and way scored
    local way set end file
    for way in "" _lm; do
        for set in "${asr_tests[@]}"; do
            end=${way}$(of_test "${set}")
            file=${expdir}/asr_$1/score${end}.json
            [ ! -f "${file}" ] || echo "wer${end}=${file}#wer" "cer${end}=${file}#cer"
        done
    done
}
