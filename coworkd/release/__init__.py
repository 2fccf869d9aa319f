"""Releases of coworkd itself: what one holds, who has signed it, and which of the slots runs.

Sans I/O but for `store`, which is handed its files.
"""
