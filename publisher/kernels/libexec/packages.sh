# shellcheck shell=sh disable=SC2154 # conf_* come from load_conf, EX_* and newline from common.sh
# The packages that a user installs with pip: where they are, and that they cannot stop a kernel. Runs in the image.
#
# An image is read-only, so pip installs "for the user", below PYTHONUSERBASE. That is a folder of this user, this
# repository, this release and this image: no other release and no other image's Python ever sees what is in it, and
# ~/.local, where everything ends up that was installed outside, is not seen here.
#
#   AFPUB_PACKAGES=FOLDER  the place of all of them, instead of ~/.local/share/afpub
#   AFPUB_PACKAGES=none    this session sees the packages of the image only
#   AFPUB_ENV=NAME         one of several environments beside each other; `afpub-env kernel NAME` makes them

# One name for one repository, also where it is not below /cvmfs but a copy of it somewhere else.
set_tree() {
    tree=${AFPUB_RELEASE_DIR%/releases/*}
    case $tree in
    /cvmfs/*) tree=${tree#/cvmfs/} ;;
    *)
        record=$AFPUB_RELEASE_DIR/release.json
        if [ -r "$record" ]; then # the two stand next to each other, near the top
            tree=$(sed -n -e 's/^  "fqrn": "\([^"]*\)",$/\1/p' -e '/^  "prefix": /{s/^[^:]*: "\([^"]*\)",$/\1/p;q;}' "$record" | tr -d '\n')
        fi
        ;;
    esac
    tree=${tree#/}
    while :; do
        case $tree in
        *[/\ ]*) tree=${tree%%[/ ]*}_${tree#*[/ ]} ;;
        *) break ;;
        esac
    done
}

# The folder of an environment. Kernels of one image share it, since they share a Python.
set_place() {
    set_tree
    place=${conf_IMAGE%%/*}
    place=${AFPUB_PACKAGES:-$HOME/.local/share/afpub}/$tree/$conf_RELEASE/${place:-kernel-$conf_KERNEL}/$packages_env
}

legal_name() {
    case $1 in '' | [!a-z0-9]* | *[!a-z0-9._-]*) return 1 ;; esac
}

# The Python of the kernel, by its path: after a set-up step it may be another one than before.
packages_python() {
    case ${program##*/} in
    *python*) command -v "$program" ;;
    *) command -v python3 ;;
    esac
}

# lib/pythonX.Y/site-packages below an environment, named as the Python itself names it.
set_lib() {
    lib=
    for name in "${AFPUB_PYTHON%/*}"/python[0-9].*; do
        case ${name##*/} in
        python[0-9].[0-9] | python[0-9].[0-9][0-9])
            # shellcheck disable=SC3013 # every sh that a Linux distribution has knows -ef and -nt
            if [ "$name" -ef "$AFPUB_PYTHON" ]; then lib=${name##*/}; fi
            ;;
        esac
    done
    [ -n "$lib" ] || lib=$("$AFPUB_PYTHON" -S -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    lib=$place/lib/$lib/site-packages
}

# Called by start, once PATH is final. Afterwards AFPUB_PACKAGES_DIR names the place, and pip and Python know it.
set_user_packages() {
    PATH=$PATH:$AFPUB_RELEASE_DIR/bin
    packages_env=${AFPUB_ENV:-default}
    unset AFPUB_PYTHON AFPUB_PACKAGES_DIR AFPUB_PACKAGES_FAULT PYTHONUSERBASE # a session inside a session has its own
    AFPUB_PYTHON=$(packages_python) || return 0 # an image without Python
    export AFPUB_PYTHON
    if [ "${conf_USER_SITE:-}" = yes ] || [ "${AFPUB_PACKAGES:-}" = none ]; then return 0; fi
    if ! legal_name "$packages_env"; then
        say "AFPUB_ENV=$packages_env is no name of an environment: the environment 'default' is used"
        packages_env=default
    fi
    set_place
    export AFPUB_PACKAGES_DIR="$place"
    set_lib
    # Python looks for the folder once, when it starts: it must be there before the first package is.
    if [ ! -d "$lib" ] && ! reason=$(mkdir -p "$lib" 2>&1); then
        notice "there is no place for packages of your own, pip cannot install any: $place cannot be made (${reason##*: }); free space there, or set AFPUB_PACKAGES to another folder"
        return 0
    fi
    unset PYTHONNOUSERSITE
    export PYTHONUSERBASE="$place"
    PATH=$place/bin:$PATH
    tell_of_older_packages
    if [ -n "${connection_file:-}" ]; then check_user_packages; fi # a terminal or a job is there to look, and to repair
}

is_empty() { # FOLDER
    for item in "$1"/*; do
        [ ! -e "$item" ] || return 1
    done
}

# After a channel has moved, a user misses what was installed for the release before. A notebook tells it once.
tell_of_older_packages() {
    if [ -e "$place/.told" ] || ! is_empty "$lib"; then return 0; fi
    releases=${place%/*/*/*}
    from=
    for other in "$releases"/*/"${place#"$releases"/*/}"/lib/python*/site-packages/*.dist-info; do
        [ ! -e "$other" ] || from=${other#"$releases/"}
    done
    from=${from%%/*}
    [ -n "$from" ] || return 0
    sentence="you have packages of your own for release $from, and none yet for $conf_RELEASE: 'afpub-env copy --from $from' brings them here"
    if [ -z "${connection_file:-}" ]; then
        say "$sentence"
    else
        notice "$sentence"
        : 2>/dev/null >"$place/.told"
    fi
}

# A package can shadow one that the kernel itself needs (ipykernel, pyzmq,
# traitlets, ...): then the kernel starts without the user's packages. Costs nothing unless something was installed.
check_user_packages() {
    [ -n "${PYTHONUSERBASE:-}" ] || return 0
    if is_empty "$lib"; then return 0; fi
    stamp=${lib%/*}/.checked
    # shellcheck disable=SC3013
    if [ -e "$stamp" ] && [ ! "$lib" -nt "$stamp" ]; then return 0; fi
    new=$stamp.$$
    # made before looking: what is installed meanwhile is looked at next time
    if ! : 2>/dev/null >"$new"; then
        notice "$place cannot be written (disk full, or quota used up?): pip will not be able to install anything"
        new=
    fi
    set -- -c 'import sys; sys.path += sys.argv[1:]; import ipykernel.kernelapp' ${kernel_packages:+"$kernel_packages"}
    if reason=$("$AFPUB_PYTHON" "$@" 2>&1) || ! PYTHONNOUSERSITE=1 "$AFPUB_PYTHON" "$@" 2>/dev/null; then
        if [ -n "$new" ]; then mv -f "$new" "$stamp"; fi
        return 0
    fi
    if [ -n "$new" ]; then rm -f "$new"; fi
    export AFPUB_PACKAGES_FAULT="your own packages in $place break the kernel (${reason##*"$newline"}): it started without them. 'afpub-env remove NAME' takes one away, 'afpub-env clear' all of them; then restart the kernel"
    notice "$AFPUB_PACKAGES_FAULT"
    export PYTHONNOUSERSITE=1
    unset PYTHONUSERBASE
}
