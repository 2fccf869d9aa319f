"""`cowork-vm`: one machine from the command line. click and rich are the extra `host`, imported where they are used."""
