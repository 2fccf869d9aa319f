"""The server's side of links: wire ↔ services. It decides nothing about sessions or processes."""
