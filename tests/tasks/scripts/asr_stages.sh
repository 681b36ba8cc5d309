#!/usr/bin/env bash
# What ESPnet's asr.sh asks of ${python}, in its order and in its ways: unquoted, options before
# -m, files on the standard input, the standard output pasted.
# Usage: asr_stages.sh PYTHON DATA STUDENT OUT
set -euo pipefail
python=$1 data=$2 student=$3 out=$4
mkdir -p "${out}/logdir" "${out}/score"
cd "${out}"
scripts=$(dirname "$(readlink -f "$0")")

# Scripts of every kind.
${python} << END > stdin
print("from", "stdin")
END
${python} -c 'import sys; print(sys.argv[1])' code > code
printf 'import sys\nprint(sys.argv[1])\nsys.exit(3)\n' > helper
${python} helper file > file || echo "$?" >> file

# Token list.
<"${data}/text" ${python} -m espnet2.bin.tokenize_text --token_type char --input - \
    --output tokens --field 2- --cleaner none --g2p none --write_vocabulary true \
    --add_symbol "<blank>:0" --add_symbol "<unk>:1" --add_symbol "<sos/eos>:-1"

# Statistics.
for part in train valid; do cut -d' ' -f1 "${data}/wav.scp" > "logdir/${part}.1.scp"; done
opts="--token_type char --token_list tokens --ngpu 0 --num_workers 0 --use_preprocessor true"
for part in train valid; do
    opts+=" --${part}_data_path_and_name_and_type ${data}/wav.scp,speech,sound"
    opts+=" --${part}_data_path_and_name_and_type ${data}/text,text,text"
done
opts+=" --config ${scripts}/asr.yaml --frontend star"
opts+=" --frontend_conf upstream=${student} --frontend_conf fs=16K"
# shellcheck disable=SC2086
${python} -u -W ignore -m espnet2.bin.asr_train --collect_stats true ${opts} \
    --train_shape_file logdir/train.1.scp --valid_shape_file logdir/valid.1.scp \
    --output_dir logdir/stats.1
${python} -m espnet2.bin.aggregate_stats_dirs --input_dir logdir/stats.1 --output_dir stats
for part in train valid; do
    <"stats/${part}/text_shape" awk -v N="$(<tokens wc -l)" '{ print $0 "," N }' \
        > "stats/${part}/text_shape.char"
    opts+=" --${part}_shape_file stats/${part}/speech_shape"
    opts+=" --${part}_shape_file stats/${part}/text_shape.char"
done

# Training, by the launcher.
# shellcheck disable=SC2086
${python} -m espnet2.bin.launch --cmd "bash ${scripts}/run.sh --name exp/train.log" \
    --log exp/train.log --ngpu 0 --num_nodes 1 --init_file_prefix exp/.dist_init_ \
    --multiprocessing_distributed true -- \
    ${python} -m espnet2.bin.asr_train ${opts} --output_dir exp \
    --normalize global_mvn --normalize_conf stats_file=stats/train/feats_stats.npz

# Decoding.
rm -r "${student}"
${python} -m espnet2.bin.asr_inference --ngpu 0 --num_workers 0 --beam_size 2 --ctc_weight 0.5 \
    --maxlenratio 0.1 --data_path_and_name_and_type "${data}/wav.scp,speech,sound" \
    --key_file logdir/train.1.scp --asr_train_config exp/config.yaml \
    --asr_model_file exp/valid.acc.ave.pth --output_dir decoded

# Scoring.
for side in ref hyp; do
    text="${data}/text"
    [ "${side}" = hyp ] && text=decoded/1best_recog/text
    paste \
        <(<"${text}" ${python} -m espnet2.bin.tokenize_text -f 2- --input - --output - \
            --token_type word --remove_non_linguistic_symbols true --cleaner none) \
        <(<"${data}/utt2spk" awk '{ print "(" $2 "-" $1 ")" }') > "score/${side}.trn"
done

# Pack.
${python} -m espnet2.bin.pack asr --asr_train_config exp/config.yaml \
    --asr_model_file exp/valid.acc.ave.pth --outpath asr.zip > packed
