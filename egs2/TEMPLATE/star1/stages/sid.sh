# shellcheck shell=bash disable=SC2154
# Sourced by star.sh, whose variables and functions it uses: stages 10 and 11.

if [ -n "${sid_train}" ] && ! "${skip_sid}"; then
    if in_range 10; then
        log "Stage 10: SID training"
        mkdir -p "${expdir}"
        { cut -d' ' -f2 "${raw}/${sid_train}/utt2spk" | sort -u; echo "<unk>"; } > "${expdir}/speakers.txt"
        for column in "${columns[@]}"; do
            for set in "${sid_train}" "${sid_valid}"; do
                cp "${raw}/${set}${column}/utt2spk" "${raw}/${set}${column}/label"
            done
        done
        for head in "${sid_heads[@]}"; do
            sid_head "${head}"
            # shellcheck disable=SC2046,SC2086
            add_job "${head}" "${dir}" train ${python} -m espnet_star cls_train \
                --config "${sid_config}" --output_dir "${dir}" --ngpu "${ngpu}" --resume true "${heads_ddp[@]}" \
                --token_list "${expdir}/speakers.txt" $(frontend "${system}") \
                $(speech train "${raw}/${sid_train}${column}" label label) \
                $(speech valid "${raw}/${sid_valid}${column}" label label) ${sid_args}
        done
        run_jobs "SID training"
    fi
    if in_range 11; then
        log "Stage 11: SID inference and scoring of ${sid_test}"
        for head in "${sid_heads[@]}"; do
            sid_head "${head}"
            # shellcheck disable=SC2086
            add_job "${head}" "${dir}" decode ${python} -m espnet_star cls_inference \
                --classification_train_config "${dir}/config.yaml" --ngpu "$((ngpu > 0))" \
                --classification_model_file "${dir}/valid.acc.best.pth" \
                --output_dir "${dir}/${sid_test}" \
                --data_path_and_name_and_type "${raw}/${sid_test}${column}/wav.scp,speech,sound"
        done
        run_jobs "SID inference"
        for head in "${sid_heads[@]}"; do
            sid_head "${head}"
            score "${head}" sid "${dir}" "${raw}/${sid_test}/utt2spk" "${dir}/${sid_test}/prediction/text"
        done
    fi
fi
