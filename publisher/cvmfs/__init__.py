"""The CVMFS repository format, reader and writer; knows nothing of images, kernels or releases."""
