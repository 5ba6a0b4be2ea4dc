"""Do TensorFlow and PyTorch see the GPU of this machine through a published kernel?

    python benchmarks/gpu_check.py .../share/jupyter/kernels/python3-ml

Starts the kernel as a Jupyter server does, once with CUDA's libraries from the image and once with those of the
machine (CUDA_HOME, /usr/local/cuda), multiplies two matrices on the GPU with each library that the image has, and
compares the product with the CPU's. Ends with 0 if all of them used the GPU, 1 if one did not or none is there, 77 if
this machine has no GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from publisher import tools
from publisher.kernels.probe import ProbeOptions, probe
from publisher.kernels.targets import Target
from publisher.project.kernel import SmokeCell

NO_GPU = 77
DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd")
NOTICE = "import os; print(os.environ.get('AFPUB_GPU'), '|', os.environ.get('AFPUB_NOTICE', 'no notice'))"
TENSORFLOW = """
import importlib.util
if importlib.util.find_spec("tensorflow") is None:
    print("not in the image")
else:
    import numpy, tensorflow
    names = [device.name for device in tensorflow.config.list_physical_devices("GPU")]
    print(tensorflow.__version__, names or "sees no GPU")
    if names:
        a = numpy.random.rand(512, 512).astype("float32")
        with tensorflow.device("GPU:0"):
            product = tensorflow.linalg.matmul(a, a)
        print("on", product.device.rsplit(":", 2)[1], "right", bool(numpy.allclose(product.numpy(), a @ a, rtol=1e-2)))
"""
PYTORCH = """
import importlib.util
if importlib.util.find_spec("torch") is None:
    print("not in the image")
else:
    import torch
    seen = torch.cuda.is_available()
    print(torch.__version__, "CUDA", torch.version.cuda, torch.cuda.get_device_name(0) if seen else "sees no GPU")
    if seen:
        a = torch.rand(512, 512)
        print("on", "GPU", "right", torch.allclose((a.cuda() @ a.cuda()).cpu(), a @ a, rtol=1e-2))
"""
WANTED = "on GPU right True|not in the image"


def main() -> int:
    """Checks both ways of binding and prints a line for each library."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("kernel", type=Path, help='folder of a kernel with gpu = "auto", as published')
    kernel = arguments.parse_args().kernel
    if not any(Path(device).exists() for device in DEVICES):
        print(f"this machine has no GPU: none of {', '.join(DEVICES)} is there")
        return NO_GPU
    for program in ("nvidia-smi", "rocm-smi"):
        if tools.which(program):
            print(tools.run([program], check=False, timeout_s=60).stdout)
    # TensorFlow tells on stderr what it finds; that is no failure
    cells = tuple(SmokeCell(code=code, expect=WANTED, allow_stderr=".") for code in (TENSORFLOW, PYTORCH))
    fine = True
    for binding in ("image", "host"):
        with tempfile.TemporaryDirectory(prefix="afpub-gpu-") as scratch:
            target = Target(kernel_dir=kernel, smoke=(SmokeCell(code=NOTICE, allow_stderr="."), *cells))
            environment = {**os.environ, "AFPUB_CUDA": binding}
            (result,) = probe([target], ProbeOptions(scratch=Path(scratch), env=environment))
        print(f"CUDA of the {binding}:")
        for name, cell in zip(("launcher", "TensorFlow", "PyTorch"), result.cells, strict=False):
            print(f"  {name}: {' '.join(cell.output.split())}")
        for finding in result.report.errors:
            print(f"  FAILED {finding.check}: {finding.message}")
        used = any("on GPU right True" in cell.output for cell in result.cells)
        print("  " + ("the GPU was used" if used else "FAILED: no library used the GPU"))
        fine = fine and used and result.report.ok
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
