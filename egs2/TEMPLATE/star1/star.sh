#!/usr/bin/env bash
# Distil a speech self-supervised model into a light student, put the student to work in
# speech recognition and speaker identification, and compare it with what it is made from.
# Needs no Kaldi and no ESPnet checkout: every step is a Python module.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# General configuration
stage=1               # Processing starts from this stage.
stop_stage=17         # Processing stops after this stage; "check": tell what it will take, no more.
skip_data_prep=false  # Skip stages 1 to 3.
skip_train=false      # Skip stages 4 to 6 (distillation and export).
skip_asr=false        # Skip stages 7, 8 and 10.
skip_sid=false        # Skip stages 9 and 11.
skip_sv=false         # Skip stages 12 and 13.
skip_report=false     # Skip stage 15.
skip_packing=false    # Skip stage 16.
skip_upload=true      # Skip stage 17.
force=false           # Repeat what is finished already.
ngpu=0                # GPUs a node; 0 is the CPU.
num_nodes=1           # Nodes of the distillation.
cpu_ranks=1           # With ngpu=0: processes a node, through gloo.
launcher=espnet       # espnet; torchrun, started on every node; or slurm (srun inside an allocation).
launcher_opts=        # More options of torchrun or srun, e.g. "--rdzv_endpoint node1:29500".
train_cmd=            # Launcher espnet with num_nodes > 1: its launcher script, e.g. "slurm.pl".
nj=2                  # Processes of data preparation.
head_nj=1             # Heads trained side by side; with ngpu=0 they share the cores.
python=python3        # Python of the environment that holds espnet_star.
dumpdir=dump          # Prepared audio.
expdir=exp            # Experiments.

# Data
local_data_opts=      # Options of local/data.sh.
train_set=            # Distillation: data/NAME, made by local/data.sh.
valid_set=
shards=false          # Train from shards of the training set, made in stage 2: constant memory.
train_shards=         # Or from these (directories, URLs, see docs/corpus.md), without a train_set.
asr_train=            # Recognition; leave asr_train empty to go without.
asr_valid=
asr_test=             # One or several, e.g. "test_clean test_other"; each has its columns.
sid_train=            # Speaker identification; likewise.
sid_valid=
sid_test=
sv_train=             # Speaker verification; likewise.
sv_valid=             # Its data/NAME/trials lists the pairs to validate on.
sv_test=
sv_trials=trials      # Lists in data/SV_TEST to score; the first is the table's sv_eer.
speaker_max_duration=  # max_duration of the speaker sets, where it is another.
keep_tests=false      # Refuse a speaker test set of which an utterance was dropped.
min_duration=0.1      # Drop shorter utterances, in seconds.
max_duration=30       # Drop longer ones.
distill_hours=        # Use a random subset of at most so many hours; empty: all.
valid_hours=          # The same for the distillation's valid set.
asr_hours=
sid_hours=
head_valid_hours=     # For the valid sets of recognition and speaker identification.
channel_seed=         # Also identify speakers of the test set behind random channels from this seed.

# Distillation
teacher=              # Hub name or directory, ESPnet experiment or pack, fairseq .pt, s3prl:NAME.
star_config=conf/train_star.yaml
star_args=            # More options of star_train, e.g. "--max_epoch 3".
star_tag=             # Name of the experiment; the configuration's by default.
student=              # A ready student instead (directory or hub name): stages 4 to 6 distil none.
inference_model=      # Model to export; the averaged best by default.

# Heads
systems="teacher student undistilled logmel logmel_raw"  # What to compare.
normalize_states=true  # Layer-normalise each state before the weighted sum; SUPERB does not.
logmel_conf="n_fft=512 win_length=400 hop_length=320 n_mels=80"  # 50 frames/s, as the student.
asr_config=conf/train_asr.yaml
asr_args=
token_type=bpe        # SentencePiece, or char.
vocab_size=100
decode_args="--ctc_weight 1.0 --beam_size 1"
greedy=false          # Take the best token of each frame instead (CTC models).
inference_asr_model=valid.loss.best.pth
lm_file=              # Also decode through this n-gram (ARPA, .gz or KenLM's; token_type=char).
lexicon=              # Its words, one a line.
lm_decode_args=       # More options of star_lm_decode; SUPERB's by default.
finetune_config=      # Also fine-tune the whole student, e.g. conf/train_asr_finetune.yaml.
finetune_args=
finetune_token_type=bpe
finetune_vocab_size=300
finetune_decode_args="--ctc_weight 1.0 --beam_size 1"
finetune_model=valid.loss.best.pth
sid_config=conf/train_sid.yaml
sid_args=
sv_config=conf/train_sv.yaml  # Heads of train_sv_TAG.yaml are exp/sv_SYSTEM_TAG.
sv_args=
sv_init=              # TAG of the heads that training starts from.
feature_cache=        # Keep frozen encoders' states in this folder (small corpora only).
results=results       # RESULTS.md, results.json and report/ go here.

# Packs
license=              # As the hub spells it, e.g. cc-by-4.0; needed for an upload.
description=          # A sentence on the models, for their README.
hf_repo=              # Upload to USER/NAME; the heads' models to USER/NAME_asr, USER/NAME_sid.
upload_dry_run=false  # Show what stage 17 would send, send nothing.

help_message=$(cat << EOH
Usage: $0 --train_set NAME --valid_set NAME --teacher NAME_OR_PATH [options]

Stages: 1 local/data.sh, 2 audio to 16 kHz mono, 3 check, 4 plan and teacher, 5 distil, 6 export,
        7 ASR tokens, 8 ASR training, 9 SID training, 10 ASR decoding and scoring,
        11 SID inference and scoring, 12 speaker verification (SV) training, 13 SV embeddings,
        scoring of trials, 14 result table, 15 report, 16 packs of the student and
        the models on it, 17 upload to the Hugging Face hub (--skip_upload false --hf_repo NAME)
Systems: student, undistilled (the same, random weights), logmel (normalised per utterance),
        logmel_raw (SID and SV only), teacher

Options (defaults):
$(sed -n '/^# General configuration/,/^help_message/p' "$0" \
    | sed -e '/^help_message/d' -e 's/^\([a-z_]*\)=/    --\1 /' -e 's/^# /\n    # /')
EOH
)

. ./path.sh
. ./parse_options.sh
. ./stages/functions.sh

ready=false  # Is there a student, so that none is distilled?
if [ -n "${student}" ]; then
    ready=true
    skip_train=true
    [ "${stop_stage}" != check ] || fail "--stop_stage check plans a distillation; with --student there is none"
    [[ " ${systems} " != *" teacher "* ]] || [ -n "${teacher}" ] ||
        fail "--teacher is required to compare with (or leave it out of --systems)"
else
    [ -n "${train_set}${train_shards}" ] && [ -n "${valid_set}" ] || fail "--train_set and --valid_set are required"
    [ -z "${train_set}" ] || [ -z "${train_shards}" ] || fail "--train_set and --train_shards are two training sets; give one"
    [ -n "${teacher}" ] || fail "--teacher is required: a hub name, a directory or a checkpoint"
fi
check_only=false
if [ "${stop_stage}" = check ]; then
    check_only=true
    stop_stage=1
fi
for name in stage stop_stage ngpu num_nodes cpu_ranks; do
    [[ ${!name} =~ ^[0-9]+$ ]] || fail "--${name} must be a number, got '${!name}'"
done
case "${launcher}" in
    espnet)
        [ "${num_nodes}" -eq 1 ] || [ -n "${train_cmd}" ] \
            || fail "--num_nodes ${num_nodes} needs --train_cmd, e.g. slurm.pl, or another --launcher"
        [ "${num_nodes}" -eq 1 ] || [ "${ngpu}" -gt 0 ] || [ "${cpu_ranks}" -eq 1 ] \
            || fail "--cpu_ranks ${cpu_ranks} on several nodes needs --launcher torchrun or slurm" ;;
    torchrun | slurm) ;;
    *) fail "unknown launcher '${launcher}'; choose from espnet torchrun slurm" ;;
esac
if ! "${skip_upload}" || "${upload_dry_run}"; then
    [ -n "${hf_repo}" ] || fail "--hf_repo is required for an upload: USER/NAME on the hub"
    [ -n "${license}" ] || fail "--license is required for an upload, e.g. cc-by-4.0"
fi

[ -n "${star_tag}" ] || star_tag=$(basename "${star_config}" .yaml)
star_exp=${expdir}/${star_tag}
[ -n "${student}" ] || student=${star_exp}/student
undistilled=${star_exp}/undistilled
tokens=${expdir}/tokens_${token_type}
raw=${dumpdir}/raw
shard_dir=${dumpdir}/shards/${train_set}
if "${shards}"; then
    # A check before stage 2 goes by the files that the shards will be made of.
    "${check_only}" && [ ! -f "${shard_dir}/shards.json" ] || train_shards=${shard_dir}
fi

for system in ${systems}; do frontend "${system}" > /dev/null; done  # All known?
# shellcheck disable=SC2206
asr_systems=(${systems/logmel_raw/})
# shellcheck disable=SC2206
asr_tests=(${asr_test})
if [ -n "${lm_file}" ]; then
    [ "${token_type}" = char ] || fail "--lm_file spells words by characters; give --token_type char"
    [ -n "${lexicon}" ] || fail "--lm_file needs --lexicon, a file of its words"
fi
# Several GPUs: a process each. ESPnet's default is slower threads, which leave a teacher on one.
heads_ddp=()
[ "${ngpu}" -le 1 ] || heads_ddp=(--multiprocessing_distributed true)
columns=("")
[ -z "${channel_seed}" ] || columns+=("_channel")
sv_tag=$(basename "${sv_config}" .yaml)  # train_sv.yaml: "", train_sv_TAG.yaml or TAG.yaml: _TAG
[[ ${sv_tag} == train_sv* ]] && sv_tag=${sv_tag#train_sv} || sv_tag=_${sv_tag}

if ! "${skip_data_prep}"; then
    if in_range 1; then
        log "Stage 1: data preparation (local/data.sh)"
        # shellcheck disable=SC2086
        PYTHON=${python} local/data.sh ${local_data_opts}
    fi
    if in_range 2; then
        log "Stage 2: audio at 16 kHz, mono"
        if ! "${ready}"; then
            [ -z "${train_set}" ] || prepare "${train_set}" "${distill_hours}"
            prepare "${valid_set}" "${valid_hours}"
            ! "${shards}" || star star_data shards --data_dir "${raw}/${train_set}" --output_dir "${shard_dir}" --nj "${nj}"
        fi
        if [ -n "${asr_train}" ]; then
            prepare "${asr_train}" "${asr_hours}"
            prepare "${asr_valid}" "${head_valid_hours}"
            for set in "${asr_tests[@]}"; do prepare "${set}" ""; done
        fi
        longest=(${speaker_max_duration:+--max_duration "${speaker_max_duration}"})
        if [ -n "${sid_train}" ]; then
            prepare "${sid_train}" "${sid_hours}" "" "${longest[@]}"
            prepare "${sid_valid}" "${head_valid_hours}" "" "${longest[@]}"
            for column in "${columns[@]}"; do
                prepare "${sid_test}" "" "${column}" ${column:+--channel_seed "${channel_seed}"} "${longest[@]}"
            done
        fi
        if [ -n "${sv_train}" ]; then
            for set in "${sv_train}" "${sv_valid}" "${sv_test}"; do prepare "${set}" "" "" "${longest[@]}"; done
        fi
    fi
    if in_range 3; then
        log "Stage 3: check before hours are spent"
        if ! "${ready}"; then
            for set in ${train_set} "${valid_set}"; do check "${set}"; done
            for place in ${train_shards}; do star star_data check --data_dir "${place}" --histogram false; done
        fi
        if [ -n "${asr_train}" ]; then
            for set in "${asr_train}" "${asr_valid}" "${asr_tests[@]}"; do
                check "${set}" --need text
            done
        fi
        if [ -n "${sid_train}" ]; then
            for set in "${sid_train}" "${sid_valid}" "${sid_test}"; do
                whole=()
                ! "${keep_tests}" || [ "${set}" != "${sid_test}" ] || whole=(--source "data/${set}")
                check "${set}" --need utt2spk --train_speakers "${raw}/${sid_train}" "${whole[@]}"
            done
        fi
        if [ -n "${sv_train}" ]; then
            check "${sv_train}" --need utt2spk
            star star_data trials --trials "data/${sv_valid}/trials" --data_dir "${raw}/${sv_valid}"
            for list in ${sv_trials}; do
                star star_data trials --trials "data/${sv_test}/${list}" --data_dir "${raw}/${sv_test}" --dry_run true
            done
        fi
    fi
fi

. ./stages/distil.sh   # Stages 4 to 6.
. ./stages/ready.sh    # Stage 6 with --student.
. ./stages/asr.sh
. ./stages/sid.sh

# Stages 7 to 9, then 10 and 11: the jobs of both tasks run side by side.
asr=false
sid=false
[ -z "${asr_train}" ] || "${skip_asr}" || asr=true
[ -z "${sid_train}" ] || "${skip_sid}" || sid=true
! "${asr}" || asr_training
! "${sid}" || sid_training
run_jobs "training of heads"
if "${asr}" && in_range 10; then
    log "Stage 10: ASR decoding and scoring of ${asr_test}"
    asr_each asr_decode
fi
if "${sid}" && in_range 11; then
    log "Stage 11: SID inference and scoring of ${sid_test}"
    sid_each sid_infer
fi
run_jobs "decoding"
! { "${asr}" && in_range 10; } || asr_each asr_score
! { "${sid}" && in_range 11; } || sid_each sid_score

. ./stages/sv.sh       # Stages 12 and 13.
. ./stages/results.sh  # Stages 14 and 15.
. ./stages/pack.sh     # Stages 16 and 17.

places=$(look "results" "${results}/RESULTS.md"; look "report" "${results}/report/index.html"
    look "student" "${student}"; look "packs" "${packs}"
    look "logs" "${star_exp}/train.log" "and *.log in the other folders of ${expdir}")
log "Finished in $((SECONDS / 60)) min $((SECONDS % 60)) s${places:+. Where to look:}"
[ -z "${places}" ] || echo "${places}"
