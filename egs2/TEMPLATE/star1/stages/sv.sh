# shellcheck shell=bash disable=SC2154
# Sourced by star.sh, whose variables and functions it uses: stages 12 and 13.

if [ -n "${sv_train}" ] && ! "${skip_sv}"; then
    sv_model=valid.eer.best.pth
    if in_range 12; then
        log "Stage 12: SV training"
        # ESPnet's balanced batches look for speakers under this name.
        cp "${raw}/${sv_train}/spk2utt" "${raw}/${sv_train}/category2utt"
        star star_data trials --trials "data/${sv_valid}/trials" --data_dir "${raw}/${sv_valid}"
        speakers=$(wc -l < "${raw}/${sv_train}/spk2utt")
        pairs=(--valid_data_path_and_name_and_type "${raw}/${sv_valid}/trial.scp,speech,sound"
            --valid_data_path_and_name_and_type "${raw}/${sv_valid}/trial2.scp,speech2,sound"
            --valid_data_path_and_name_and_type "${raw}/${sv_valid}/trial_label,spk_labels,text"
            --valid_shape_file "${raw}/${sv_valid}/trial_shape")
        for system in ${systems}; do
            dir=${expdir}/sv_${system}${sv_tag}
            first=
            if [ -n "${sv_init}" ]; then
                first=${expdir}/sv_${system}_${sv_init}/${sv_model}
                [ -f "${first}" ] || fail "--sv_init ${sv_init}: ${first} is missing; train it first" \
                    "(--sv_config conf/train_sv_${sv_init}.yaml)"
            fi
            # shellcheck disable=SC2046,SC2086
            add_job "${system}" "${dir}" train ${python} -m espnet_star spk_train \
                --config "${sv_config}" --output_dir "${dir}" --ngpu "${ngpu}" --resume true "${heads_ddp[@]}" \
                --spk2utt "${raw}/${sv_train}/spk2utt" --spk_num "${speakers}" \
                ${first:+--init_param "${first}"} $(frontend "${system}") \
                $(speech train "${raw}/${sv_train}" utt2spk spk_labels) "${pairs[@]}" ${sv_args}
        done
        run_jobs "SV training"
    fi
    if in_range 13; then
        log "Stage 13: SV embeddings of ${sv_test} and scoring of its trials"
        for system in ${systems}; do
            dir=${expdir}/sv_${system}${sv_tag}
            # shellcheck disable=SC2086
            add_job "${system}" "${dir}" embed ${python} -m espnet_star spk_inference \
                --train_config "${dir}/config.yaml" --model_file "${dir}/${sv_model}" \
                --output_dir "${dir}/${sv_test}" --ngpu "$((ngpu > 0))" \
                --data_path_and_name_and_type "${raw}/${sv_test}/wav.scp,speech,sound"
        done
        run_jobs "SV embeddings"
        for system in ${systems}; do
            dir=${expdir}/sv_${system}${sv_tag}
            for list in ${sv_trials}; do
                echo "${system}, ${list}: $(star star_score sv --ref "data/${sv_test}/${list}" \
                    --hyp "${dir}/${sv_test}/embed.scp" --output "${dir}/score_${list}.json")"
            done
        done
    fi
fi
