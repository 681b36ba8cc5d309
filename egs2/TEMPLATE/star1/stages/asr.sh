# shellcheck shell=bash disable=SC2154
# Sourced by star.sh, whose variables and functions it uses: stages 7 to 9.

if [ -n "${asr_train}" ] && ! "${skip_asr}"; then
    if in_range 7; then
        log "Stage 7: tokens"
        star star_tokens --text "${raw}/${asr_train}/text" --outdir "${tokens}" \
            --token_type "${token_type}" --vocab_size "${vocab_size}"
    fi
    token_opts=(--token_type "${token_type}" --token_list "${tokens}/tokens.txt")
    [ "${token_type}" != bpe ] || token_opts+=(--bpemodel "${tokens}/bpe.model")
    if in_range 8; then
        log "Stage 8: ASR training"
        for system in "${asr_systems[@]}"; do
            dir=${expdir}/asr_${system}
            # shellcheck disable=SC2046,SC2086
            add_job "${system}" "${dir}" train ${python} -m espnet_star asr_train \
                --config "${asr_config}" --output_dir "${dir}" --ngpu "${ngpu}" --resume true \
                "${token_opts[@]}" $(frontend "${system}") \
                $(speech train "${raw}/${asr_train}" text text) \
                $(speech valid "${raw}/${asr_valid}" text text) ${asr_args}
        done
        run_jobs "ASR training"
    fi
    if in_range 9; then
        log "Stage 9: ASR decoding and scoring of ${asr_test}"
        for system in "${asr_systems[@]}"; do
            dir=${expdir}/asr_${system}
            # shellcheck disable=SC2086
            add_job "${system}" "${dir}" decode ${python} -m espnet_star asr_inference \
                --asr_train_config "${dir}/config.yaml" --output_dir "${dir}/${asr_test}" \
                --asr_model_file "${dir}/valid.loss.best.pth" --ngpu "$((ngpu > 0))" \
                --data_path_and_name_and_type "${raw}/${asr_test}/wav.scp,speech,sound" \
                ${decode_args}
        done
        run_jobs "ASR decoding"
        for system in "${asr_systems[@]}"; do
            dir=${expdir}/asr_${system}
            score "${system}" asr "${dir}" "${raw}/${asr_test}/text" "${dir}/${asr_test}/1best_recog/text"
        done
    fi
fi
