# shellcheck shell=sh disable=SC2154 # sourced by start
# The set-up steps of a kernel: SETUP=<kind> <word>... lines of kernel.conf, in their order.
#
#   source FILE [ARG...]     a set-up file, such as /release_setup.sh or setup.sh of an LCG view
#   asetup RELEASE...        a release of ATLAS, through ATLASLocalRootBase
#   analysisbase RELEASE     the same, but where ATLAS is not there the kernel starts without it
#   module NAME...           environment modules
#   conda FOLDER             an environment of conda, given by its folder
#   venv FOLDER              a virtual environment of Python

take_setup_steps() {
    make_own "setup-$conf_KERNEL" ||
        die "$EX_SETUP" "${TMPDIR:-/tmp} cannot be written, which the kernel '$conf_DISPLAY_NAME' needs for the log of its set-up; make room there, or set TMPDIR to another folder"
    log=$made
    export AFPUB_SETUP_LOG="$log"
    exec 8>&2 # where a step that ends the shell is told: stderr is the log then
    IFS=$newline
    for step in $conf_SETUP; do
        unset IFS
        take_step "${step%% *}" "${step#* }"
    done
    unset IFS
    close_log
    exec 8>&-
}

# A log that holds nothing is of no use; make_own removes the others in time.
close_log() {
    [ -s "$log" ] || { rm -f "$log" && unset AFPUB_SETUP_LOG AFPUB_ASETUP_LOG; }
}

take_step() { # KIND WORDS
    case $1 in
    source) source_quietly "$2" ;;
    asetup) run_asetup "$2" ;;
    analysisbase) setup_analysisbase "$2" ;;
    module) load_modules "$2" ;;
    venv) source_quietly "$2/bin/activate" ;;
    conda) activate_conda "$2" ;;
    *) false ;;
    esac || fail_setup "$1 $2" "$?"
}

fail_setup() { # WHAT CODE
    exec >&8 2>&8
    close_log
    failed="$1 failed (code $2): the kernel '$conf_DISPLAY_NAME' was not started"
    [ -e "$log" ] || die "$EX_SETUP" "$failed; it printed nothing"
    tail -n 20 "$log" >&2
    die "$EX_SETUP" "$failed; all that it printed is in $log" "tail -n 50 $log"
}

# A file that many would write `. FILE`: it may return anything, but must not print on stdout or read stdin.
source_quietly() { # FILE AND ARGUMENTS, split at spaces
    words=$1
    file=${words%% *}
    [ -r "$file" ] || { echo "$file is not there" >>"$log" && return 1; }
    # shellcheck disable=SC2086 # the words of kernel.conf are made for splitting
    case $words in *' '*) set -- ${words#* } ;; *) set -- ;; esac
    trap 'fail_setup "$words" exit' EXIT
    # shellcheck disable=SC1090,SC2240 # bash hands the arguments on
    . "$file" "$@" </dev/null >>"$log" 2>&1
    status=$?
    trap - EXIT
    [ "$status" = 0 ] || say "$file ended with code $status: the kernel starts all the same"
}

# AFPUB_ASETUP names another release; "none" leaves it out. The user's own file may have set one up already.
setup_analysisbase() { # RELEASE
    if [ "${AFPUB_ASETUP:-}" = none ] || [ -n "${AtlasProject:-}${AnalysisBase_DIR:-}" ]; then return 0; fi
    root=${ATLAS_LOCAL_ROOT_BASE:-/cvmfs/atlas.cern.ch/repo/ATLASLocalRootBase}
    if [ ! -r "$root/user/atlasLocalSetup.sh" ]; then
        say "$root is not on this machine: the kernel starts without ${AFPUB_ASETUP:-$1}"
        return 0
    fi
    run_asetup "$1"
}

run_asetup() { # RELEASE
    spec=${AFPUB_ASETUP:-$1}
    export ATLAS_LOCAL_ROOT_BASE="${ATLAS_LOCAL_ROOT_BASE:-/cvmfs/atlas.cern.ch/repo/ATLASLocalRootBase}"
    # shellcheck disable=SC2034 # for python.sh
    atlas_release=$spec
    source_quietly "$ATLAS_LOCAL_ROOT_BASE/user/atlasLocalSetup.sh --quiet" || fail_setup "asetup $spec" 1
    # An alias is known to what is parsed after it; the words of AFPUB_ASETUP are asetup's own arguments.
    # shellcheck disable=SC2039,SC3044 # bash only
    if [ -n "${BASH_VERSION:-}" ]; then shopt -s expand_aliases; fi
    eval 'asetup $spec' </dev/null >>"$log" 2>&1
    status=$?
    if [ "$status" != 0 ] || [ -z "${AtlasProject:-}${AnalysisBase_DIR:-}" ]; then
        fail_setup "asetup $spec" "$status$(other_system '; ')"
    fi
    export AFPUB_ASETUP_LOG="$log"
    say "asetup $spec is done$([ ! -s "$log" ] || echo " (its output: $log)")$(other_system '; ')"
}

load_modules() { # NAMES
    for file in "${MODULESHOME:-}/init/bash" /usr/share/lmod/lmod/init/bash /usr/share/[Mm]odules/init/bash \
        /etc/profile.d/lmod.sh /etc/profile.d/modules.sh; do
        if command -v module >/dev/null 2>&1; then break; fi
        [ ! -r "$file" ] || source_quietly "$file"
    done
    # shellcheck disable=SC2086 # names of modules hold no spaces
    module load $1 </dev/null >>"$log" 2>&1
}

# As conda's own activate does it, which needs conda itself.
activate_conda() { # FOLDER
    [ -d "$1/bin" ] || { echo "$1 is no environment of conda" >>"$log" && return 1; }
    export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"
    for file in "$1"/etc/conda/activate.d/*.sh; do
        [ ! -r "$file" ] || source_quietly "$file"
    done
}
