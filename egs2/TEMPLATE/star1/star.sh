#!/usr/bin/env bash
# Distil a speech self-supervised model into a light student, put the student to work in
# speech recognition and speaker identification, and compare it with what it is made from.
# Needs no Kaldi and no ESPnet checkout: every step is a Python module.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# General configuration
stage=1               # Processing starts from this stage.
stop_stage=15         # Processing stops after this stage.
skip_data_prep=false  # Skip stages 1 to 3.
skip_train=false      # Skip stages 4 to 6 (distillation and export).
skip_asr=false        # Skip stages 7 to 9.
skip_sid=false        # Skip stages 10 and 11.
skip_report=false     # Skip stage 13.
skip_packing=false    # Skip stage 14.
skip_upload=true      # Skip stage 15.
force=false           # Repeat what is finished already.
ngpu=0                # GPUs a node; 0 is the CPU.
num_nodes=1           # Nodes of the distillation.
train_cmd=            # For num_nodes > 1: ESPnet's launcher script, e.g. "slurm.pl".
nj=2                  # Processes of data preparation.
head_nj=1             # Heads trained side by side; with ngpu=0 they share the cores.
python=python3        # Python of the environment that holds espnet_star.
dumpdir=dump          # Prepared audio.
expdir=exp            # Experiments.

# Data
local_data_opts=      # Options of local/data.sh.
train_set=            # Distillation: data/NAME, made by local/data.sh.
valid_set=
asr_train=            # Recognition; leave asr_train empty to go without.
asr_valid=
asr_test=
sid_train=            # Speaker identification; likewise.
sid_valid=
sid_test=
min_duration=0.1      # Drop shorter utterances, in seconds.
max_duration=30       # Drop longer ones.
distill_hours=        # Use a random subset of at most so many hours; empty: all.
valid_hours=          # The same for the distillation's valid set.
asr_hours=
sid_hours=
channel_seed=         # Also identify speakers behind a random channel drawn from this seed.

# Distillation
teacher=              # Hub name or directory.
star_config=conf/train_star.yaml
star_args=            # More options of star_train, e.g. "--max_epoch 3".
star_tag=             # Name of the experiment; the configuration's by default.
inference_model=      # Model to export; the averaged best by default.

# Heads
systems="teacher student undistilled logmel logmel_raw"  # What to compare.
logmel_conf="n_fft=512 win_length=400 hop_length=320 n_mels=80"  # 50 frames/s, as the student.
asr_config=conf/train_asr.yaml
asr_args=
token_type=bpe        # SentencePiece, or char.
vocab_size=100
decode_args="--ctc_weight 1.0 --beam_size 1"
sid_config=conf/train_sid.yaml
sid_args=
feature_cache=        # Keep frozen encoders' states in this folder (small corpora only).
results=results       # RESULTS.md, results.json and report/ go here.

# Packs
license=              # As the hub spells it, e.g. cc-by-4.0; needed for an upload.
description=          # A sentence on the models, for their README.
hf_repo=              # Upload to USER/NAME; the heads' models to USER/NAME_asr, USER/NAME_sid.
upload_dry_run=false  # Show what stage 15 would send, send nothing.

help_message=$(cat << EOH
Usage: $0 --train_set NAME --valid_set NAME --teacher NAME_OR_DIRECTORY [options]

Stages: 1 local/data.sh, 2 audio to 16 kHz mono, 3 check, 4 teacher, 5 distil, 6 export,
        7 ASR tokens, 8 ASR training, 9 ASR decoding and scoring, 10 SID training,
        11 SID inference and scoring, 12 result table, 13 report, 14 packs of the student and
        the models on it, 15 upload to the Hugging Face hub (--skip_upload false --hf_repo NAME)
Systems: student, undistilled (the same, random weights), logmel (normalised per utterance),
        logmel_raw (SID only), teacher

Options (defaults):
$(sed -n '/^# General configuration/,/^help_message/p' "$0" \
    | sed -e '/^help_message/d' -e 's/^\([a-z_]*\)=/    --\1 /' -e 's/^# /\n    # /')
EOH
)

. ./path.sh
. ./parse_options.sh

log() { echo "$(date '+%H:%M:%S') $*"; }
fail() { echo "$0: $*" >&2; exit 2; }
star() { ${python} -m espnet_star "$@"; }
in_range() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }

[ -n "${train_set}" ] && [ -n "${valid_set}" ] || fail "--train_set and --valid_set are required"
[ -n "${teacher}" ] || fail "--teacher is required: a hub name or a directory"
if ! "${skip_upload}" || "${upload_dry_run}"; then
    [ -n "${hf_repo}" ] || fail "--hf_repo is required for an upload: USER/NAME on the hub"
    [ -n "${license}" ] || fail "--license is required for an upload, e.g. cc-by-4.0"
fi

[ -n "${star_tag}" ] || star_tag=$(basename "${star_config}" .yaml)
star_exp=${expdir}/${star_tag}
student=${star_exp}/student
undistilled=${star_exp}/undistilled
tokens=${expdir}/tokens_${token_type}
raw=${dumpdir}/raw

# Jobs of a stage are collected, then run side by side with one line of progress.
jobs=$(mktemp)
trap 'rm -f "${jobs}"' EXIT
threads=()
[ "${head_nj}" -gt 1 ] && [ "${ngpu}" -eq 0 ] && threads=(env OMP_NUM_THREADS=1)

add_job() {  # add_job NAME DIR MARKER COMMAND...: log in DIR, done when MARKER exists
    local name=$1 dir=$2 marker=$3
    shift 3
    mkdir -p "${dir}"
    ! "${force}" || rm -f "${dir}/.${marker}.done"
    printf '%s\t%s\t%s\t%s\n' "${name}" "${dir}/${marker}.log" "${dir}/.${marker}.done" \
        "$(printf '%q ' "$@")" >> "${jobs}"
}
run_jobs() {  # run_jobs TITLE
    local title=$1
    [ -s "${jobs}" ] || return 0
    "${threads[@]}" ${python} -m espnet_star star_run --jobs "${jobs}" --nj "${head_nj}" \
        --title "${title}"
    : > "${jobs}"
}

speech() {  # speech SPLIT DIR [FILE NAME TYPE]: ESPnet's data options of a split
    local split=$1 dir=$2
    echo "--${split}_data_path_and_name_and_type ${dir}/wav.scp,speech,sound" \
        "--${split}_shape_file ${dir}/utt2num_samples"
    [ $# -lt 3 ] || echo "--${split}_data_path_and_name_and_type ${dir}/$3,$4,text"
}

frontend() {  # frontend SYSTEM: the options that tell one system from another
    local conf
    case "$1" in
        student) conf="upstream=${student} normalize=true" ;;
        undistilled) conf="upstream=${undistilled} normalize=true" ;;
        teacher) conf="upstream=${teacher} normalize=true" ;;
        logmel) conf=${logmel_conf}; echo "--frontend default --normalize utterance_mvn" ;;
        logmel_raw) conf=${logmel_conf}; echo "--frontend default" ;;
        *) fail "unknown system '$1'; choose from student undistilled teacher logmel logmel_raw" ;;
    esac
    case "$1" in
        logmel*) ;;
        *) echo "--frontend star"; conf+=${feature_cache:+ cache_dir=${feature_cache}} ;;
    esac
    for pair in ${conf}; do echo "--frontend_conf ${pair}"; done
}

sid_head() {  # sid_head SYSTEM[_channel]: sets system, column and dir
    system=${1%_channel}
    column=${1#"${system}"}
    dir=${expdir}/sid_$1
}

score() {  # score NAME TASK DIR REF HYP: one line of output, all of it in DIR/score.json
    echo "$1: $(star star_score "$2" --ref "$4" --hyp "$5" --out "$3/score.json" | sed -n 1p)"
}

prepare() {  # prepare SET HOURS [SUFFIX OPTIONS...]: data/SET to dump/raw/SET
    local set=$1 hours=$2 suffix=${3:-}
    shift $(($# < 3 ? $# : 3))
    star star_prepare_data --srcdir "data/${set}" --dstdir "${raw}/${set}${suffix}" --nj "${nj}" \
        --min_duration "${min_duration}" --max_duration "${max_duration}" --force "${force}" \
        ${hours:+--max_hours "${hours}"} "$@"
}

for system in ${systems}; do frontend "${system}" > /dev/null; done  # All known?
# shellcheck disable=SC2206
asr_systems=(${systems/logmel_raw/})
columns=("")
[ -z "${channel_seed}" ] || columns+=("_channel")
sid_heads=()  # SYSTEM, then SYSTEM_channel, of each system.
for column in "${columns[@]}"; do
    for system in ${systems}; do sid_heads+=("${system}${column}"); done
done

if ! "${skip_data_prep}"; then
    if in_range 1; then
        log "Stage 1: data preparation (local/data.sh)"
        # shellcheck disable=SC2086
        PYTHON=${python} local/data.sh ${local_data_opts}
    fi
    if in_range 2; then
        log "Stage 2: audio at 16 kHz, mono"
        prepare "${train_set}" "${distill_hours}"
        prepare "${valid_set}" "${valid_hours}"
        if [ -n "${asr_train}" ]; then
            prepare "${asr_train}" "${asr_hours}"
            prepare "${asr_valid}" ""
            prepare "${asr_test}" ""
        fi
        if [ -n "${sid_train}" ]; then
            for column in "${columns[@]}"; do
                channel=(${column:+--channel_seed "${channel_seed}"})
                prepare "${sid_train}" "${sid_hours}" "${column}" "${channel[@]}"
                prepare "${sid_valid}" "" "${column}" "${channel[@]}"
                prepare "${sid_test}" "" "${column}" "${channel[@]}"
            done
        fi
    fi
    if in_range 3; then
        log "Stage 3: check before hours are spent"
        for set in "${train_set}" "${valid_set}"; do star star_check_data --datadir "${raw}/${set}"; done
        if [ -n "${asr_train}" ]; then
            for set in "${asr_train}" "${asr_valid}" "${asr_test}"; do
                star star_check_data --datadir "${raw}/${set}" --need text
            done
        fi
        if [ -n "${sid_train}" ]; then
            for set in "${sid_train}" "${sid_valid}" "${sid_test}"; do
                star star_check_data --datadir "${raw}/${set}" --need utt2spk \
                    --train_speakers "${raw}/${sid_train}"
            done
        fi
    fi
fi

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
                --config "${sid_config}" --output_dir "${dir}" --ngpu "${ngpu}" --resume true \
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

if in_range 12; then
    log "Stage 12: results"
    mkdir -p "${results}"
    files=()
    for system in ${systems}; do
        metrics=()
        [ ! -f "${expdir}/asr_${system}/score.json" ] || metrics+=(
            "wer=${expdir}/asr_${system}/score.json#wer" "cer=${expdir}/asr_${system}/score.json#cer")
        for column in "${columns[@]}"; do
            [ ! -f "${expdir}/sid_${system}${column}/score.json" ] || metrics+=(
                "sid_acc${column}=${expdir}/sid_${system}${column}/score.json#accuracy")
        done
        [ ${#metrics[@]} -gt 0 ] || fail "no score of ${system} yet; run stages 7 to 11 first"
        case "${system}" in
            student) size=(--upstream "${student}") ;;
            undistilled) size=(--upstream "${undistilled}") ;;
            teacher) size=(--upstream "${teacher}") ;;
            *) size=(--params 0) ;;
        esac
        rm -f "${results}/${system}.json"
        star star_score add --file "${results}/${system}.json" --system "${system}" \
            "${size[@]}" --metric "${metrics[@]}"
        files+=("${results}/${system}.json")
    done
    star star_score table --results "${files[@]}" \
        --out "${results}/RESULTS.md" --json "${results}/results.json"
    cat "${results}/RESULTS.md"
fi

if in_range 13 && ! "${skip_report}"; then
    log "Stage 13: report"
    heads=()
    for dir in "${asr_systems[@]/#/${expdir}/asr_}" "${sid_heads[@]/#/${expdir}/sid_}"; do
        # A log-mel has no layers to look at.
        [[ ${dir} == *_logmel* ]] || [ ! -f "${dir}/config.yaml" ] || heads+=("${dir}")
    done
    star star_report "${star_exp}" ${heads[0]:+--heads "${heads[@]}"} \
        --results "${results}/results.json" --outdir "${results}/report" --force true
fi

. ./pack.sh  # Stages 14 and 15.

log "Finished in ${SECONDS} s: ${results}"
