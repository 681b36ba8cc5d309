# shellcheck shell=bash disable=SC2154
# Sourced by star.sh, whose variables and functions it uses: stages 9 and 11.

sid_training() {
    in_range 9 || return 0
    log "Stage 9: SID training"
    mkdir -p "${expdir}"
    { cut -d' ' -f2 "${raw}/${sid_train}/utt2spk" | sort -u; echo "<unk>"; } > "${expdir}/speakers.txt"
    for set in "${sid_train}" "${sid_valid}"; do cp "${raw}/${set}/utt2spk" "${raw}/${set}/label"; done
    for system in ${systems}; do
        dir=${expdir}/sid_${system}
        # shellcheck disable=SC2046,SC2086
        add_job "sid_${system}" "${dir}" train ${python} -m espnet_star cls_train \
            --config "${sid_config}" --output_dir "${dir}" --ngpu "${ngpu}" --resume true "${heads_ddp[@]}" \
            --token_list "${expdir}/speakers.txt" $(frontend "${system}") \
            $(speech train "${raw}/${sid_train}" label label) \
            $(speech valid "${raw}/${sid_valid}" label label) ${sid_args}
    done
}
sid_each() {  # sid_each COMMAND: with every head, and the test set behind each kind of channel
    for system in ${systems}; do
        dir=${expdir}/sid_${system}
        for column in "${columns[@]}"; do "$1"; done
    done
}
sid_infer() {
    # shellcheck disable=SC2086
    add_job "sid_${system}${column}" "${dir}" "decode${column}" ${python} -m espnet_star cls_inference \
        --classification_train_config "${dir}/config.yaml" --ngpu "$((ngpu > 0))" \
        --classification_model_file "${dir}/valid.acc.best.pth" \
        --output_dir "${dir}/${sid_test}${column}" \
        --data_path_and_name_and_type "${raw}/${sid_test}${column}/wav.scp,speech,sound"
}
sid_score() {
    score "sid_${system}${column}" sid "${dir}" "${raw}/${sid_test}/utt2spk" \
        "${dir}/${sid_test}${column}/prediction/text" "score${column}.json"
}
