# shellcheck shell=sh disable=SC2034,SC2154 # used by, and set by, the scripts that source this
# What launch (choose_gpu) and start (check_gpu) do about GPUs; kernels that want none skip all of it.

# Sets `gpu` (nvidia, amd, none), `driver` (the runtime's word for it) and `cuda_dir` (the toolkit of this machine, if the kernel or the site wants it).
choose_gpu() {
    gpu=none driver='' cuda_dir=''
    [ "${conf_GPU:-none}" = auto ] || return 0
    if [ -e /dev/nvidiactl ] || [ -e /dev/nvidia0 ]; then gpu=nvidia; elif [ -e /dev/kfd ]; then gpu=amd; fi
    visible=${CUDA_VISIBLE_DEVICES-all}
    case $visible in '' | -1 | 10000 | NoDevFiles) gpu=none ;; esac # what Slurm and HTCondor say for "not yours"
    case $gpu in nvidia) driver=--nv ;; amd) driver=--rocm ;; esac
    if [ "$gpu" != none ]; then
        choose_cuda
    elif was_asked_for; then
        notice "a GPU was asked for ($asked), but this job got none: the kernel '$conf_DISPLAY_NAME' runs on the CPU"
    else
        say "there is no GPU for this session: the kernel '$conf_DISPLAY_NAME' runs on the CPU"
    fi
}

# Sets `asked`: where the batch system was asked for a GPU.
was_asked_for() {
    for asked in SLURM_JOB_GPUS SLURM_STEP_GPUS SLURM_GPUS SLURM_GPUS_ON_NODE SLURM_GPUS_PER_NODE _CONDOR_AssignedGPUs; do
        eval "value=\${$asked:-0}"
        [ "$value" = 0 ] || return 0
    done
    asked=RequestGPUs
    [ -r "${_CONDOR_JOB_AD:-}" ] || return 1
    while read -r name _ value; do
        if [ "$name" = RequestGPUs ]; then [ "$value" != 0 ] && return 0; fi
    done <"$_CONDOR_JOB_AD"
    return 1
}

choose_cuda() {
    [ "$gpu" = nvidia ] || return 0
    wanted=${AFPUB_CUDA:-${conf_CUDA:-image}}
    [ "${wanted%%"$newline"*}" = host ] || return 0
    for folder in "${AFPUB_CUDA_DIR:-}" "${conf_CUDA_DIR:-}" "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda; do
        folder=${folder%%"$newline"*}
        if [ -n "$folder" ] && [ -d "$folder/lib64" ]; then
            cuda_dir=$(cd -P -- "$folder" && pwd -P)
            return 0
        fi
    done
    notice "this machine has no CUDA toolkit where it was looked for (CUDA_HOME, /usr/local/cuda): the image's own is used"
}

# ---------------------------------------------------------------- in the image

check_gpu() {
    [ "${AFPUB_GPU:-none}" = nvidia ] || return 0
    find_image_cuda
    use_host_cuda
    check_driver
    # Loading the driver's library is the real test: it may need a newer C library than the image has.
    fault=$(LD_PRELOAD=libcuda.so.1 /bin/true 2>&1)
    fault=${fault##*"$newline"}
    [ -z "$fault" ] || notice "the GPU cannot be used: this machine's driver library does not load in the image (${fault#*: })"
}

# Sets `image_cuda`: the version of the CUDA libraries that the image brings; empty for none.
find_image_cuda() {
    image_cuda=${CUDA_VERSION:-}
    for wheel in /usr/lib/python3*/dist-packages /usr/local/lib/python3*/*-packages /opt/*/lib/python3*/site-packages; do
        wheel=$(printf %s "$wheel"/nvidia_cuda_runtime*-[0-9]*.dist-info)
        if [ -d "$wheel" ]; then image_cuda=${wheel%.dist-info} && image_cuda=${image_cuda##*-}; fi
    done
    if [ -z "$image_cuda" ] && read_version /usr/local/cuda; then image_cuda=$version; fi
}

# Sets `version`: that of a CUDA toolkit.
read_version() { # FOLDER
    version=
    found=
    [ -r "$1/version.json" ] || return 1
    while read -r line; do
        case $line in
        *'"cuda"'*) found=yes ;;
        *'"version"'*) if [ -n "$found" ]; then break; fi ;;
        esac
    done <"$1/version.json"
    version=${line#*:*\"}
    version=${version%%\"*}
    [ -n "$version" ]
}

use_host_cuda() {
    [ -n "${AFPUB_CUDA_DIR:-}" ] || return 0
    if read_version "$AFPUB_CUDA_DIR" && [ -n "$image_cuda" ] && [ "${version%%.*}" != "${image_cuda%%.*}" ]; then
        notice "this machine's CUDA $version ($AFPUB_CUDA_DIR) does not fit the image, which is made for CUDA $image_cuda: the image's own is used"
        unset AFPUB_CUDA_DIR
        return 0
    fi
    image_cuda=${version:-$image_cuda}
    export CUDA_HOME="$AFPUB_CUDA_DIR" PATH="$AFPUB_CUDA_DIR/bin:$PATH"
    export LD_LIBRARY_PATH="$AFPUB_CUDA_DIR/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_gpu_cuda_data_dir=$AFPUB_CUDA_DIR"
}

# Source: NVIDIA, CUDA Compatibility, "minor version compatibility": the oldest driver of each major version.
check_driver() {
    case $image_cuda in
    11*) oldest=450 ;;
    12*) oldest=525 ;;
    13*) oldest=580 ;;
    *) return 0 ;;
    esac
    [ -r /proc/driver/nvidia/version ] || return 0
    read -r line </proc/driver/nvidia/version
    for driver in $line; do
        case $driver in [0-9]*.[0-9]*) break ;; esac
    done
    [ "${driver%%.*}" -ge "$oldest" ] 2>/dev/null ||
        notice "the GPU cannot be used: this machine's driver $driver is too old for CUDA $image_cuda, which needs $oldest or newer; ask the facility for a newer driver, or use a release with an older CUDA"
}
