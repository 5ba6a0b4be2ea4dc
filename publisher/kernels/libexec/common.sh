# shellcheck shell=sh disable=SC2034,SC2154 # used by, and set by, the scripts that source this
# Shared by launch (on the host) and start (in the image): the data file of a kernel, and how to speak.
# `kernel_dir` is the folder that holds kernel.conf. stdout is never written to: it belongs to the kernel.

EX_USAGE=64      # called wrongly
EX_DATA=65       # kernel.conf is missing or not for this launcher
EX_NOIMAGE=66    # the image is not there
EX_NORUNTIME=69  # neither apptainer nor singularity is installed
EX_NOUSERNS=71   # the system does not allow user namespaces
EX_CONNECTION=72 # the connection file cannot be read or bound
EX_SETUP=75      # a set-up step in the image failed
EX_NOCOMMAND=76  # the kernel's program is not in the image
EX_NOPROGRAM=127 # the program of launch --run is not in the image, as a shell says it

newline='
'

say() {
    printf 'afpub: %s\n' "$*" >&2
}

die() { # CODE SENTENCE...
    code=$1
    shift
    say "$*"
    exit "$code"
}

# Reads a data file into variables: the values of KEY are in conf_KEY, one a line. It is never sourced.
load_conf() { # FILE
    while IFS= read -r line || [ -n "$line" ]; do
        key=${line%%=*}
        case $key in
        '' | *[!A-Z_]*) ;; # comments
        *) eval "conf_$key=\${conf_$key:+\$conf_$key\$newline}\${line#*=}" ;;
        esac
    done <"$1"
}

load_kernel() {
    [ -r "$kernel_dir/kernel.conf" ] ||
        die "$EX_DATA" "$kernel_dir/kernel.conf is missing; a kernel must stay in its release, point JUPYTER_PATH there instead of copying it"
    load_conf "$kernel_dir/kernel.conf"
    [ "${conf_FORMAT:-}" = 1 ] ||
        die "$EX_DATA" "$kernel_dir/kernel.conf is not of format 1: it does not belong to this launcher"
}
