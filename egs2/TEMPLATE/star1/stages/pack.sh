# shellcheck shell=bash disable=SC2154
# Sourced by star.sh, whose variables and functions it uses: stages 16 and 17.

# The student, and ESPnet's models on it.
packs=${expdir}/packs
models=()
"${ready}" || models+=(student)
[ ! -f "${expdir}/asr_student/config.yaml" ] || models+=(asr)
[ ! -f "${expdir}/asr_finetuned/config.yaml" ] || models+=(asr_finetuned)
[ ! -f "${expdir}/sid_student/config.yaml" ] || models+=(sid)
[ ! -f "${expdir}/sv_student${sv_tag}/config.yaml" ] || models+=(sv)
repo() { [ "$1" = student ] && echo "${hf_repo}" || echo "${hf_repo}_$1"; }

if in_range 16 && ! "${skip_packing}"; then
    log "Stage 16: packs in ${packs}"
    for model in "${models[@]}"; do
        case "${model}" in
            student) source=(ssl --expdir "${star_exp}" --upstream "${student}"
                ${inference_model:+--model_file "${inference_model}"}) ;;
            asr) source=(asr --expdir "${expdir}/asr_student" --inference_args="${decode_args}"
                --model_file "${inference_asr_model}") ;;
            asr_finetuned) source=(asr --expdir "${expdir}/asr_finetuned"
                --inference_args="${finetune_decode_args}" --model_file "${finetune_model}") ;;
            sid) source=(cls --expdir "${expdir}/sid_student" --model_file valid.acc.best.pth) ;;
            sv) source=(spk --expdir "${expdir}/sv_student${sv_tag}" --model_file valid.eer.best.pth) ;;
        esac
        [ ! -f "${results}/RESULTS.md" ] || source+=(--results "${results}/results.json")
        star star_export pack "${source[@]}" --output "${packs}/${model}.zip" --force true \
            ${hf_repo:+--hf_repo "$(repo "${model}")"} ${license:+--license "${license}"} \
            ${description:+--description "${description}"}
    done
fi

if in_range 17 && { ! "${skip_upload}" || "${upload_dry_run}"; }; then
    log "Stage 17: upload"
    for model in "${models[@]}"; do
        star star_export upload --pack "${packs}/${model}.zip" --hf_repo "$(repo "${model}")" \
            --dry_run "${upload_dry_run}"
    done
fi
