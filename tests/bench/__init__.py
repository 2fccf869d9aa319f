"""The benchmark: ours beside raw bubblewrap and others, in one run (`make bench`)."""
