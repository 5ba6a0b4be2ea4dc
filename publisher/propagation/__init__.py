"""Is it there yet: what stratum 0, the stratum 1s, the sites and this machine have of a repository."""
