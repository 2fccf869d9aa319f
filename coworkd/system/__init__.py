"""The only floor that touches the kernel, C libraries and other programs: one thin function per call, no policy in it."""
