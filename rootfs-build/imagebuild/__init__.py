"""The builder of the guest's image. `rootfs-build/build` is its command; docs/image.md says what it makes and how."""
