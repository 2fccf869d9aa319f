"""Archives: POSIX tar as bytes, and trees of files in and out of it. For the worker of `file.*` and for `coworkctl cp`."""
