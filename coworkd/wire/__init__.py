"""The wire: MessagePack-RPC without I/O. Both ends of a link stand on it; it knows no socket and no service."""
