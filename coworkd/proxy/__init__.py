"""Proxies without I/O: what a client of ours says, what it is answered, and how we speak to the proxies before us."""
