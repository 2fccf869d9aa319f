"""The words of coworkd: frozen types, enumerations and errors that every floor shares.

Nothing here does I/O, and nothing here imports another room.
"""
