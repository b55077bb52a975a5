# SPDX-License-Identifier: BSD-3-Clause
"""Debian packages for the tests, as any user and without touching the system.

apt does the work, so signatures are verified, but with a configuration, sources and state of its own
in the cache: what the machine has installed or pinned neither matters nor changes.
"""
import contextlib
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = os.environ.get("CROSVM_DEBIAN_MIRROR", "http://deb.debian.org")
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


class Error(Exception):
    """What failed and why, for the user."""


def cache():
    """The directory that holds everything made once."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = pathlib.Path(base, "crosvm")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(name):
    """Hold the cache's lock NAME: the second of two callers waits and then finds the work done."""
    path = cache() / "locks" / name
    path.parent.mkdir(exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def publish(dest, build):
    """Make directory DEST by build(temporary directory), once, and whole or not at all."""
    dest = pathlib.Path(dest)
    if dest.exists():
        return dest
    with locked(dest.name):
        if dest.exists():
            return dest
        # We hold the lock, so any of these is left over from a killed run.
        for old in dest.parent.glob("." + dest.name + ".tmp*"):
            shutil.rmtree(old, ignore_errors=True)
        tmp = pathlib.Path(tempfile.mkdtemp(prefix="." + dest.name + ".tmp", dir=dest.parent))
        try:
            tmp.chmod(0o755)
            build(tmp)
            os.rename(tmp, dest)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
    return dest


def run(argv, **kwargs):
    """Run a tool; its output appears only if it fails."""
    env = dict(os.environ, **kwargs.pop("env", {}))
    env.update(LC_ALL="C", PATH=env.get("PATH", "/usr/bin:/bin") + ":" + SBIN)
    argv = [str(a) for a in argv]
    try:
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", **kwargs)
    except FileNotFoundError:
        raise Error(f"{argv[0]}: not installed; see tests/host/packages") from None
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise Error(f"{' '.join(argv)}: exit status {done.returncode}:\n{tail}")
    return done.stdout


class Apt:
    """A private apt for one Debian release with its updates."""

    def __init__(self, suite):
        self.suite = suite
        self.dir = cache() / "apt" / suite
        self.conf = self.dir / "apt.conf"

    def _setup(self):
        for sub in ("lists/partial", "archives/partial", "etc/parts"):
            (self.dir / sub).mkdir(parents=True, exist_ok=True)
        (self.dir / "status").write_text("")
        sources = "".join(
            f"deb [signed-by={KEYRING}] {MIRROR}/{path} {suite} main\n"
            for path, suite in (("debian", self.suite), ("debian", self.suite + "-updates"),
                                ("debian-security", self.suite + "-security")))
        (self.dir / "sources.list").write_text(sources)
        # Of the machine's settings only the way to the network is kept: proxies and the like.
        net = run(["apt-config", "dump", "--no-empty", "Acquire"])
        net = "".join(line + "\n" for line in net.splitlines() if "::" in line and " " in line)
        self.conf.write_text(net + f"""
Dir "/";
Dir::Etc "{self.dir}/etc";
Dir::Etc::main "none";
Dir::Etc::parts "parts";
Dir::Etc::preferences "none";
Dir::Etc::preferencesparts "parts";
Dir::Etc::sourcelist "{self.dir}/sources.list";
Dir::Etc::sourceparts "parts";
Dir::State "{self.dir}";
Dir::State::lists "{self.dir}/lists";
Dir::State::status "{self.dir}/status";
Dir::State::extended_states "{self.dir}/extended_states";
Dir::Cache "{self.dir}";
Dir::Cache::archives "{self.dir}/archives";
Dir::Log "{self.dir}";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
""")

    def _run(self, *argv, **kwargs):
        return run(argv, env={"APT_CONFIG": str(self.conf)}, **kwargs)

    def update(self):
        """Fetch and verify the package lists."""
        if not os.path.exists(KEYRING):
            raise Error(f"{KEYRING}: missing; install debian-archive-keyring")
        self._setup()
        # Without Error-Mode a failed download is only a warning and stale or no lists are used.
        self._run("apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any")

    def field(self, package, name):
        """A control field of the newest version of PACKAGE."""
        text = self._run("apt-cache", "show", "--no-all-versions", package)
        for line in text.splitlines():
            if line.startswith(name + ":"):
                return line.split(":", 1)[1].strip()
        raise Error(f"{self.suite}: {package} has no {name}")

    def download(self, package, into):
        """Fetch one package; return its file."""
        self._run("apt-get", "-q", "download", package, cwd=into)
        return next(pathlib.Path(into).glob("*.deb"))

    def closure(self, packages):
        """Fetch PACKAGES and all they depend on; return the files."""
        shutil.rmtree(self.dir / "archives", ignore_errors=True)
        (self.dir / "archives/partial").mkdir(parents=True)
        self._run("apt-get", "-q", "-y", "--download-only", "install", *packages)
        return sorted((self.dir / "archives").glob("*.deb"))

    @contextlib.contextmanager
    def session(self):
        """Lock this apt and bring its lists up to date."""
        with locked("apt-" + self.suite):
            self.update()
            yield self
            shutil.rmtree(self.dir / "archives", ignore_errors=True)


def extract(deb, into):
    """Unpack a package's files; maintainer scripts never run."""
    run(["dpkg-deb", "-x", deb, into])


def unpack_with_libraries(suite, package, into):
    """A package and all that it depends on, side by side; its programs run by its own lib64/ld-linux-x86-64.so.2."""
    with Apt(suite).session() as apt:
        for sub in ("bin", "sbin", "lib", "lib64"):
            (into / "usr" / sub).mkdir(parents=True)
            (into / sub).symlink_to(f"usr/{sub}")
        for deb in apt.closure([package]):
            extract(deb, into)


def main(function, failed=1):
    """Run a command's main function; an Error becomes one message and the exit status `failed`."""
    try:
        sys.exit(function(sys.argv[1:]))
    except Error as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        sys.exit(failed)
    except KeyboardInterrupt:
        sys.exit(130)
