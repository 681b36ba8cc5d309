# shellcheck shell=bash disable=SC2154
# Sourced by star.sh, whose variables and functions it uses: what stage 6 still does for a
# ready student (--student).

if "${ready}" && in_range 6 && [[ " ${systems} " == *" undistilled "* ]]; then
    log "Stage 6: ${student} with random weights, to compare with"
    star star_export transformers --upstream "${student}" --output_dir "${undistilled}" --force true --random_init true
fi
