#!/usr/bin/env bash
# STaR on the 100 hours of train-clean-100: the 960 h recipe on this folder's conf/, which holds the
# paper's shorter schedule. Options are the same: ../../librispeech/star1/run.sh, ./run.sh --help.
set -euo pipefail

exec "$(dirname "$(realpath "$0")")"/../../librispeech/star1/run.sh --train_set train_100 "$@"
