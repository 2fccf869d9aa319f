"""Small programs that the launcher starts for coworkd: each works with the rights its task needs, and no more."""
