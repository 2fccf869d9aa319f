"""From what was asked and what is allowed to what will be done: pure, typed, golden-tested.

`tree` what a session's root holds · `compose` one command · `bwrap_plan` its options · `environment` · `failure` what
bubblewrap said when a command could not start · `shim.py` the one file that runs inside.
"""
