#!/usr/bin/env bash
# VoxCeleb1: speaker identification as SUPERB does it, and speaker verification, with a student
# from elsewhere (--student DIR_OR_HUB_NAME, e.g. egs2/librispeech/star1's) or one distilled on
# VoxCeleb1 itself (--distill true). Options of star.sh (--help lists them) may follow.
#   ./run.sh --voxceleb1 DIR --student DIR                     identification, x-vector
#   ./run.sh --voxceleb1 DIR --student DIR --stage 12 --sv_config conf/train_sv_ecapa.yaml
#   ./run.sh --voxceleb1 DIR --student DIR --stage 12 --systems student \    full fine-tuning
#       --sv_config conf/train_sv_ecapa_joint.yaml --sv_args "--init_param exp/sv_ecapa_student/valid.eer.best.pth"
#   ./run.sh --voxceleb1 DIR --student DIR --stage 12 --systems student \    large margin
#       --sv_config conf/train_sv_ecapa_lm.yaml --sv_args "--init_param exp/sv_ecapa_joint_student/valid.eer.best.pth"
set -euo pipefail

voxceleb1=${VOXCELEB1:-}    # folder with dev/wav and test/wav, or with wav
lists=${VOXCELEB1_LISTS:-}  # folder of the official lists; empty: beside the audio, or downloaded
data_opts=                  # more options of local/data.sh, e.g. "--valid_speakers 40"
distill=false                # distill a student on VoxCeleb1 first
student=                    # a ready student otherwise: directory or hub name
rest=()
while [ $# -gt 0 ]; do
    case "$1" in
        --voxceleb1 | --lists | --data_opts | --distill | --student)
            [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2; exit 2; }
            printf -v "${1#--}" '%s' "$2"
            shift 2 ;;
        --help | -h) exec ./star.sh --help ;;
        *)
            rest+=("$1")
            shift ;;
    esac
done

case "${distill}:${student}" in
    true:) student_opts=(--train_set distill_train --valid_set distill_valid) ;;
    false:?*) student_opts=(--student "${student}") ;;
    true:*) echo "$0: give --student or --distill true, not both" >&2; exit 2 ;;
    false:)
        echo "$0: --student DIR_OR_HUB_NAME is required (or --distill true to distill one here)" >&2
        exit 2 ;;
    *) echo "$0: --distill must be true or false, got '${distill}'" >&2; exit 2 ;;
esac

# Through the environment, so that paths may hold spaces.
export VOXCELEB1=${voxceleb1} VOXCELEB1_LISTS=${lists}

# VoxCeleb1's longest utterance has 145 s; the official lists need every one of them, a distillation
# does without those of more than 30 s. SUPERB sums the states as they are.
longest="150 distill_train=30 distill_valid=30"
[ "${distill}" = true ] || longest=150
./star.sh \
    --local_data_opts "${data_opts}" \
    "${student_opts[@]}" --teacher facebook/hubert-base-ls960 \
    --sid_sets "sid_train sid_valid sid_test" --sv_sets "sv_train sv_valid sv_test vox1_o_cleaned vox1_o" \
    --prepare_args "--max_duration ${longest} --whole sid_test" --frontend_conf normalize=false \
    --systems "student undistilled teacher logmel" \
    --ngpu 1 --nj 8 ${rest[@]+"${rest[@]}"}
