#!/usr/bin/env bash
# LibriSpeech from OpenSLR, or from where you have it, to Kaldi-style data/SET. Run from the
# recipe's folder; --help lists the options. Only what --sets needs is fetched:
#   local/data.sh --sets train_clean_100 dev_clean test_clean      7 GB
#   local/data.sh --librispeech /corpora/LibriSpeech               nothing
set -euo pipefail

# $PYTHON stays unquoted: like ESPnet's --python it may hold several words.
# shellcheck disable=SC2086
exec ${PYTHON:-python3} local/prepare_librispeech.py "$@"
