"""What a session may reach: settings files → values, hosts → verdicts, addresses → refusals. Pure; no sockets, no files."""
