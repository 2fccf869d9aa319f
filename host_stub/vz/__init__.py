"""Apple's Virtualization.framework (VZ) as a back end: `backend` here, VZ's objects in a process of their own (`process`).

The package imports on any system; what only a Mac has is imported when a machine is started. docs/vz.md tells what was checked how.
"""
