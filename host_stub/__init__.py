"""The smallest host that boots the guest: `cowork-vm`, and a `Machine` with two back ends, QEMU and VZ."""
