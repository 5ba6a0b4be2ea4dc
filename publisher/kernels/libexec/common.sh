# shellcheck shell=sh disable=SC2034,SC2154 # used by, and set by, the scripts that source this
# Shared by launch (outside the image) and start (in it): the data file of a kernel, and how to speak.
# `kernel_dir` is the folder that holds kernel.conf. stdout is never written to: it belongs to the kernel.

EX_USAGE=64      # called wrongly
EX_DATA=65       # kernel.conf is missing or not for this launcher
EX_NOIMAGE=66    # the image is not there
EX_RETIRED=68    # the release, or this kernel of it, is no more
EX_NORUNTIME=69  # neither apptainer nor singularity is installed
EX_NONESTING=70  # no container can be started from inside this one
EX_NOUSERNS=71   # the system does not allow user namespaces
EX_CONNECTION=72 # the connection file cannot be read or bound
EX_RUNTIME=73    # the runtime cannot start the image
EX_SETUP=75      # a set-up step failed
EX_NOCOMMAND=76  # the kernel's program is not there
EX_NOPROGRAM=127 # the program of launch --run is not there, as a shell says it

newline='
'
notices=
connection_file=

say() {
    printf 'afpub: %s\n' "$*" >&2
}

# Something that the user should know although the kernel starts: shown once, on stderr of the first cell.
notice() { # SENTENCE
    say "$1"
    notices=$notices${notices:+$newline}$1
}

# Ends with a sentence. A kernel's user does not see stderr: a kernel that only tells the sentence takes the place.
die() { # CODE SENTENCE [COMMAND THAT HELPS]
    say "$2"
    [ -z "${3:-}" ] || say "try: $3"
    if [ -r "$connection_file" ] && [ "${AFPUB_ON_ERROR:-}" != exit ]; then become_message_kernel "$2" "${3:-}"; fi
    exit "$1"
}

become_message_kernel() { # SENTENCE COMMAND
    server=/proc/${JPY_PARENT_PID:-self}/exe # a Python, where the server is started as one
    modules='hmac, json, socket, threading, uuid'
    if grep -q curve_secretkey "$connection_file" 2>/dev/null; then modules="$modules, zmq"; fi # a server that encrypts has it
    for python in python3 "$(readlink "$server")" /usr/bin/python3 /usr/libexec/platform-python python2.7 python; do
        if "$python" -E -s -c "import $modules" >/dev/null 2>&1; then
            if command -v watch_server >/dev/null; then watch_server; fi # of start, where the server is not our parent
            exec "$python" -E -s "$libexec/message.py" "$connection_file" "${conf_LANGUAGE:-python}" "$@"
        fi
    done
}

# Sets `made`: a new file of this session (or a folder, with -d), which no other user can read, or has put there.
# Those of the same name that sessions of this user have left go first; a process id counts in its namespace only.
make_own() { # NAME [-d]
    space=$(readlink /proc/self/ns/pid)
    space=${space#*\[}
    own=${TMPDIR:-/tmp}/afpub-$1@$(uname -n)-${space%]}
    for old in "$own"-*; do
        pid=${old%.*}
        # shellcheck disable=SC3067 # every sh that a Linux distribution has knows -O
        if [ -O "$old" ] && [ ! -d "/proc/${pid##*-}" ]; then rm -rf "$old" 2>/dev/null; fi
    done
    shift
    made=$(mktemp "$@" "$own-$$.XXXXXX")
}

# Reads a data file into variables: the values of KEY are in conf_KEY, one a line. It is never sourced.
load_conf() { # FILE [THE ONLY KEYS]
    while IFS= read -r line || [ -n "$line" ]; do
        key=${line%%=*}
        case $key in
        "$line" | '' | *[!A-Z_]*) ;; # comments
        *) case " ${2:-$key} " in *" $key "*) ;; *) continue ;; esac
            eval "conf_$key=\${conf_$key:+\$conf_$key\$newline}\${line#*=}" ;;
        esac
    done <"$1"
}

# The data of the kernel, and what to do about GPUs for it.
load_kernel() {
    [ -r "$kernel_dir/kernel.conf" ] ||
        die "$EX_DATA" "$kernel_dir/kernel.conf is missing; a kernel must stay in its release, point JUPYTER_PATH there instead of copying it"
    load_conf "$kernel_dir/kernel.conf"
    [ "${conf_FORMAT:-}" = 1 ] ||
        die "$EX_DATA" "$kernel_dir/kernel.conf is not of format 1: it does not belong to this launcher"
    # shellcheck source=gpu.sh
    . "$libexec/gpu.sh"
}
