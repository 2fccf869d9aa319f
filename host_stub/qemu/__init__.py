"""QEMU as the back end of a machine: x86_64 and aarch64, on Linux and macOS, without root.

`QemuBackend` is what `host_stub.words.Backend` asks for. Below it: `accelerator` what may run the guest fast, `tools` what is installed,
`command` (pure) a machine as QEMU's words, `qmp` (sans-I/O) and `qmp_client` QEMU's control, `processes` children that end with us,
`beside` what runs beside QEMU, `running` one machine's life.
"""

from host_stub.qemu.backend import QemuBackend

__all__ = ["QemuBackend"]
