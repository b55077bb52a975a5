# SPDX-License-Identifier: BSD-3-Clause
"""A VM with a device of each kind in a jail of its own, and what /proc must say of such a jail, for each of its threads.

What a process holds is exact, by kind. Of the limits: there is none of address space yet, and the threads' one leaves
room for 64 of io_uring's workers.
"""
import collections
import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import struct

import vmm
from netns import in_network, libc, own_network

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
NOBODY = 65534  # what root's devices become
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454ca, 0x2, 0x1000, 0x4000
SIOCGIFFLAGS, IFF_UP = 0x8913, 1
SYS_PIDFD_GETFD = 438
SIGSETXID = 33  # the C library's, once there is a second thread
SYS_CAPSET, LINUX_CAPABILITY_VERSION_3 = 126, 0x20080522
PR_SET_DUMPABLE, PTRACE_SEIZE, CLONE_NEWUSER = 4, 0x4206, 1 << 28
SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
EVENT, RING, EPOLL, SOCKET = "anon_inode:[eventfd]", "anon_inode:[io_uring]", "anon_inode:[eventpoll]", "socket"
# Those with the queues that tests/guest/load.c starts; a helper has none.
KINDS = {"block": 1, "net": 3, "balloon": 4, "vsock": 3, "wl": 2, "rng": 1}
HELPERS = ("vsock-to", "wl-to")


# ---- the machine ----

@contextlib.contextmanager
def network():
    """(options, descriptors to pass) of a card: a tap, as root, in a network that nothing else is in; else passt's, or none."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        yield (("--net", "user") if shutil.which("passt") else ()), ()
        return
    with own_network():
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"jail0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    try:
        yield ("--net", f"tap-fd={fd},vhost=off"), (fd,)
    finally:
        os.close(fd)


@contextlib.contextmanager
def compositor(place):
    """Its socket, which a wayland device of jails.command() connects to."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "wayland-0"))
        listener.listen()
        os.chmod(place / "wayland-0", 0o666)
        yield
    (place / "wayland-0").unlink()


def command(place, case, *options):
    """A guest with a device of each kind but a card, at rest or with requests without end."""
    for name in ("ro.img", "rw.img"):
        if not (place / name).exists():
            (place / name).write_bytes(bytes(1 << 20))
    return vmm.command("load", case, "-u", "-b", f"path={place}/ro.img,ro", "-b", f"path={place}/rw.img", "--balloon",
                       "reporting", "--vsock", f"cid=42,socket={place}/vsock", "--wl", f"path={place}/wayland-0", *options)


@contextlib.contextmanager
def machine(place, case, *options, before=(), **kwargs):
    """That running, with a card. `before` starts crosvm."""
    with compositor(place), network() as (card, fds):
        argv = command(place, case, *card, *options)
        with vmm.started([*before, *argv], until=b"serving", pass_fds=fds, **kwargs) as process:
            yield process


# ---- what a jail is ----

def text(pid, name):
    return pathlib.Path(f"/proc/{pid}/{name}").read_text()


def status(task):
    return dict(re.findall(r"^(\w+):[ \t]*(.*)$", text(task, "status"), re.MULTILINE))


def tasks(pid):
    return [f"{pid}/task/{task}" for task in os.listdir(f"/proc/{pid}/task")]


def numbered(pid):
    """{number: (what, access)}; each is closed in programs that are started."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        flags = int(text(pid, f"fdinfo/{fd}").partition("flags:")[2].split()[0], 8)
        assert flags & os.O_CLOEXEC, fd
        what = os.readlink(f"/proc/{pid}/fd/{fd}")
        found[int(fd)] = re.sub(r"^(socket|pipe):.*", r"\1", what), flags & os.O_ACCMODE
    return found


def descriptors(pid):
    """{(what, access): how many}"""
    return collections.Counter(numbered(pid).values())


def manifest(name, disk=None, memory=True):
    """What a process of this name holds: queues that run, descriptors."""
    queues = KINDS.get(name, 0)
    files = collections.Counter({("/null", os.O_RDWR): 2, ("pipe", os.O_WRONLY): 1, (SOCKET, os.O_RDWR): 1})
    if name in KINDS:  # kick, call and stop of each queue
        files[EVENT, os.O_RDWR] += 3 * queues + 1 if memory else 0
    if name == "block":
        files.update({(RING, os.O_RDWR): 1, disk: 1})
    elif name == "net":
        files.update({(RING, os.O_RDWR): 2, ("/dev/net/tun", os.O_RDWR): 1})
    elif name == "vsock":  # the listener, the way to the helper; two to wake its threads
        files.update({(SOCKET, os.O_RDWR): 2, (EVENT, os.O_RDWR): 2, (EPOLL, os.O_RDWR): 1})
    elif name == "wl":  # the way to the helper, and with a guest's memory the window's
        files.update({(SOCKET, os.O_RDWR): 2 if memory else 1, (EPOLL, os.O_RDWR): 2})
    return queues if memory else 0, files


def kernels_manifest(name):
    """The same of one whose rings the kernel serves: no queue runs here, and nothing stops one."""
    queues, more = {"net": (2, "/dev/net/tun"), "vsock": (3, None)}[name]
    _, files = manifest(None)
    files.update({(EVENT, os.O_RDWR): 2 * queues + 1, (f"/dev/vhost-{name}", os.O_RDWR): 1})
    if more:
        files[more, os.O_RDWR] += 1
    return 0, files


def check_rights(pid, caller):
    """J1 to J4, J6: of every thread; and what it inherits of signals and of the mask of new files, which is nothing."""
    user = NOBODY if caller == 0 else caller
    # Root's helper is the owner of the directory that it sees, which is root.
    if caller == 0 and vmm.name_of(pid) in HELPERS:
        user = 0
    for task in tasks(pid):
        fields = status(task)
        assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        assert int(fields["Seccomp_filters"]) >= 1
        assert fields["Uid"].split() == fields["Gid"].split() == [str(user)] * 4
        if os.geteuid() == 0:  # an ordinary user's kernel lets a jail drop none; the tests' user here has none
            assert fields["Groups"].split() == []
        assert len(fields["NSpid"].split()) == 2
        assert int(fields["SigBlk"], 16) == 0
        assert int(fields["SigCgt"], 16) & ~(1 << SIGSETXID - 1) == 0
        assert int(fields["SigIgn"], 16) == 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
        assert fields["Umask"] == "0077"
    assert status(pid)["NSpid"].split()[-1] == "1"
    for name in ("uid_map", "gid_map"):
        assert text(pid, name).split() == [str(user), str(user), "1"]
    # The groups that root's has none of took the right to drop them, which the kernel takes from nobody later.
    assert text(pid, "setgroups") == ("allow\n" if caller == 0 else "deny\n")


def namespaces(pid):
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}


def check_surroundings(pid, main, is_helper):
    """J5, J7, J8, J13, J14, J16, J17."""
    ours, its = namespaces(main), namespaces(pid)
    assert [name for name in NAMESPACES if ours[name] == its[name]] == []
    if not is_helper:  # which sees the directory of its sockets
        assert os.listdir(f"/proc/{pid}/root/") == []
    mounts = text(pid, "mountinfo").splitlines()
    assert len(mounts) == 1 and {"ro", "nosuid", "nodev", "noexec"} <= set(mounts[0].split()[5].split(","))
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert re.findall(r"^ *(\S+):", text(pid, "net/dev"), re.MULTILINE) == ["lo"]
    if os.geteuid() == 0:
        with open(f"/proc/{pid}/ns/net", "rb") as namespace, in_network(namespace.fileno()), \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            flags = struct.unpack("16xH22x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16s24x", b"lo")))[0]
            assert flags & IFF_UP == 0
    assert {os.stat(f"/proc/{pid}/{name}").st_uid for name in ("mem", "maps", "environ")} == {0}
    assert int(text(pid, "oom_score_adj")) >= min(int(text(main, "oom_score_adj")) + 200, 1000)
    # Of what would change the C library itself, it has a copy of its own.
    assert [word for word in text(pid, "environ").split("\0") if word and not word.startswith("GLIBC_TUNABLES=")] == []
    assert text(pid, "cmdline").startswith(f"crosvm-{vmm.name_of(pid)}\0")
    _, _, session, terminal = text(pid, "stat").rsplit(")", 1)[1].split()[1:5]
    assert (session, terminal) == (str(pid), "0")


def check_memory(pid, rings, guest):
    """J11: nothing to write and to execute; shared are its own rings, and the guest's memory, which keeps its size."""
    shared = collections.Counter()
    for line in text(pid, "maps").splitlines():
        addresses, rights, _, _, _, *name = line.split(None, 5)
        assert not {"w", "x"} <= set(rights), line
        if rights[3] == "s":
            shared[name[0]] += 1
            if "memfd" in name[0] and os.geteuid() == 0:
                fd = os.open(f"/proc/{pid}/map_files/{addresses}", os.O_RDONLY)
                assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALED
                os.close(fd)
    expected = collections.Counter({RING: 2 * rings, "/memfd:crosvm-guest (deleted)": int(guest)})
    assert shared == +expected


def allowances(name, kernels):
    """(descriptors besides those that it is given, threads), as src/vm/device_process.c has them."""
    if name in HELPERS:
        return 1024, 1
    queues = 2 if kernels and name == "net" else KINDS[name]
    descriptors_ = 8 + 6 * queues + 1 + {"vsock": 1024, "wl": 600 + 28 + 4}.get(name, 0)
    return descriptors_, 1 + 1 if kernels else 1 + queues + (64 if name in ("block", "net") else 0)


def check_limits(pid, main, queues, files):
    """J12, J15."""
    def limit(what):
        soft, hard = re.search(rf"^Max {what} +(\S+) +(\S+)", text(pid, "limits"), re.MULTILINE).groups()
        assert soft == hard
        return int(soft)

    name = vmm.name_of(pid)
    assert limit("core file size") == limit("msgqueue size") == 0
    assert len({re.search(r"^Max locked memory.*$", text(any_, "limits"), re.MULTILINE)[0] for any_ in (pid, main, "self")}) == 1
    # The highest number that was kept is that of the way to report, made after the others, which is closed by now. These
    # may have got lower ones that the main process had let go of.
    spare, threads = allowances(name, any("/dev/vhost-" in what for what, _ in files))
    kept = [what for what in files if what[0] != EVENT and what[0] != EPOLL]
    highest = max(fd for fd, what in numbered(pid).items() if what in kept)
    inherited = int(re.search(r"^Max open files +\S+ +(\S+)", text(main, "limits"), re.MULTILINE)[1])
    at_most = max(highest + 10, 1 + max(map(int, os.listdir(f"/proc/{main}/fd"))))
    assert min(highest + 2 + spare, inherited) <= limit("open files") <= min(at_most + spare, inherited)
    assert limit("processes") == threads
    running = sum(text(task, "comm").startswith(("iou-", "vhost-")) for task in tasks(pid))
    assert len(tasks(pid)) - running == 1 + queues


def attach(pid, become):
    """The error, or 0, with which a process that has done become() traces this one. It can trace one of its own."""
    child = os.fork()
    if child == 0:
        error = errno.EIO
        try:
            become()
            libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
            own = os.fork()
            if own == 0:
                signal.pause()
            able = libc.ptrace(PTRACE_SEIZE, own, None, None) == 0
            os.kill(own, signal.SIGKILL)
            if able:
                error = 0 if libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0 else ctypes.get_errno()
        finally:
            os._exit(error)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_untouchable(pid, sibling):
    """J13: refused to a process of the same user, and to one with all rights over a sibling, in its user namespace."""
    user, group = (int(status(pid)[name].split()[0]) for name in ("Uid", "Gid"))

    def be_the_user():
        if os.geteuid() == 0:
            os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        # Root's helper may be root: its equal has no rights either.
        header, none = struct.pack("<Ii", LINUX_CAPABILITY_VERSION_3, 0), bytes(24)
        assert libc.syscall(SYS_CAPSET, header, none) == 0

    def be_a_sibling():
        assert libc.setns(namespace, CLONE_NEWUSER) == 0
        os.setresgid(*sibling_ids[1])
        os.setresuid(*sibling_ids[0])

    assert attach(pid, be_the_user) == errno.EPERM
    if sibling is not None and os.geteuid() == 0:
        sibling_ids = [[int(status(sibling)[name].split()[0])] * 3 for name in ("Uid", "Gid")]
        namespace = os.open(f"/proc/{sibling}/ns/user", os.O_RDONLY)
        assert attach(pid, be_a_sibling) == errno.EPERM
        os.close(namespace)


def check_jail(pid, main, manifest_, caller=None, guest=True, sibling=None):
    """Of one process: the manifest of its kind. `main` made it, for this user, and perhaps a sibling."""
    queues, files = manifest_
    is_helper = vmm.name_of(pid) in HELPERS
    check_rights(pid, os.geteuid() if caller is None else caller)
    check_untouchable(pid, sibling)
    check_surroundings(pid, main, is_helper)
    vmm.comes_true(lambda: descriptors(pid) == files, 5)  # the end of the way to its parent is closed after its report
    assert descriptors(pid) == files  # J9, J10
    check_memory(pid, files[RING, os.O_RDWR], guest and not is_helper)
    check_limits(pid, main, queues, files)


def targets(pid):
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]


def belongings(pid):
    """What it has open and no other process would have by chance: files, devices, sockets by their numbers."""
    common = ("anon_inode:", "/memfd:crosvm-guest", "/null", "/dev/null", os.readlink(f"/proc/{pid}/fd/2"))
    return {target for target in targets(pid) if not target.startswith(common)}


def check_apart(main):
    """Nothing that a device's process holds is open in the one that made it, nor what such a process waits by."""
    for name, pid in vmm.processes(main):
        both = belongings(main) & belongings(pid)
        assert not both, (name, both)
    held = collections.Counter(targets(main))
    assert held[RING] == 0 and held[EPOLL] <= 1, held
    assert not [target for target in held if target.startswith(("/dev/net/", "/dev/vhost-"))], held


def check_main(pid):
    """J19: every thread but for the bounding set, which bounds nothing under no_new_privs."""
    for task in tasks(pid):
        fields = status(task)
        assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2"), fields["Name"]
    for fd in os.listdir(f"/proc/{pid}/fd"):
        assert not stat.S_ISDIR(os.stat(f"/proc/{pid}/fd/{fd}").st_mode)
    check_apart(pid)


# ---- a device that was taken over ----

def run_code(pid, code):
    """In place of all that a process may execute: no-operations that lead to `code`. Needs root."""
    block = code + bytes([0x90]) * (1024 - len(code))
    os.kill(pid, signal.SIGSTOP)
    vmm.wait_until(lambda: all(text(task, "stat").rsplit(")", 1)[1].split()[0] == "T" for task in tasks(pid)))
    # No thread may go on in the middle of it, nor where its system call, of two bytes, begins anew.
    places = [int(text(task, "syscall").split()[-1], 16) for task in tasks(pid)]
    shift = next(shift for shift in range(len(block))
                 if all((place - shift) % len(block) >= len(code) + 2 for place in places))
    block = block[len(block) - shift:] + block[:len(block) - shift]
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in text(pid, "maps").splitlines():
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if line.split()[1] == "r-xp" and "[v" not in line:
                memory.seek(start)
                memory.write(block * ((end - start) // len(block)))
    os.kill(pid, signal.SIGCONT)


REGISTERS = (7, 6, 2, 10, 8, 9)  # rdi, rsi, rdx, r10, r8, r9, as instructions have them
RESULT = object()  # an argument: what the call before returned


def system_call(number, *arguments):
    """Code that makes it. An argument is a number, RESULT, or bytes, of which the call gets the address."""
    strings = b"".join(argument for argument in arguments if isinstance(argument, bytes))
    code, at = b"\xeb" + bytes([len(strings)]) + strings, 2  # jmp
    for register, argument in zip(REGISTERS, arguments):
        high, low = register >> 3, register & 7
        if argument is RESULT:
            code += bytes([0x48 | high, 0x89, 0xc0 | low])  # mov %rax, register
        elif isinstance(argument, bytes):
            code += bytes([0x48 | high << 2, 0x8d, 0x05 | low << 3]) + struct.pack("<i", at - len(code) - 7)  # lea
            at += len(argument)
        else:
            code += bytes([0x48 | high, 0xc7, 0xc0 | low]) + struct.pack("<i", argument)  # mov
    return code + b"\x48\xc7\xc0" + struct.pack("<i", number) + b"\x0f\x05"


def end_with_error():
    """Code that ends the process with the error of the call before it; 0: none."""
    return (b"\x85\xc0\x78\x02\x31\xc0"  # test %eax, %eax; js 1f; xor %eax, %eax; 1:
            b"\xf7\xd8\x89\xc7\xb8\xe7\x00\x00\x00\x0f\x05")  # exit_group(-eax)


def call(number, *arguments):
    return system_call(number, *arguments) + end_with_error()


def sockets_of(pid):
    """A process's own sockets, as objects of ours: what is sent to them comes from it. Needs root."""
    pidfd = os.pidfd_open(pid)
    found = []
    for fd in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
        if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:"):
            copy = libc.syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)
            assert copy >= 0, os.strerror(ctypes.get_errno())
            found.append(socket.socket(fileno=copy))
    os.close(pidfd)
    return found
