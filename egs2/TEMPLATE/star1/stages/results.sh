# shellcheck shell=bash disable=SC2154
# Sourced by star.sh, whose variables and functions it uses: stages 14 and 15.

if in_range 14; then
    log "Stage 14: results"
    mkdir -p "${results}"
    files=()
    for system in ${systems}; do
        # shellcheck disable=SC2207
        metrics=($(asr_metrics "${system}"))
        for column in "${columns[@]}"; do
            file=${expdir}/sid_${system}/score${column}.json
            [ ! -f "${file}" ] || metrics+=("sid_acc${column}=${file}#accuracy")
        done
        suffix=  # The first list has the plain names.
        for list in ${sv_trials}; do
            file=${expdir}/sv_${system}${sv_tag}/score_${list}.json
            [ ! -f "${file}" ] || metrics+=(
                "sv_eer${suffix:+_${list}}=${file}#eer" "sv_mindcf${suffix:+_${list}}=${file}#mindcf")
            suffix=further
        done
        [ ${#metrics[@]} -gt 0 ] || fail "no score of ${system} yet; run stages 7 to 13 first"
        case "${system}" in
            student) size=(--upstream "${student}") ;;
            undistilled) size=(--upstream "${undistilled}") ;;
            teacher) size=(--upstream "${teacher}") ;;
            *) size=(--params 0) ;;
        esac
        rm -f "${results}/${system}.json"
        star star_score add --output "${results}/${system}.json" --system "${system}" \
            "${size[@]}" --metric "${metrics[@]}"
        files+=("${results}/${system}.json")
    done
    # shellcheck disable=SC2207
    metrics=(${finetune_config:+$(asr_metrics finetuned)})
    if [ ${#metrics[@]} -gt 0 ]; then
        rm -f "${results}/student_finetuned.json"
        star star_score add --output "${results}/student_finetuned.json" \
            --system "student, fine-tuned" --upstream "${student}" --metric "${metrics[@]}"
        files+=("${results}/student_finetuned.json")
    fi
    star star_score table --results "${files[@]}" \
        --output "${results}/RESULTS.md" "${results}/results.json"
    cat "${results}/RESULTS.md"
fi

# A ready student was reported on where it was distilled.
if in_range 15 && ! "${skip_report}" && ! "${ready}"; then
    log "Stage 15: report"
    heads=()
    for system in ${systems}; do
        [[ ${system} != logmel* ]] || continue  # has no layers to look at
        for dir in "${expdir}"/{"asr_${system}","sid_${system}","sv_${system}${sv_tag}"}; do
            [ ! -f "${dir}/config.yaml" ] || heads+=("${dir}")
        done
    done
    star star_report --expdir "${star_exp}" ${heads[0]:+--heads "${heads[@]}"} \
        --results "${results}/results.json" --output_dir "${results}/report" --force true
fi
