#!/usr/bin/env bash
# Kaldi's run.pl, as far as ESPnet's launcher uses it: options, a log, a command.
while [[ $1 == --* ]]; do shift 2; done
log=$1; shift
mkdir -p "$(dirname "${log}")"
{ echo "# $*"; "$@"; } > "${log}" 2>&1
