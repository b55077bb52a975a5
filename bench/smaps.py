# SPDX-License-Identifier: BSD-3-Clause
"""The mappings of a process, and which of them are its guest's memory."""
import re

HEAD = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *(.*)$")


class Mapping:
    """Fields as the kernel names them, in KiB."""

    def __init__(self, head):
        self.size = (int(head[2], 16) - int(head[1], 16)) // 1024
        self.name = head[3]
        self.fields = {}
        self.flags = []

    def is_guest(self, guest_kib=None):
        """crosvm's memfd, or its private memory, which nothing else without a name is kept out of core dumps with;
        of another VMM the one anonymous mapping of the guest's size."""
        if "memfd:crosvm-guest" in self.name:
            return True
        return self.name == "" and ("dd" in self.flags or self.size == guest_kib)


def mappings(pid):
    found = []
    with open(f"/proc/{pid}/smaps") as lines:
        for line in lines:
            head = HEAD.match(line)
            if head:
                found.append(Mapping(head))
            elif line.startswith("VmFlags:"):
                found[-1].flags = line.split()[1:]
            elif line.rstrip().endswith(" kB"):
                field, value = line.split(":")
                found[-1].fields[field] = int(value.split()[0])
    return found


def guest_kib(pid, field="Pss"):
    """What of the guest's memory the host has backed."""
    return sum(mapping.fields[field] for mapping in mappings(pid) if mapping.is_guest())


def own_kib(pid, field="Pss"):
    """Memory of a process without that of its guest."""
    return sum(mapping.fields[field] for mapping in mappings(pid) if not mapping.is_guest())
