"""coworkd: the guest side of a local agent sandbox."""

__version__ = "0.1.0"
