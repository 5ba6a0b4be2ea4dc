# shellcheck shell=sh disable=SC2154 # sourced by start
# The Python that the kernel runs in, where a set-up step or the user's own file brought another than the image's, and
# the ipykernel that such a Python lacks.

kernel_packages=

# path_before is PATH before both of them.
find_own_python() {
    case ${program##*/} in python*) ;; *) return 0 ;; esac
    before=$(PATH=$path_before && command -v "$program")
    own=
    for name in "${program##*/}" python3 python; do
        own=$(command -v "$name")
        if [ -n "$own" ] && [ "$own" != "$(PATH=$path_before && command -v "$name")" ]; then break; fi
        own=
        # Only who sets a release up may turn a kernel of Python 2 into one of Python 3: not whatever else is in PATH.
        [ -n "${conf_SETUP:-}${AtlasProject:-}${AnalysisBase_DIR:-}" ] || break
    done
    if [ -n "$own" ]; then program=$own; elif [ -z "${conf_PACKAGES:-}" ]; then return 0; fi
    [ -z "$connection_file" ] || find_kernel_packages
}

# A release of an experiment has no ipykernel: the kernel takes afpub's own, see run_kernel.py.
find_kernel_packages() {
    "$program" -c 'import ipykernel' >/dev/null 2>&1 && return 0
    tag='import sys; sys.stdout.write("%d.%d" % sys.version_info[:2])'
    version=$("$program" -c "$tag" 2>/dev/null) ||
        die "$EX_SETUP" "$program does not start here ($("$program" -c "$tag" 2>&1 | tail -n 1))$(other_system ", and ")"
    images=${AFPUB_RELEASE_DIR%/*/*}/images
    kernel_packages=$images/${conf_PACKAGES:-none}/opt/afpub/overlay/$version
    [ -d "$kernel_packages" ] || kernel_packages=$(packages_of_the_image)
    if [ -z "$kernel_packages" ]; then # who chose the release may be a user
        for folder in "$images"/kernel-packages/*/opt/afpub/overlay/"$version"; do
            [ ! -d "$folder" ] || kernel_packages=$folder
        done
    fi
    [ -n "$kernel_packages" ] ||
        die "$EX_NOCOMMAND" "there is no ipykernel for $program (Python $version), and the release $AFPUB_RELEASE brings none; choose a release of another Python, or ask for this one in the image kernel-packages"
}

packages_of_the_image() {
    code='import os, ipykernel; print(os.path.dirname(os.path.dirname(ipykernel.__file__)))'
    if [ -n "$before" ] && [ "$version" = "$(env -i HOME="$HOME" "$before" -s -c "$tag")" ]; then
        env -i HOME="$HOME" "$before" -s -c "$code" 2>/dev/null
    fi
}

# A release of ATLAS is built for one system; elsewhere it works as far as it does. Told where it does not.
other_system() { # WORDS BEFORE
    release=${atlas_release:-${AtlasProject:-},${AtlasVersion:-}}
    case ,$release in
    *[,\ ]2[4-9].*) made_for='Enterprise Linux 9' number=9 ;;
    *[,\ ]2[0-3].*) made_for='CentOS 7' number=7 ;;
    *) return 0 ;;
    esac
    # shellcheck disable=SC1091 # of the image
    here=$(
        . /etc/os-release 2>/dev/null
        case ${VERSION_ID:-}:${ID:-}:${ID_LIKE:-} in "$number"*:*rhel* | "$number"*:*centos*) exit ;; esac
        printf %s "${PRETTY_NAME:-another system}"
    )
    [ -z "$here" ] || printf '%s%s is made for %s, and this is %s' "$1" "$release" "$made_for" "$here"
}
