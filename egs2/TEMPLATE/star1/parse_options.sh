# shellcheck shell=bash disable=SC2154
# Command line options into the shell variables of the same names. Source it after
# giving each variable its default:  . ./parse_options.sh
# ESPnet and Kaldi users know the manner: --max-epoch 3 and --max_epoch 3 both set max_epoch.
while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h)
            echo "${help_message}"
            exit 0 ;;
        --*)
            _name=${1#--}
            _name=${_name//-/_}
            if ! declare -p "${_name}" > /dev/null 2>&1; then
                echo "$0: unknown option $1; see $0 --help" >&2
                exit 2
            fi
            [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2; exit 2; }
            case "${!_name}:$2" in
                true:true | true:false | false:true | false:false) ;;
                true:* | false:*)
                    echo "$0: $1 must be true or false, got '$2'" >&2
                    exit 2 ;;
            esac
            printf -v "${_name}" '%s' "$2"
            shift 2 ;;
        *)
            echo "$0: options begin with --, got '$1'; see $0 --help" >&2
            exit 2 ;;
    esac
done
