"""The CVMFS repository format: reading, writing and checking. Knows nothing of images, kernels or releases."""
