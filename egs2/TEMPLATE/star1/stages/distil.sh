# shellcheck shell=bash disable=SC2154
# Sourced by star.sh, whose variables and functions it uses: stages 4 to 6.

# shellcheck disable=SC2206,SC2207  # words of options
distil=(${python} -m espnet_star star_train --config "${star_config}" --teacher "${teacher}"
    --output_dir "${star_exp}" --ngpu "${ngpu}" --resume true
    $(speech train "${raw}/${train_set}") $(speech valid "${raw}/${valid_set}")
    ${feature_cache:+--model_conf cache_dir="${feature_cache}"} ${star_args})

if ! "${skip_train}"; then
    if in_range 4; then
        log "Stage 4: teacher ${teacher}"
        star star_run --log "${star_exp}/teacher.log" --title "teacher and student fit" -- \
            "${distil[@]}" --dry_run true
        grep -hoE "(Teacher|Student|temporal_gram): .*|Teacher .*" "${star_exp}/teacher.log" || true
    fi
    if in_range 5; then
        log "Stage 5: distillation; log ${star_exp}/train.log"
        if "${force}"; then rm -rf "${star_exp:?}"/{.train.done,checkpoint*.pth,*epoch.pth}; fi
        launcher=()
        if [ "${num_nodes}" -gt 1 ]; then
            [ -n "${train_cmd}" ] || fail "--num_nodes ${num_nodes} needs --train_cmd, e.g. slurm.pl"
            # shellcheck disable=SC2206
            launcher=(${python} -m espnet2.bin.launch --cmd "${train_cmd}" --ngpu "${ngpu}"
                --num_nodes "${num_nodes}" --log "${star_exp}/node.log"
                --init_file_prefix "${star_exp}/.dist_init_" --multiprocessing_distributed true --)
        elif [ "${ngpu}" -gt 1 ]; then
            distil+=(--multiprocessing_distributed true)
        fi
        star star_run --log "${star_exp}/train.log" --done "${star_exp}/.train.done" \
            --title "distillation" -- "${launcher[@]}" "${distil[@]}"
    fi
    if in_range 6; then
        log "Stage 6: averaged student to Hugging Face format"
        star star_export --expdir "${star_exp}" --outdir "${student}" --force true \
            ${inference_model:+--model_file "${inference_model}"}
        star star_export --expdir "${star_exp}" --outdir "${undistilled}" --force true \
            --random_init true --speed false ${inference_model:+--model_file "${inference_model}"}
    fi
fi
