# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by rehearse.sh: the rehearsal of the VoxCeleb1 recipe. Paths are those of
# rehearsal_run.

make_corpus() {
    fetch_demo_clips || return $?
    ${python} "${here}"/make_voxceleb.py "${clips[@]}" --output_dir "$1/corpus"
}

# A miniature has not the official number of utterances and trials.
options=(--voxceleb1 corpus --data_opts "--allow_partial true --valid_trials 20"
    --teacher teachers/hubert --ngpu 0 --cpu_ranks 2 --nj 2 --head_nj 2
    --systems "student logmel")
first=(--distill true)
packs=(student sid sv)
for system in student logmel; do
    expect+=("${system}.sid_acc" "${system}.sv_eer" "${system}.sv_mindcf"
        "${system}.sv_eer_vox1_o" "${system}.sv_mindcf_vox1_o")
done
# The steps to a better verification, each from the one before, on a student that is there.
step="--student exp/train_star/student --systems student --stage 12 --sv_config conf/train_sv_ecapa"
more=("${step}.yaml --stop_stage 12"
    "${step}_joint.yaml --stop_stage 12 --sv_args --init_param=exp/sv_ecapa_student/valid.eer.best.pth"
    "${step}_lm.yaml --stop_stage 13 --sv_args --init_param=exp/sv_ecapa_joint_student/valid.eer.best.pth")
