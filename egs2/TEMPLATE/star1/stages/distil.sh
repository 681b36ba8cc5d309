# shellcheck shell=bash disable=SC2086,SC2154,SC2206,SC2207
# Sourced by star.sh, whose variables and functions it uses: stages 4 to 6.

ranks=$(((ngpu > 0 ? ngpu : cpu_ranks) * num_nodes))

distil_opts=(--config "${star_config}" --teacher "${teacher}"
    --output_dir "${star_exp}" --resume true $(speech valid "${raw}/${valid_set}")
    $([ -n "${train_shards}" ] || speech train "${raw}/${train_set}")
    ${train_shards:+--train_shards ${train_shards}}
    ${feature_cache:+--model_conf cache_dir="${feature_cache}"} ${star_args})

plan() {  # What the distillation will take; fails where it cannot work.
    star star_plan ${train_set:+--train "data/${train_set}" "${raw}/${train_set}"} \
        --valid "data/${valid_set}" "${raw}/${valid_set}" \
        --min_duration "${min_duration}" --max_duration "${max_duration}" --nj "${nj}" \
        ${distill_hours:+--max_hours "${distill_hours}"} \
        ${valid_hours:+--valid_hours "${valid_hours}"} \
        --ranks "${ranks}" --output "${star_exp}/plan.json" -- --ngpu "${ngpu}" "${distil_opts[@]}"
}

launch() {  # Sets distil: the command that starts every process of the distillation.
    local each=$((ngpu > 0 ? ngpu : cpu_ranks))
    # One process a GPU, started from outside; gloo where there is no GPU.
    local one=(--multiprocessing_distributed false --ngpu "$((ngpu > 0))")
    [ "${ngpu}" -gt 0 ] || one+=(--dist_backend gloo)
    local start=${launcher}
    # ESPnet's own launcher starts one CPU process a node.
    [ "${ngpu}" -gt 0 ] || [ "${cpu_ranks}" -eq 1 ] || [ "${start}" != espnet ] || start=torchrun
    case "${start}" in
        espnet)
            distil=(${python} -m espnet_star star_train --ngpu "${ngpu}")
            [ "${ranks}" -eq 1 ] || distil+=(--multiprocessing_distributed true)
            [ "${num_nodes}" -eq 1 ] || distil=(${python} -m espnet2.bin.launch --cmd "${train_cmd}"
                --ngpu "${ngpu}" --num_nodes "${num_nodes}" --log "${star_exp}/node.log"
                --init_file_prefix "${star_exp}/.dist_init_" --multiprocessing_distributed true
                -- ${python} -m espnet_star star_train) ;;
        torchrun)
            distil=(${python} -m torch.distributed.run --nnodes "${num_nodes}" --nproc_per_node "${each}")
            [ "${num_nodes}" -gt 1 ] || distil+=(--standalone)
            distil+=(${launcher_opts} -m espnet_star star_train "${one[@]}") ;;
        slurm)
            # A port for this job among those that nobody reserves.
            distil=(srun --nodes "${num_nodes}" --ntasks-per-node "${each}" --kill-on-bad-exit=1
                ${launcher_opts} ${python} -m espnet_star star_train --dist_launcher slurm
                --dist_master_port "$((20000 + ${SLURM_JOB_ID:-0} % 20000))" "${one[@]}") ;;
    esac
    distil+=("${distil_opts[@]}")
}

if "${check_only}"; then
    log "Check: what the distillation will take"
    plan
    exit 0
fi

if ! "${skip_train}"; then
    if in_range 4; then
        log "Stage 4: plan, and teacher ${teacher}"
        plan
    fi
    if in_range 5; then
        # torchrun is started on every node, and each has its log.
        train_log=${star_exp}/train.log
        [ "${launcher}" != torchrun ] || [ "${num_nodes}" -eq 1 ] || train_log=${star_exp}/train.$(hostname -s).log
        in_how_many=
        [ "${ranks}" -eq 1 ] || in_how_many=" in ${ranks} processes"
        log "Stage 5: distillation${in_how_many}"
        if "${force}"; then rm -rf "${star_exp:?}"/{.train.done,checkpoint*.pth,*epoch.pth}; fi
        launch
        star star_run --log "${train_log}" --done "${star_exp}/.train.done" \
            --title "distillation" -- "${distil[@]}"
    fi
    if in_range 6; then
        log "Stage 6: averaged student to Hugging Face format"
        star star_export transformers --expdir "${star_exp}" --output_dir "${student}" --force true \
            ${inference_model:+--model_file "${inference_model}"}
        star star_export transformers --upstream "${student}" --output_dir "${undistilled}" --force true --random_init true
    fi
fi
