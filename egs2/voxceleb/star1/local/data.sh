#!/usr/bin/env bash
# Prepare VoxCeleb1: identification as SUPERB does it, verification on the official trials.
# Run from the recipe's folder. Exit code 3: something cannot be downloaded.
set -euo pipefail

voxceleb1=${VOXCELEB1:-}    # folder with dev/wav and test/wav, or with wav
lists=${VOXCELEB1_LISTS:-}  # folder with iden_split.txt, veri_test.txt, veri_test2.txt; empty:
                            # those beside the audio, else they are downloaded
download=false              # fetch the audio first (needs access, see README.md)
valid_speakers=0            # dev speakers held out of verification's training, to validate on
valid_trials=2000           # pairs to validate verification on
allow_partial=false         # use the part of the corpus that is there
PYTHON=${PYTHON:-python3}

while [ $# -gt 0 ]; do
    case "$1" in
        --voxceleb1 | --lists | --download | --valid_speakers | --valid_trials | --allow_partial)
            [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2; exit 2; }
            printf -v "${1#--}" '%s' "$2"
            shift 2 ;;
        *)
            echo "Usage: $0 --voxceleb1 DIR [--lists DIR] [--download true|false]" \
                "[--valid_speakers N] [--valid_trials N] [--allow_partial true|false]" >&2
            echo "$0: unknown option $1" >&2
            exit 2 ;;
    esac
done
[ -n "${voxceleb1}" ] || {
    echo "$0: --voxceleb1 DIR is required: the folder with dev/wav and test/wav, or with wav" \
        "(README.md says where to get it)" >&2
    exit 2
}

# $PYTHON stays unquoted: like ESPnet's --python it may hold several words.
$PYTHON local/fetch_voxceleb.py --voxceleb1 "${voxceleb1}" --download "${download}" \
    --output_dir downloads/lists ${lists:+--lists "${lists}"}
$PYTHON local/prepare_voxceleb.py --voxceleb1 "${voxceleb1}" --lists downloads/lists \
    --data_dir data --valid_speakers "${valid_speakers}" --valid_trials "${valid_trials}" \
    --allow_partial "${allow_partial}"
