"""The back-end that drives a site's own ``cvmfs_server``: a local stratum 0, or a publisher of a gateway."""
