"""From a kernel definition and an image to a rendered kernelspec; the launcher; the probe."""
