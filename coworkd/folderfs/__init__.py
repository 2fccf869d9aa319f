"""The file system that guards a folder: a FUSE server of our own (ADR 10)."""
