"""Runs a program that refuses to be root (postgres) from a root shell, as `nobody`.

`nobody` must reach the program and its data, which may lie below a directory that only root may enter (/root, a
private temporary directory). So the one right that is missing, to pass and read directories, is kept as an ambient
capability. Nothing is opened to other users, no user is added.

Run as a script (`python without_root.py PROGRAM ARGS`), by path: it must not depend on what is importable.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import struct
import sys

PR_SET_KEEPCAPS, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 28, 47, 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CAPABILITY_VERSION_3 = 0x20080522


def command(program: str, *args: str) -> tuple[str, ...]:
    """The command line that runs `program` as the present user, or as nobody when that is root."""
    if os.geteuid() != 0:
        return (program, *args)
    return (sys.executable, "-I", "-S", __file__, program, *args)


def main(argv: list[str]) -> None:
    nobody = pwd.getpwnam("nobody")
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    # access(2), with which initdb looks for postgres, ignores the capabilities of a user other than root without this
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    if libc.capget(header, sets) == 0:
        permitted = struct.unpack_from("<I", sets, 4)[0]
        # a container has often only the stronger one
        for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
            bit = 1 << capability
            if permitted & bit:
                libc.capset(header, struct.pack("<6I", bit, bit, bit, 0, 0, 0))
                libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
                break
        else:
            libc.capset(header, bytes(24))
    os.execv(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
