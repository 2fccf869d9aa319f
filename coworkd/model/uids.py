"""Which uids are sessions'. Imports nothing, so that the smallest of our programs can know them."""

MIN_UID = 1001
MAX_UID = 59_999
"""Session uids stay below 60,000, where subordinate and dynamic ranges begin (shadow-utils' UID_MAX, systemd's UIDS-GIDS)."""
