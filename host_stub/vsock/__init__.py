"""Our vhost-user vsock device: a guest's vsock as one unix socket in the hybrid style, where the kernel has no vhost-vsock."""
