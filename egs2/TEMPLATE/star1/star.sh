#!/usr/bin/env bash
# Distill a speech self-supervised model into a light student, put the student to work in
# speech recognition and speaker identification, and compare it with what it is made from.
# Needs no Kaldi and no ESPnet checkout: every step is a Python module.
# shellcheck source-path=SCRIPTDIR disable=SC2046,SC2086,SC2206
set -euo pipefail

# General
stage=1               # Processing starts from this stage.
stop_stage=17         # Processing stops after this stage; "check": tell what it will take, no more.
force=false           # Repeat what is finished already.
ngpu=0                # GPUs a node; 0 is the CPU.
cpu_ranks=1           # With ngpu=0: processes a node, through gloo.
num_nodes=1           # Nodes of the distillation.
launcher=espnet       # Or torchrun (started on every node), slurm; with options: "espnet --cmd slurm.pl".
nj=2                  # Processes of data preparation.
head_nj=1             # Heads trained side by side; with ngpu=0 they share the cores.
python=python3        # Python of the environment that holds espnet_star.
dumpdir=dump          # Prepared audio.
expdir=exp            # Experiments.
results=results       # RESULTS.md, results.json and report/ go here.

# Data: sets are data/NAME, made by local/data.sh
local_data_opts=      # Options of local/data.sh.
train_set=            # Distillation.
valid_set=
train_shards=         # Train from shards (directories, URLs); with a train_set they are made of it.
asr_sets=             # Recognition: sets for training, validation and tests ("train dev test1 test2").
sid_sets=             # Speaker identification: three sets.
sv_sets=              # Speaker verification: three sets, and lists of trials in the third.
prepare_args=         # Of star_data prepare, e.g. "--max_duration 20 --max_hours train=100 valid=1".
channel_seed=         # Also identify speakers of the test set behind random channels from this seed.

# Distillation
teacher=              # Hub name or directory, ESPnet experiment or pack, fairseq .pt, s3prl:NAME.
students=train_star   # conf/NAME.yaml becomes exp/NAME; of several each is a row of the table.
distill_args=          # More options of star_train, e.g. "--max_epoch 3".
student=              # A ready student instead (directory or hub name): nothing is distilled.

# Heads
systems="teacher student undistilled logmel logmel_raw"  # What to compare: student; undistilled, with
                      # random weights; finetuned, all of it (ASR); log-mel, and raw of it (not ASR).
frontend_conf="normalize=true"  # Layer-normalize each state before the weighted sum; SUPERB does not.
asr_args=             # More options of asr_train.
token_type=bpe        # SentencePiece, or char; the fine-tuned student's is bpe.
vocab_size=100        # Pieces of SentencePiece.
inference_args="--ctc_weight 1.0 --beam_size 1"  # Of asr_inference; empty: the best token of each frame.
lm_args=              # Also decode so (with char): "--lm_file 4-gram.arpa.gz --lexicon words.txt".
asr_model=valid.loss  # Decode with its .best.pth; for the fine-tuned student its .ave.pth.
sid_args=             # More options of cls_train.
sv_config=conf/train_sv.yaml  # Heads of train_sv_TAG.yaml are exp/sv_TAG_SYSTEM.
sv_args=              # More options of spk_train.

# Packs
hf_repo=              # Upload to USER/NAME in stage 17; the heads' models to USER/NAME_asr and so on.
pack_args=            # Of star_export pack, e.g. "--license cc-by-4.0", which an upload needs.
upload_args=          # Of star_export upload, e.g. "--dry_run true": show what would be sent.

help_message=$(cat << EOH
Usage: $0 --train_set NAME --valid_set NAME --teacher NAME_OR_PATH [options]

$(sed -n 's/^ *log "\(Stage [^$"]*[^ $"]\).*/\1/p' "$0")

$(sed -n '/^# General/,/^help_message/{/^help_message/d; s/^\([a-z_]*\)=/    --\1 /; p}' "$0")
EOH
)
. ./path.sh
. ./parse_options.sh

log() { echo "$(date '+%H:%M:%S') $*"; }
fail() { echo "$0: $*" >&2; exit 2; }
star() { ${python} -m espnet_star "$@"; }
in_range() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }

check=false
if [ "${stop_stage}" = check ]; then check=true stop_stage=1; fi
for name in stage stop_stage ngpu num_nodes cpu_ranks; do
    [[ ${!name} =~ ^[0-9]+$ ]] || fail "--${name} must be a number, got '${!name}'"
done
for system in ${systems}; do
    known="student undistilled finetuned teacher logmel logmel_raw"
    [[ " ${known} " == *" ${system} "* ]] || fail "unknown system '${system}'; choose from ${known}"
done
[[ ${launcher%% *} =~ ^(espnet|torchrun|slurm)$ ]] || fail "unknown launcher '${launcher%% *}'; choose from espnet torchrun slurm"
[ -z "${lm_args}" ] || [ "${token_type}" = char ] || fail "--lm_args spells words by characters; give --token_type char"
[ -z "${hf_repo}" ] || ! in_range 16 || [[ " ${pack_args}" == *" --license"* ]] ||
    fail "--hf_repo uploads: say under which license, e.g. --pack_args \"--license cc-by-4.0\""
if [ -z "${student}" ]; then
    [ -n "${train_set}${train_shards}" ] && [ -n "${valid_set}" ] || fail "--train_set and --valid_set are required"
    [ -n "${teacher}" ] || fail "--teacher is required: a hub name, a directory or a checkpoint"
    distilled=${students}
else
    ! "${check}" || fail "--stop_stage check plans a distillation; with --student there is none"
    [ -n "${teacher}" ] || [[ ${systems} != *teacher* ]] ||
        fail "--teacher is required to compare with (or leave it out of --systems)"
    train_set="" valid_set="" train_shards="" distilled=""
fi

raw=${dumpdir}/raw
read -r asr_train asr_valid asr_tests <<< "${asr_sets}"
read -r sid_train sid_valid sid_test <<< "${sid_sets}"
read -r sv_train sv_valid sv_test sv_trials <<< "${sv_sets}"
sv=$(basename "${sv_config}" .yaml) && sv=${sv/#train_sv/sv}
[[ ${sv} == sv* ]] || sv=sv_${sv}
names=student  # The row of the table; of several students each has its own, by its name.
if [[ ${students} == *" "* ]]; then
    names=${students}
    for kind in student undistilled finetuned; do
        end=${kind#student} && each=$(printf "%s${end:+_${end}} " ${students})
        systems=" ${systems} " && systems=${systems/ ${kind} / ${each} }
    done
fi

upstream() {  # upstream SYSTEM: its encoder
    case "$1" in
        teacher) echo "${teacher}" ;;
        undistilled) echo "${expdir}/${students}/undistilled" ;;
        *_undistilled) echo "${expdir}/${1%_undistilled}/undistilled" ;;
        student | finetuned) echo "${student:-${expdir}/${students}/student}" ;;
        *) echo "${expdir}/${1%_finetuned}/student" ;;
    esac
}
encoder() {  # encoder SYSTEM: options of its heads' training
    local conf="n_fft=512 win_length=400 hop_length=320 n_mels=80"  # 50 frames/s, as the student.
    case "$1" in
        logmel) echo "--frontend default --normalize utterance_mvn" ;;
        logmel_raw) echo "--frontend default" ;;
        *finetuned) conf="" && echo "--encoder_conf upstream=$(upstream "$1")" ;;
        *) conf="upstream=$(upstream "$1") ${frontend_conf}" && echo "--frontend star" ;;
    esac
    for pair in ${conf}; do echo "--frontend_conf ${pair}"; done
}
heads() {  # heads TASK: systems that have one
    for system in ${systems}; do
        case "$1:${system}" in asr*:logmel_raw | asr_lm*:*finetuned | s*:*finetuned) ;; *) echo "${system}" ;; esac
    done
}
tokens() {  # tokens TYPE
    echo "--token_type $1 --token_list ${expdir}/tokens_$1/tokens.txt"
    [ "$1" != bpe ] || echo "--bpemodel ${expdir}/tokens_$1/bpe.model"
}
speech() {  # speech SPLIT SET [FILE,NAME]
    echo "--$1_data_path_and_name_and_type ${raw}/$2/wav.scp,speech,sound --$1_shape_file ${raw}/$2/utt2num_samples"
    [ $# -lt 3 ] || echo "--$1_data_path_and_name_and_type ${raw}/$2/$3,text"
}
distill() {  # distill NAME COMMAND...: with the options of star_train for conf/NAME.yaml
    local train="--train_shards ${train_shards}"
    # A check goes by the files that shards will be made of.
    if [ -z "${train_shards}" ] || "${check}" && [ -n "${train_set}" ]; then train=$(speech train "${train_set}"); fi
    "${@:2}" --config "conf/$1.yaml" --teacher "${teacher}" --output_dir "${expdir}/$1" \
        --resume true $(speech valid "${valid_set}") ${train} ${distill_args}
}

# The jobs of a stage are collected, run side by side with one line of progress, then scored.
todo=$(mktemp -d)
trap 'rm -r "${todo}"' EXIT
add_jobs() {  # add_jobs TASK MARKER TOOL OPTIONS...: one for every head, whose folder is DIR
    local end=${2#"${2%%_*}"} words=("${@:3}") dir own
    for system in $(heads "$1${end}"); do
        dir=${expdir}/$1_${system} own=
        case "$2:${system}" in  # The last of two options is the one that counts.
            train:*finetuned) own="$(encoder "${system}") --config conf/train_asr_finetune.yaml $(tokens bpe)" ;;
            train:*) own=$(encoder "${system}") ;;
            decode*finetuned) own="--asr_model_file ${dir}/${asr_model}.ave.pth" ;;
        esac
        mkdir -p "${dir}"
        ! "${force}" || rm -f "${dir}/.$2.done"
        printf '%s\t%s\t%s\t%s\n' "$1_${system}${end}" "${dir}/$2.log" "${dir}/.$2.done" \
            "$(printf '%q ' ${python} -m espnet_star "${words[@]//DIR/${dir}}" ${own})" >> "${todo}/jobs"
    done
}
add_score() {  # add_score TASK END REF HYP: of every head, to DIR/scoreEND.json
    for system in $(heads "$1$2"); do
        local dir=${expdir}/$1_${system}
        echo "$1_${system}$2 ${1%%_*} --ref $3 --hyp ${dir}/$4 --output ${dir}/score$2.json" >> "${todo}/scores"
    done
}
run_jobs() {  # run_jobs TITLE
    [ -f "${todo}/jobs" ] || return 0
    [ "${head_nj}" -eq 1 ] || [ "${ngpu}" -gt 0 ] || local threads="env OMP_NUM_THREADS=1"
    ${threads:-} ${python} -m espnet_star star_run --jobs "${todo}/jobs" --nj "${head_nj}" --title "$1"
    [ ! -f "${todo}/scores" ] || while read -r name options; do
        echo "${name}: $(star star_score ${options} < /dev/null | sed -n 1p)"
    done < "${todo}/scores"
    rm "${todo}"/*
}
# Several GPUs: a process each. ESPnet's default is slower threads, which leave a teacher on one.
gpus="--ngpu ${ngpu}$([ "${ngpu}" -le 1 ] || echo " --multiprocessing_distributed true")"
repo() { echo "${hf_repo}$([ "$1" = student ] || echo "_$1")"; }  # repo PACK
pack() {  # pack NAME TASK DIR OPTIONS...: what was trained in DIR
    [ ! -f "$3/config.yaml" ] || star star_export pack "$2" --expdir "${@:3}" --output "${expdir}/packs/$1.zip" --force true \
        $([ ! -f "${results}/results.json" ] || echo "--results ${results}/results.json") \
        ${hf_repo:+--hf_repo "$(repo "$1")"} ${pack_args}
}
check_data() { star star_data check --histogram false --data_dir "$@"; }

if in_range 1; then
    log "Stage 1: data preparation (local/data.sh)"
    PYTHON=${python} local/data.sh ${local_data_opts}
fi

if in_range 2; then
    log "Stage 2: audio at 16 kHz, mono"
    star star_data prepare --source data --output_dir "${raw}" --nj "${nj}" --force "${force}" ${prepare_args} \
        --sets ${train_set} ${valid_set} ${asr_sets} ${sid_sets} ${sv_train} ${sv_valid} ${sv_test}
    [ -z "${channel_seed}" ] || star star_data prepare --source "data/${sid_test}" --output_dir "${raw}/${sid_test}_channel" \
        --nj "${nj}" --force "${force}" ${prepare_args} --channel_seed "${channel_seed}"
    [ -z "${train_set}" ] || [ -z "${train_shards}" ] ||
        star star_data shards --data_dir "${raw}/${train_set}" --output_dir "${train_shards}" --nj "${nj}"
fi

if in_range 3; then
    log "Stage 3: check before hours are spent"
    for set in ${train_set} ${valid_set}; do check_data "${raw}/${set}"; done
    for shards in ${train_shards}; do check_data "${shards}"; done
    for set in ${asr_sets}; do check_data "${raw}/${set}" --need text; done
    for word in ${lm_args}; do
        [[ ${option:-} != --@(lm_file|lexicon) ]] || [ -e "${word}" ] || fail "--lm_args ${option} ${word}: no such file"
        option=${word}
    done
    for set in ${sid_sets}; do check_data "${raw}/${set}" --need utt2spk --train_speakers "${raw}/${sid_train}"; done
    for set in ${sv_train}; do check_data "${raw}/${set}" --need utt2spk; done
    for set in ${sv_valid}; do star star_data trials --trials "data/${set}/trials" --data_dir "${raw}/${set}"; done
    for list in ${sv_trials}; do
        star star_data trials --trials "data/${sv_test}/${list}" --data_dir "${raw}/${sv_test}" --dry_run true
    done
fi

if in_range 4 || "${check}"; then
    log "Stage 4: plan, and teacher ${teacher}"
    for name in ${distilled}; do
        distill "${name}" star star_plan ${train_set:+--train "data/${train_set}" "${raw}/${train_set}"} \
            --valid "data/${valid_set}" "${raw}/${valid_set}" ${prepare_args} --nj "${nj}" \
            --ranks "$(((ngpu > 0 ? ngpu : cpu_ranks) * num_nodes))" --output "${expdir}/${name}/plan.json" \
            -- --ngpu "${ngpu}"
    done
    ! "${check}" || exit 0
fi

if in_range 5; then
    log "Stage 5: distillation"
    for name in ${distilled}; do
        ! "${force}" || rm -rf "${expdir:?}/${name}"/{.train.done,checkpoint*.pth,*epoch.pth}
        distill "${name}" star star_run --log "${expdir}/${name}/train.log" --done "${expdir}/${name}/.train.done" \
            --title distillation --launcher "${launcher}" --num_nodes "${num_nodes}" --ngpu "${ngpu}" \
            --cpu_ranks "${cpu_ranks}" -- ${python} -m espnet_star star_train
    done
fi

if in_range 6; then
    log "Stage 6: averaged student to Hugging Face format, and one with random weights"
    for name in ${distilled}; do
        star star_export transformers --expdir "${expdir}/${name}" --output_dir "${expdir}/${name}/student" --own true --force true
    done
    for name in ${distilled:-$([[ ${systems} != *undistilled* ]] || echo "${students}")}; do
        star star_export transformers --upstream "${student:-${expdir}/${name}/student}" --output_dir "${expdir}/${name}/undistilled" \
            --force true --random_init true
    done
fi

if in_range 7 && [ -n "${asr_train}" ]; then
    log "Stage 7: ASR tokens, and utterances that CTC cannot align"
    for head in "train_asr ${token_type}" "train_asr_finetune bpe"; do
        [[ ${head} != *finetune* || ${systems} == *finetune* ]] || continue
        read -r config type <<< "${head}"
        star star_data tokens --text "${raw}/${asr_train}/text" --output_dir "${expdir}/tokens_${type}" \
            --token_type "${type}" --vocab_size "${vocab_size}"
        check_data "${raw}/${asr_train}" --need text --ctc_config "conf/${config}.yaml" \
            $([ "${type}" = char ] || echo "--bpemodel ${expdir}/tokens_bpe/bpe.model")
    done
fi

# Stages 8 and 9, then 10 and 11: the jobs of both tasks run side by side.
if in_range 8 && [ -n "${asr_train}" ]; then
    log "Stage 8: ASR training"
    add_jobs asr train asr_train --config conf/train_asr.yaml --output_dir DIR ${gpus} --resume true \
        $(tokens "${token_type}") $(speech train "${asr_train}" text,text) \
        $(speech valid "${asr_valid}" text,text) ${asr_args}
fi

if in_range 9 && [ -n "${sid_train}" ]; then
    log "Stage 9: speaker identification (SID) training"
    mkdir -p "${expdir}"
    { cut -d' ' -f2 "${raw}/${sid_train}/utt2spk" | sort -u; echo "<unk>"; } > "${expdir}/speakers.txt"
    for set in "${sid_train}" "${sid_valid}"; do cp "${raw}/${set}/utt2spk" "${raw}/${set}/label"; done
    add_jobs sid train cls_train --config conf/train_sid.yaml --output_dir DIR ${gpus} --resume true \
        --token_list "${expdir}/speakers.txt" \
        $(speech train "${sid_train}" label,label) $(speech valid "${sid_valid}" label,label) ${sid_args}
fi
run_jobs "training of heads"

if in_range 10 && [ -n "${asr_train}" ]; then
    log "Stage 10: ASR decoding and scoring"
    for set in ${asr_tests}; do
        end=$([[ ${asr_tests} != *" "* ]] || echo "_${set}")  # Nothing where it is the only one.
        for way in "" ${lm_args:+_lm}; do
            decode="${inference_args:+asr_inference }${inference_args:-star_lm_decode}"
            [ -z "${way}" ] || decode="star_lm_decode ${lm_args}"
            add_jobs asr "decode${way}${end}" ${decode} --output_dir "DIR/${set}${way}" --ngpu "$((ngpu > 0))" \
                --asr_train_config DIR/config.yaml --asr_model_file "DIR/${asr_model}.best.pth" \
                --data_path_and_name_and_type "${raw}/${set}/wav.scp,speech,sound"
            add_score asr "${way}${end}" "${raw}/${set}/text" "${set}${way}/1best_recog/text"
        done
    done
fi

if in_range 11 && [ -n "${sid_train}" ]; then
    log "Stage 11: SID inference and scoring"
    for end in "" ${channel_seed:+_channel}; do
        add_jobs sid "decode${end}" cls_inference --output_dir "DIR/${sid_test}${end}" \
            --classification_train_config DIR/config.yaml --classification_model_file DIR/valid.acc.best.pth \
            --data_path_and_name_and_type "${raw}/${sid_test}${end}/wav.scp,speech,sound" --ngpu "$((ngpu > 0))"
        add_score sid "${end}" "${raw}/${sid_test}/utt2spk" "${sid_test}${end}/prediction/text"
    done
fi
run_jobs "decoding"

if in_range 12 && [ -n "${sv_train}" ]; then
    log "Stage 12: speaker verification (SV) training"
    # ESPnet's balanced batches look for speakers under this name.
    cp "${raw}/${sv_train}/spk2utt" "${raw}/${sv_train}/category2utt"
    star star_data trials --trials "data/${sv_valid}/trials" --data_dir "${raw}/${sv_valid}"
    valid="--valid_data_path_and_name_and_type ${raw}/${sv_valid}"
    add_jobs "${sv}" train spk_train --config "${sv_config}" --output_dir DIR ${gpus} --resume true \
        --spk2utt "${raw}/${sv_train}/spk2utt" --spk_num "$(wc -l < "${raw}/${sv_train}/spk2utt")" \
        $(speech train "${sv_train}" utt2spk,spk_labels) ${valid}/trial_label,spk_labels,text \
        ${valid}/trial.scp,speech,sound ${valid}/trial2.scp,speech2,sound \
        --valid_shape_file "${raw}/${sv_valid}/trial_shape" ${sv_args}
    run_jobs "SV training"
fi

if in_range 13 && [ -n "${sv_train}" ]; then
    log "Stage 13: SV embeddings and scoring of trials"
    add_jobs "${sv}" embed spk_inference --output_dir "DIR/${sv_test}" --ngpu "$((ngpu > 0))" \
        --train_config DIR/config.yaml --model_file DIR/valid.eer.best.pth \
        --data_path_and_name_and_type "${raw}/${sv_test}/wav.scp,speech,sound"
    for list in ${sv_trials}; do
        end=$([ "${list}" = "${sv_trials%% *}" ] || echo "_${list}")  # Nothing for the first.
        add_score "${sv}" "${end}" "data/${sv_test}/${list}" "${sv_test}/embed.scp"
    done
    run_jobs "SV embeddings"
fi

if in_range 14; then
    log "Stage 14: results"
    files=()
    for system in ${systems}; do
        row=${system/#finetuned/student_finetuned}
        files+=("${results}/${row}.json")
        rm -f "${results}/${row}.json"
        star star_score add --output "${results}/${row}.json" --system "${row/_finetuned/, fine-tuned}" \
            $([[ ${system} == logmel* ]] && echo "--params 0" || echo "--upstream $(upstream "${system}")") \
            --scores "${expdir}"/{asr,sid,"${sv}"}_"${system}"/score*.json
    done
    star star_score table --results "${files[@]}" --output "${results}/RESULTS.md" "${results}/results.json"
    cat "${results}/RESULTS.md"
fi

if in_range 15 && [ -n "${distilled}" ]; then  # A ready student was reported on where it was distilled.
    log "Stage 15: report"
    trained=$(for system in ${systems}; do  # Heads on layers, which log-mel has not.
        [[ ${system} == @(*finetuned|logmel*) ]] || ls -d "${expdir}"/{asr,sid,"${sv}"}_"${system}" 2> /dev/null || true
    done)
    star star_report --expdir $(printf "${expdir}/%s " ${distilled}) ${trained:+--heads ${trained}} \
        --results "${results}/results.json" --output_dir "${results}/report" --force true
fi

if in_range 16; then
    log "Stage 16: packs of the student and the models on it"
    for name in ${names}; do
        of=${name#student} && of=${of:+_${of}}  # Of several students each has its packs.
        [ -n "${student}" ] || pack "${name}" ssl "$(dirname "$(upstream "${name}")")" --upstream "$(upstream "${name}")"
        search=${inference_args:---ctc_weight 1.0 --beam_size 1}
        pack "asr${of}" asr "${expdir}/asr_${name}" --model_file "${asr_model}.best.pth" --inference_args="${search}"
        pack "asr${of}_finetuned" asr "${expdir}/asr${of}_finetuned" --model_file "${asr_model}.ave.pth" \
            --inference_args="${search}"
        pack "sid${of}" cls "${expdir}/sid_${name}" --model_file valid.acc.best.pth
        pack "${sv}${of}" spk "${expdir}/${sv}_${name}" --model_file valid.eer.best.pth
    done
fi

if in_range 17 && [ -n "${hf_repo}" ]; then
    log "Stage 17: upload to the Hugging Face hub"
    for pack in "${expdir}"/packs/*.zip; do
        star star_export upload --pack "${pack}" --hf_repo "$(repo "$(basename "${pack}" .zip)")" ${upload_args}
    done
fi

log "Finished in $((SECONDS / 60)) min $((SECONDS % 60)) s. Where to look (logs are in the folders of ${expdir}):"
ls -d "${results}"/{RESULTS.md,report/index.html} "${expdir}"/{*/student,packs} 2> /dev/null || true
