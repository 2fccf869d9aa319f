"""The servers outside: what a session's connections reach in a test namespace, and what they were asked."""
