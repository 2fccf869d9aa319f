"""coworkd-launcher: the only program that forks, mounts and makes namespaces; parent and reaper of every sandbox.

One thread, few imports, no trio: what `--die-with-parent` watches must stay, and a fork of a small process is a quick one.
"""
