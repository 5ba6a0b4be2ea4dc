"""The CVMFS repository format: reading, writing, checking. Knows nothing of images, kernels or releases."""
