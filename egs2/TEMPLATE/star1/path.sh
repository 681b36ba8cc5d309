# shellcheck shell=bash
# Sourced by star.sh. Nothing to set up: everything is a Python module. Numbers must be
# sorted and printed the same way everywhere.
export LC_ALL=C
export PYTHONIOENCODING=UTF-8
