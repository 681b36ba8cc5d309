#!/usr/bin/env bash
# Fetch and prepare the demo corpus: the voices of "Flight of the Amazon Queen" (1995).
# Run from the recipe's folder. Exit code 3: the corpus or the teacher cannot be fetched.
set -euo pipefail

queen=            # your own .deb, freeware talkie .zip or queen.1c; empty: Debian's package
subset_hours=     # thin the training sets out to about so many hours; empty: all
fetch_teacher=true  # also fetch the demo teacher, Whisper base's encoder
PYTHON=${PYTHON:-python3}

while [ $# -gt 0 ]; do
    case "$1" in
        --queen | --subset_hours | --fetch_teacher)
            [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2; exit 2; }
            printf -v "${1#--}" '%s' "$2"
            shift 2 ;;
        *)
            echo "Usage: $0 [--queen PATH] [--subset_hours N] [--fetch_teacher true|false]" >&2
            echo "$0: unknown option $1" >&2
            exit 2 ;;
    esac
done

# $PYTHON stays unquoted: like ESPnet's --python it may hold several words.
$PYTHON local/fetch_corpus.py --output_dir downloads/queen ${queen:+--queen "$queen"}
$PYTHON local/prepare_corpus.py --queen downloads/queen/queen.1c --wavdir downloads/wav \
    --data_dir data ${subset_hours:+--subset_hours "$subset_hours"}
if [ "$fetch_teacher" = true ]; then
    $PYTHON local/fetch_teacher.py --output_dir downloads/whisper-base-encoder
fi
