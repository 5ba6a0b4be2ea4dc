"""afpub: publish Jupyter kernels and container images for analysis facilities through CVMFS."""

__version__ = "0.1.0"
