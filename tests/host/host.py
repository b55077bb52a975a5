# SPDX-License-Identifier: BSD-3-Clause
"""A nested test host: a virtual machine with working KVM that has this machine's files.

    with Host() as host:
        done = host.run(["uname", "-r"], timeout=10)
        print(done.returncode, done.stdout, done.stderr)

QEMU emulates the processor including its virtualization (SVM), so this works on any machine. Inside,
agent.c runs commands. They and we talk through a virtio-serial port, in frames:

    u32 length of payload, u8 type, u32 command id, payload     (little endian)

    to agent    START   u32 pty rows columns uid gid n, n * u32 group, u32 argc envc,
                        then NUL-terminated cwd, argv..., environment...
                STDIN   data; empty: end of input
                SIGNAL  u8 number, to the command's process group (SIGKILL: to all it started)
                RESIZE  u32 rows columns
    to us       HELLO   the agent runs
                STDOUT STDERR   data
                EXIT    u8 kind (0 ended, 1 killed, 2 not started), u32 status, signal or errno
                ACK     u32 bytes of input that the command took

At most INPUT_WINDOW bytes of input are on their way to a command unacknowledged, so that one that
does not read its input holds up no other.

Nothing can be left behind: QEMU has no file or socket with a name, and dies with the thread that
started the host (make it in the main thread).
"""
import base64
import errno
import hashlib
import os
import pathlib
import pwd
import signal
import socket
import struct
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
GUEST = HERE.parent.parent / "guest"
sys.path.insert(0, str(GUEST))
import debian  # noqa: E402

Error = debian.Error

START, STDIN, SIGNAL, RESIZE = range(1, 5)
HELLO, STDOUT, STDERR, EXIT, ACK = range(16, 21)
HEADER = struct.Struct("<IBI")
INPUT_WINDOW = 256 * 1024
INPUT_CHUNK = 32 * 1024

KERNEL = "generic-6.1"
QEMU_SUITE = "trixie"  # QEMU 7.2 hangs when two nested processors run a guest with two
MODULES = ("virtio_pci virtio_console virtio_rng virtio_net 9pnet_virtio 9p overlay kvm_amd tun vhost_net "
           "vhost_vsock bridge veth fuse loop").split()
SLOW_NS = 50  # per privileged instruction; hardware and TCG need less than 10, an interpreter 500 and more

# What a command inside sees of our environment. The rest describes this machine, not that one.
KEEP_ENV = ("HOME PATH USER LOGNAME SHELL LANG LANGUAGE TERM COLORTERM NO_COLOR TZ CI CC CXX V SAN "
            "SOURCE_DATE_EPOCH XDG_CACHE_HOME VIRTUAL_ENV").split()
KEEP_PREFIXES = ("LC_", "CROSVM_", "PYTEST_", "PYTHON", "GITHUB_", "ASAN_", "UBSAN_", "TSAN_", "MSAN_", "LLVM_")


def log(message):
    print(f"host: {message}", file=sys.stderr, flush=True)


def compile_static(source):
    """Compile one of our C programs into the cache, once for each content."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]

    def build(out):
        debian.run([os.environ.get("CC") or "gcc", "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-static",
                    "-o", out / source.stem, source])

    return debian.publish(debian.cache() / f"{source.stem}-{digest}", build) / source.stem


def probe():
    """(whether Linux guests run here directly, why)."""
    if os.environ.get("CROSVM_TEST_HOST") == "nested":
        return True, "inside the nested host"
    if not os.path.exists("/dev/kvm"):
        return False, "no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False, "no permission for /dev/kvm"
    done = subprocess.run([compile_static(HERE / "probe.c")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          text=True, check=False)
    answer = done.stdout.strip()
    if done.returncode:
        return False, f"KVM does not work: {answer or 'probe died'}"
    if float(answer) > SLOW_NS:
        return False, f"KVM is interpreted: {answer} ns a privileged instruction"
    return True, f"KVM is fast: {answer} ns a privileged instruction"


def environment(user=None):
    """The environment for commands inside."""
    env = {k: v for k, v in os.environ.items() if k in KEEP_ENV or k.startswith(KEEP_PREFIXES)}
    env["CROSVM_TEST_HOST"] = "nested"
    env.pop("CROSVM_HOST_MODE", None)  # it has done its work
    env.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    if user is not None and user != os.getuid():
        # Another user's directories would be in the way.
        env.pop("XDG_CACHE_HOME", None)
        try:
            entry = pwd.getpwuid(user)
            home = entry.pw_dir if os.path.isdir(entry.pw_dir) else "/tmp"
            env.update(HOME=home, USER=entry.pw_name, LOGNAME=entry.pw_name)
        except KeyError:
            env.update(HOME="/tmp", USER=str(user), LOGNAME=str(user))
    if not any(env["PATH"].endswith(p) for p in (":/sbin", ":/usr/sbin")):
        env["PATH"] += ":/usr/sbin:/sbin"
    return env


def identity(user):
    """(uid, gid, groups) for a command."""
    if user is None or user == os.getuid():
        return os.getuid(), os.getgid(), os.getgroups()
    try:
        entry = pwd.getpwuid(user)
        return user, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        return user, user, [user]


def qemu_root():
    """QEMU and all its libraries from a newer Debian, unpacked; runs without chroot."""

    def build(out):
        log("fetching QEMU, once")
        debian.unpack_with_libraries(QEMU_SUITE, "qemu-system-x86", out)

    return debian.publish(debian.cache() / f"qemu-{QEMU_SUITE}", build)


def qemu_command():
    """(argv, environment) that run that QEMU."""
    root = qemu_root()
    lib = root / "usr/lib/x86_64-linux-gnu"
    argv = [root / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", lib, root / "usr/bin/qemu-system-x86_64",
            "-L", root / "usr/share/qemu", "-L", root / "usr/share/seabios"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("LD_")}
    env["QEMU_MODULE_DIR"] = str(lib / "qemu")
    return [str(a) for a in argv], env


def initramfs(kernel):
    """The nested host's initramfs, made once for each content."""
    agent = compile_static(HERE / "agent.c")
    init = HERE / "init"
    parts = [init.read_bytes(), str(agent).encode(), " ".join(MODULES).encode(), (kernel / "version").read_bytes(),
             (GUEST / "mkinitramfs").read_bytes()]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]

    def build(out):
        debian.run([GUEST / "mkinitramfs", "-o", out / "initramfs.gz", "-i", init, "-f", f"{agent}:/agent",
                    "-m", kernel / "modules", *MODULES])

    return debian.publish(debian.cache() / f"host-{digest}", build) / "initramfs.gz"


def fetch_kernel(name):
    """Directory of a stock kernel."""
    return pathlib.Path(debian.run([GUEST / "fetch-kernel", name]).strip())


class Command:
    """A command that runs inside. Output goes to the callback on_output(stream, data), called from the
    host's reader thread; while it blocks, so does all output of that host."""

    def __init__(self, host, number, on_output):
        self.host = host
        self.number = number
        self.on_output = on_output
        self.returncode = None  # as subprocess has it: negative for a signal
        self.error = None  # errno if it did not start
        self.ended = threading.Event()
        self._unacknowledged = 0
        self._acknowledged = threading.Condition()

    def write(self, data):
        """Give it input; waits until it takes most of it. False if it has ended."""
        view = memoryview(data)
        while view:
            part, view = view[:INPUT_CHUNK], view[INPUT_CHUNK:]
            with self._acknowledged:
                self._acknowledged.wait_for(
                    lambda: self.ended.is_set() or self._unacknowledged + len(part) <= INPUT_WINDOW)
                if self.ended.is_set():
                    return False
                self._unacknowledged += len(part)
            self.host._send(STDIN, self.number, part)
        return True

    def close_input(self):
        self.host._send(STDIN, self.number)

    def signal(self, number):
        self.host._send(SIGNAL, self.number, bytes([number]))

    def resize(self, rows, columns):
        self.host._send(RESIZE, self.number, struct.pack("<II", rows, columns))

    def _frame(self, kind, data):
        if kind in (STDOUT, STDERR):
            self.on_output(kind, data)
        elif kind == ACK:
            with self._acknowledged:
                self._unacknowledged -= struct.unpack("<I", data)[0]
                self._acknowledged.notify_all()
        elif kind == EXIT:
            how, value = struct.unpack("<BI", data)
            if how == 2:
                self.error = value
            self._end((value, -value, 126 if value == errno.EACCES else 127)[how])

    def _end(self, returncode):
        self.returncode = returncode
        with self._acknowledged:
            self.ended.set()
            self._acknowledged.notify_all()


class Host:
    """A running nested host. Methods may be called from any thread."""

    def __init__(self, *, memory_mib=None, cpus=2, icount=False, shares=(), keep=(), boot_timeout=120):
        """shares: directories that commands may write for good; all other writes vanish with the host.
        keep: further directories under /tmp and /run that commands must see.
        memory_mib: by default 6144, or three quarters of this machine if that is less.
        icount: time is counted in instructions, so that measurements repeat; one processor."""
        self.qemu = None
        self._ready = threading.Event()
        self._lost = None
        self._commands = {}
        self._next = 1
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._console = os.memfd_create("console")
        self._socket, theirs = socket.socketpair()
        for side in (self._socket, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                side.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        try:
            with theirs:
                self._start(theirs.fileno(), memory_mib, cpus, icount, shares, keep)
            threading.Thread(target=self._read, daemon=True).start()
            if not self._ready.wait(boot_timeout):
                self._fail(f"the nested host did not start within {boot_timeout} s")
            self._check()
        except BaseException:
            self.close()
            raise

    def _start(self, port, memory_mib, cpus, icount, shares, keep):
        kernel = fetch_kernel(KERNEL)
        memory_mib = memory_mib or min(6144, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4 >> 20)
        argv, env = qemu_command()
        # Under /tmp and /run only these are visible inside; elsewhere all is.
        keep = [os.getcwd(), os.path.expanduser("~"), debian.cache().parent, GUEST.parent, *keep]
        keep = [p for p in (os.path.realpath(k) for k in keep) if p.startswith(("/tmp/", "/run/"))]
        shares = [os.path.realpath(s) for s in shares]
        cmdline = ["console=ttyS0", "quiet", "panic=-1", "mitigations=off", "nokaslr", "random.trust_cpu=on",
                   "no_timer_check", "audit=0", "module.sig_enforce=0"]
        for name, paths in (("keep", keep), ("share", shares)):
            text = "".join(p + "\n" for p in paths)
            cmdline.append(f"crosvm.{name}=" + base64.b64encode(text.encode()).decode())
        # 64 MiB of translated code: of the 1024 that it takes by itself most is stale, and guests are 1.5 times as slow.
        if icount:
            argv += ["-accel", "tcg,thread=single,tb-size=64", "-icount", "shift=1,sleep=off", "-smp", "1"]
        else:
            argv += ["-accel", "tcg,thread=multi,tb-size=64", "-smp", str(cpus)]

        def share(tag, path, readonly):
            path = str(path).replace(",", ",,")
            return ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,readonly={readonly},"
                    "multidevs=remap"]

        argv += ["-M", "q35", "-cpu", "max", "-m", str(memory_mib), "-nodefaults", "-display", "none", "-no-reboot",
                 "-chardev", f"file,id=console,path=/proc/self/fd/{self._console},append=on",
                 "-serial", "chardev:console",
                 "-device", "virtio-rng-pci",
                 # An interface with a default route, for programs that want one (passt); it leads nowhere.
                 "-netdev", "user,id=net,restrict=on,ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile=",
                 "-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={port}",
                 "-device", "virtserialport,chardev=agent,name=crosvm.agent",
                 *share("root", "/", "on"), *share("modules", (kernel / "modules").resolve(), "on")]
        for number, path in enumerate(shares):
            argv += share(f"share{number}", path, "off")
        # vmlinux, not vmlinuz: it would be decompressed at emulated speed.
        argv += ["-kernel", str(kernel / "vmlinux"), "-initrd", str(initramfs(kernel)), "-append", " ".join(cmdline)]
        # setpriv: the kernel kills QEMU when we die, however we die. Its own session: Ctrl-C is ours.
        self.qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], env=env, cwd="/",
                                     stdin=subprocess.DEVNULL, stdout=self._console, stderr=self._console,
                                     pass_fds=(port, self._console), start_new_session=True)

    def console(self):
        """What the nested host's kernel and QEMU said."""
        return os.pread(self._console, 1 << 20, 0).decode(errors="replace")

    def _fail(self, why):
        self._lost = self._lost or f"{why}; its last words:\n" + "\n".join(self.console().splitlines()[-15:])

    def _check(self):
        if self._lost:
            raise Error(self._lost)

    def _send(self, kind, number, data=b""):
        try:
            with self._send_lock:
                self._socket.sendall(HEADER.pack(len(data), kind, number) + data)
        except OSError:
            pass  # the reader notices and ends every command

    def _read(self):
        stream = self._socket.makefile("rb", buffering=1 << 18)
        try:
            while len(header := stream.read(HEADER.size)) == HEADER.size:
                length, kind, number = HEADER.unpack(header)
                data = stream.read(length)
                if kind == HELLO:
                    self._ready.set()
                    continue
                with self._lock:
                    command = self._commands.get(number)
                    if command and kind == EXIT:
                        del self._commands[number]
                if command:
                    command._frame(kind, data)
        except OSError:
            pass
        if self.qemu:
            try:
                self.qemu.wait(5)
            except subprocess.TimeoutExpired:
                pass
        self._fail("the nested host ended")
        self._ready.set()
        with self._lock:
            left, self._commands = self._commands, {}
        for command in left.values():
            command._end(255)

    def start(self, argv, on_output, *, user=None, cwd=None, env=None, pty=None):
        """Start a command; pty: None for pipes or (rows, columns)."""
        self._check()
        uid, gid, groups = identity(user)
        env = environment(user) if env is None else env
        argv = [os.fsencode(a) for a in argv]
        pairs = [os.fsencode(k) + b"=" + os.fsencode(v) for k, v in env.items()]
        rows, columns = pty or (0, 0)
        numbers = [pty is not None, rows, columns, uid, gid, len(groups), *groups, len(argv), len(pairs)]
        strings = [os.fsencode(cwd or os.getcwd()), *argv, *pairs]
        data = struct.pack(f"<{len(numbers)}I", *numbers) + b"".join(s + b"\0" for s in strings)
        with self._lock:
            command = Command(self, self._next, on_output)
            self._commands[self._next] = command
            self._next += 1
        self._send(START, command.number, data)
        if self._lost:
            command._end(255)
        return command

    def run(self, argv, *, timeout=None, input=b"", check=False, text=False, user=None, cwd=None, env=None):
        """subprocess.run(argv, capture_output=True, ...) inside. On timeout kills all it started."""
        out, err = bytearray(), bytearray()
        command = self.start(argv, lambda kind, data: (out if kind == STDOUT else err).extend(data),
                             user=user, cwd=cwd, env=env)
        if isinstance(input, str):
            input = input.encode()

        def feed():
            if command.write(input):
                command.close_input()

        if len(input) <= INPUT_WINDOW // 2:
            feed()
        else:
            threading.Thread(target=feed, daemon=True).start()
        timed_out = not command.ended.wait(timeout)
        if timed_out:
            command.signal(signal.SIGKILL)
            command.ended.wait(10)
        self._check()
        if command.error is not None:
            err += f"host: {argv[0]}: {os.strerror(command.error)}\n".encode()
        out, err = (bytes(b).decode(errors="replace") if text else bytes(b) for b in (out, err))
        if timed_out:
            raise subprocess.TimeoutExpired(argv, timeout, out, err)
        done = subprocess.CompletedProcess(argv, command.returncode, out, err)
        if check:
            done.check_returncode()
        return done

    def close(self):
        """End the host; nothing remains. What commands wrote to shares is in their files already."""
        if self.qemu:
            self.qemu.kill()
            self.qemu.wait()
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
