# SPDX-License-Identifier: BSD-3-Clause
"""Linux guests with a network: taps in a namespace of the test's own, served by us and by the kernel."""
import contextlib
import fcntl
import hashlib
import http.server
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pexpect
import pytest
import smaps
import vm
from netns import in_network, own_network

HOST, GUEST, MASK = "192.168.77.1", "192.168.77.2", "255.255.255.0"
MAC = "02:12:34:56:78:9a"
SIZE = 4 << 20
LARGE = 64 << 20
NEAR, FAR, NAME = "10.9.8.7", "10.9.8.1", "far.example"
NEAR_6, FAR_6 = "fd09:8::7", "fd09:8::1"
SECOND = "10.9.8.77"  # another address of this host
USER = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes taps and a network namespace")


@pytest.fixture(scope="module", autouse=True)
def namespace():
    with own_network():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield


def network(vhost="off", more=""):
    return ["--net", f"host-ip={HOST},netmask={MASK},mac={MAC},vhost={vhost}{more}"]


UP = f"ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up && "
# The host's side takes up to a second to see that its tap has somebody, and drops what it has for it until then.
REACH = f"for try in 1 2 3 4 5; do ping -c 1 -W 2 {HOST} >/dev/null && break; done; "


def shell(script):
    subprocess.run(script, shell=True, check=True)


@pytest.fixture
def unprivileged():
    """Makes of a command line one of an ordinary user, who cannot see into root's directories."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)

        def wrap(argv):
            files = [arg for arg in argv if os.path.isfile(arg)]
            for number, file in enumerate(files):
                copy = os.path.join(directory, f"{number}-{os.path.basename(file)}")
                shutil.copy(file, copy)
                os.chmod(copy, 0o755)
                argv = [copy if arg == file else arg for arg in argv]
            return ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", *argv]

        yield wrap


class Server:
    """Gives one file over HTTP, and answers what is sent to it with its checksum."""

    def __init__(self, data, address="0.0.0.0"):
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, body):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.answer(data)

            def do_POST(self):
                received = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(hashlib.sha256(received).hexdigest().encode() + b"\n")

            def log_message(self, *_):
                pass

        class Listener(http.server.ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        # A tap's address comes only with the VM.
        self.server = Listener((address, 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://{HOST}:{self.port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def post(server, host=HOST):
    """What a guest runs to send /got."""
    head = f"POST / HTTP/1.0\\r\\nContent-Length: {SIZE}\\r\\n\\r\\n"
    return f'(printf "{head}"; cat /got) | nc {host} {server.port} | tail -n 1'


@contextlib.contextmanager
def serving(data, **options):
    server = Server(data, **options)
    try:
        yield server
    finally:
        server.close()


# Each binding of the driver resets the device and starts its rings anew.
REBIND = ("cd /sys/bus/virtio/drivers/virtio_net && dev=$(ls -d virtio*) && "
          "for i in 1 2 3; do echo $dev >unbind && echo $dev >bind || exit 1; done; ")


@pytest.mark.parametrize("options, vhost", [
    pytest.param((), "off", id="threads", marks=pytest.mark.soak), pytest.param(("-u",), "off", id="jailed"),
    pytest.param(("-u",), "on", id="vhost",
                 marks=pytest.mark.skipif(not os.path.exists("/dev/vhost-net"), reason="the host has no vhost-net"))])
def test_both_ways_until_the_tap_vanishes(initrd, options, vhost):
    """The driver comes and goes; megabytes to the guest and from it by TCP, a large ping, and the MAC that was asked
    for. Then the tap is deleted in the middle of a transfer both ways: the guest loses its network, and nothing else."""
    data = os.urandom(SIZE)
    with serving(data) as server, contextlib.closing(Load(SIZE)) as load:
        script = (REBIND + UP + f"cat /sys/class/net/eth0/address && {REACH} ping -c 3 -s 8000 {HOST} && "
                  f"wget -q -O /got {server.url} && sha256sum /got && {post(server)}; echo through; "
                  f"(nc {HOST} {load.port} </dev/zero >/dev/null &); read line; echo alive")
        argv = vm.command("small", initrd, script=script, cpus=2, options=[*network(vhost), *options])
        with vm.piped(argv) as (process, console):
            said = "\n" + vm.expect(console, "through")
            assert f"\n{MAC}\n" in said
            assert " 0% packet loss" in said
            assert said.count(hashlib.sha256(data).hexdigest()) == 2
            assert load.flowing.wait(vm.TIMEOUT)
            subprocess.run(["ip", "link", "delete", "vmtap0"], check=True)
            # What the guest has in flight still goes; then it waits longer and longer for an answer.
            assert any(cpu_of_a_second(process.pid) < 0.5 for _ in range(10))
            vm.press_return(process)
            vm.expect(console, "alive")
            assert process.wait(vm.TIMEOUT) == vm.OK
            # The kernel says nothing to us, and is not asked.
            assert process.stderr.read().count(b"vmtap0: File descriptor in bad state; "
                                               b"the guest has no network any more") == (vhost == "off")


def test_words_of_the_first_crosvm(tmp_path):
    """--host_ip, --netmask and --mac, and the host reaches the guest, which has Debian's own driver."""
    modules = pathlib.Path(vm.kernel("cloud-6.1")).parent / "modules"
    initrd = vm.make_initramfs(tmp_path / "initrd.gz", "-m", str(modules), "virtio_pci", "virtio_net")
    argv = vm.command("cloud-6.1", initrd, script=UP + "nc -l -p 7 -e cat",
                      options=["--host_ip", HOST, "--netmask", MASK, "--mac", MAC])
    with vm.piped(argv) as (process, console):
        text = b"to the guest and back"
        for _ in range(vm.TIMEOUT):
            with contextlib.suppress(OSError), socket.create_connection((GUEST, 7), timeout=1) as peer:
                peer.settimeout(vm.TIMEOUT)
                peer.sendall(text)
                assert peer.recv(100) == text
                break
        assert process.wait(vm.TIMEOUT) == vm.OK


@pytest.fixture(scope="module")
def tools_initrd(tmp_path_factory):
    return vm.make_initramfs(tmp_path_factory.mktemp("tools") / "initrd.gz",
                             *vm.with_program("iperf3"), *vm.with_program("ethtool"))


@contextlib.contextmanager
def iperf3_server():
    process = subprocess.Popen(["iperf3", "-s"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def offloads(name):
    text = subprocess.run(["ethtool", "-k", name], check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(re.findall(r"^\s*([a-z0-9-]+): (on|off)", text, re.MULTILINE))


@pytest.mark.parametrize("options", vm.THREADS_IN_SOAK)
def test_several_queues_and_offloads(tools_initrd, options):
    """What Linux does not want any more (CTRL_GUEST_OFFLOADS), the tap does not give it; the same later on again.
    As many pairs as processors, which the driver turns on by the control queue; four streams each way at once."""
    data = os.urandom(SIZE)
    with serving(data) as server, iperf3_server():
        script = (UP + REACH + "for state in off on; do ethtool -K eth0 rx-gro-hw $state && "
                  f"ping -c 1 {HOST} >/dev/null && echo gro $state && read line; done; "
                  "ls /sys/class/net/eth0/queues && for i in 1 2 3 4; do "
                  f"wget -q -O - {server.url} | sha256sum & done; wait; "
                  f"iperf3 -c {HOST} -P 4 -t 2 --bidir | grep SUM.*receiver; echo through")
        argv = vm.command("small", tools_initrd, script=script, cpus=4, options=[*network(more=",queues=4"), *options])
        with vm.piped(argv) as (process, console):
            for state in ("off", "on"):
                vm.expect(console, f"gro {state}")
                now = offloads("vmtap0")
                assert (now["tx-tcp-segmentation"], now["tx-tcp6-segmentation"]) == (state, state)
                assert now["tx-checksumming"] == "on"
                vm.press_return(process)
            said = vm.expect(console, "through")
            assert process.wait(vm.TIMEOUT) == vm.OK
    assert re.findall(r"rx-\d", said) == ["rx-0", "rx-1", "rx-2", "rx-3"]
    assert said.count(hashlib.sha256(data).hexdigest()) == 4
    moved = re.findall(r"([TR]X)-C.* sec +([\d.]+) [KMG]Bytes", said)
    assert {way for way, amount in moved if float(amount) > 0} == {"TX", "RX"}, said


TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454ca, 0x2, 0x1000, 0x4000


@contextlib.contextmanager
def given_tap(mtu):
    """The descriptor of a tap that is set up."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"given0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    shell(f"ip link set given0 mtu {mtu} up && ip addr add {HOST}/24 dev given0")
    try:
        yield fd
    finally:
        os.close(fd)


def test_stalled_guest_under_a_flood(initrd):
    """Packets without end for a guest that is off the network: no memory, no spin; then it works. On a tap that the
    parent opened, with a larger packet, of which the guest is told."""
    script = (UP + "ip link set eth0 down; echo mtu $(cat /sys/class/net/eth0/mtu) down; read line; ip link set eth0 up; "
              + REACH + "ping -c 2 -s 3900 " + HOST)
    with given_tap(4000) as fd:
        argv = vm.command("small", initrd, script=script, options=["--net", f"tap-fd={fd},mtu=4000,mac={MAC},vhost=off"])
        with vm.piped(argv, pass_fds=[fd]) as (process, console):
            vm.expect(console, "mtu 4000 down")
            subprocess.run(["ip", "neigh", "replace", GUEST, "lladdr", MAC, "dev", "given0"], check=True)
            memory, used = smaps.own_kib(process.pid, "Rss"), cpu_seconds(process.pid)
            end = time.monotonic() + 30
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
                while time.monotonic() < end:
                    with contextlib.suppress(OSError):
                        flood.sendto(b"x" * 1400, (GUEST, 9))
            assert smaps.own_kib(process.pid, "Rss") - memory < 1024
            assert cpu_seconds(process.pid) - used < 1
            vm.press_return(process)
            vm.expect(console, " 0% packet loss")
            assert process.wait(vm.TIMEOUT) == vm.OK


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_a_second(pid):
    before = cpu_seconds(pid)
    time.sleep(1)
    return cpu_seconds(pid) - before


class Load:
    """Sends to one client without end, and takes all that it sends: neither waits for the other, or both might for good."""

    def __init__(self, enough):
        self.listener = socket.create_server(("0.0.0.0", 0))
        self.port = self.listener.getsockname()[1]
        self.enough = enough
        self.flowing = threading.Event()  # so much came
        self.threads = [threading.Thread(target=self.receive, daemon=True)]
        self.threads[0].start()

    def receive(self):
        done = 0
        with contextlib.suppress(OSError):
            self.peer, _ = self.listener.accept()
            self.threads.append(threading.Thread(target=self.send, daemon=True))
            self.threads[1].start()
            while data := self.peer.recv(65536):
                done += len(data)
                if done >= self.enough:
                    self.flowing.set()

    def send(self):
        with contextlib.suppress(OSError):
            while True:
                self.peer.sendall(bytes(65536))

    def close(self):
        # Who waits in accept() or sendall() is woken by a shutdown, not by a close.
        for end in (self.listener, getattr(self, "peer", None)):
            with contextlib.suppress(OSError):
                end and end.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()


def test_a_tap_of_the_user(initrd, unprivileged):
    """An ordinary user on a tap that root made for them; and a second VM on it is refused."""
    shell(f"ip tuntap add mine mode tap user {USER} && ip addr add {HOST}/24 dev mine && ip link set mine up")
    argv = unprivileged(vm.command("small", initrd, script=UP + REACH + f"ping -c 2 {HOST}; echo ready; read line",
                                   options=["--net", "tap-name=mine"]))
    try:
        with vm.piped(argv) as (process, console):
            assert os.stat(f"/proc/{process.pid}").st_uid == USER
            vm.expect(console, " 0% packet loss")
            vm.expect(console, "ready")
            second = vm.run(argv)
            assert second.status == vm.HOST
            assert "another program has it open" in second.stderr
            vm.press_return(process)
            assert process.wait(vm.TIMEOUT) == vm.OK
    finally:
        shell("ip link delete mine")


# ---- passt: no privileges -----------------------------------------------------------


@pytest.fixture
def uplink():
    """The way to the world, which passt copies. Yields the network namespace of the one machine there."""
    with own_network():
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    shell(f"ip link add up0 type veth peer name up1 netns /proc/{os.getpid()}/fd/{namespace}")
    with in_network(namespace):
        shell(f"ip addr add {FAR}/24 dev up1 && ip addr add {FAR_6}/64 dev up1 nodad && ip link set up1 up")
    shell(f"ip addr add {NEAR}/24 dev up0 && ip addr add {SECOND}/24 dev up0 && ip addr add {NEAR_6}/64 dev up0 nodad && ip link set up0 up && "
          f"ip route add default via {FAR} && ip -6 route add default via {FAR_6}")
    yield namespace
    shell("ip link delete up0")  # not by the end of the namespace, which may come late
    os.close(namespace)


USER_UP = "ip link set eth0 up && udhcpc -q -n -i eth0 -s /udhcpc >/dev/null && "


@pytest.fixture(scope="module")
def dhcp_initrd(tmp_path_factory):
    """udhcpc sets nothing by itself."""
    directory = tmp_path_factory.mktemp("dhcp")
    script = directory / "udhcpc"
    script.write_text("#!/bin/sh\n[ $1 = bound ] || exit 0\nip addr add $ip/${mask:-24} dev $interface\n"
                      "ip route add default via $router dev $interface\n"
                      "for i in $dns; do echo nameserver $i; done >/etc/resolv.conf\necho lease $ip\n")
    script.chmod(0o755)
    return vm.make_initramfs(directory / "initrd.gz", "-f", f"{script}:/udhcpc")


class Resolver:
    """Answers every question for an IPv4 address with FAR, and says that there is nothing else."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                query, peer = self.socket.recvfrom(512)
                if not query:
                    return
                name_end = query.index(0, 12) + 1
                address = query[name_end:name_end + 2] == b"\0\1"
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(FAR)
                self.socket.sendto(query[:2] + b"\x81\x80\0\1\0" + bytes([address]) + b"\0\0\0\0"
                                   + query[12:name_end + 4] + (answer if address else b""), peer)

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


def exchange(address, data):
    """Sends all, and what came back."""
    with socket.create_connection(address, timeout=vm.TIMEOUT) as peer:
        def send():
            with contextlib.suppress(OSError):
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        received = b"".join(iter(lambda: peer.recv(65536), b""))
        sender.join()
    return received


def echo(address, data):
    """What came back. passt takes a connection that nobody in the guest listens for yet, and resets it."""
    received = b""
    end = time.monotonic() + vm.TIMEOUT
    while received == b"" and time.monotonic() < end:
        with contextlib.suppress(ConnectionError):
            received = exchange(address, data)
    return received


FORWARDS = "forward=tcp:127.0.0.1:8080-:80,forward=tcp:[::1]:8081-:81,forward=udp:127.0.0.1:8082-:7"
PROBE = ("probe() { nc -w 2 $1 $2 </dev/null >/dev/null && echo $1 is reached || echo $1 is not reached; }; "
         # As a guest does that wants in: without loopback of its own it sends such packets to the network.
         # Nothing listens to them, which the kernel counts.
         "datagrams() { sed -n 's/^Udp: [0-9]* \\([0-9]*\\).*/\\1/p' /proc/net/snmp; }; "
         "away() { ip link set lo down; echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet; probe $1 $2; ip link set lo up; }; ")


def says_resolver(directory, address):
    """A command line that runs another one where /etc/resolv.conf names this resolver."""
    resolv_conf = directory / "resolv.conf"
    resolv_conf.write_text(f"nameserver {address}\n")
    return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolv_conf)]


@pytest.fixture
def newer_passt():
    """A command line that runs another one where passt serves rings, and any user may read it."""
    cached = vm.debian.cache() / "passt-trixie"
    if not cached.exists():
        pytest.skip("no newer passt: run guest/fetch-passt")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        copy = shutil.copytree(cached, os.path.join(directory, "passt"), symlinks=True)
        yield ["env", f"PATH={copy}/run:{os.environ['PATH']}"]


@pytest.mark.parametrize("options, passt, size", [
    pytest.param((), "frames", SIZE, id="threads", marks=pytest.mark.soak), pytest.param(("-u",), "frames", SIZE, id="jailed"),
    pytest.param(("-u",), "rings", LARGE, id="vhost"),
    pytest.param(("-u",), "frames", LARGE, id="large", marks=pytest.mark.soak)])
def test_user_network(request, dhcp_initrd, uplink, unprivileged, tmp_path, options, passt, size):
    """An ordinary user's guest, on a host whose resolver is on its loopback: an address by DHCP, a large download by
    name as apt does it, the same by IPv6; what it reaches of the host; forwards of each kind to servers in it. Then
    passt dies: of frames that is said once, and the guest goes on; with the rings the device is lost."""
    net, newer = "user", []
    if passt == "rings":
        net, newer = f"user,vhost=on,mac={MAC},mtu=9000", request.getfixturevalue("newer_passt")
    data = os.urandom(size)
    with in_network(uplink):
        far = Server(data, "::")  # which takes IPv4, too
    with contextlib.ExitStack() as stack:
        far = stack.enter_context(contextlib.closing(far))
        stack.enter_context(contextlib.closing(Resolver("127.0.0.53")))
        second = stack.enter_context(serving(b"seen", address=SECOND))
        own = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        own.setblocking(False)
        port = own.getsockname()[1]
        script = (USER_UP + f"ip addr show dev eth0; wget -q -O /got http://{NAME}:{far.port}/; sha256sum /got; "
                  "until ip -6 route | grep -q ^default && ! ip -6 addr | grep -q tentative; do sleep 0.1; done; "
                  f"ip -6 addr show dev eth0; wget -q -O - http://[{FAR_6}]:{far.port}/ | head -c 100000 | sha256sum; "
                  + PROBE + f"probe {SECOND} {second.port}; probe {FAR} {port}; away 127.0.0.1 {port}; "
                  "(while :; do nc -l -p 80 -e cat; done &); (while :; do nc -l -p 81 -e cat; done &); "
                  "lost=$(datagrams); echo up; while [ $(datagrams) = $lost ]; do sleep 0.1; done; echo datagram; "
                  "read line; echo alive")
        argv = vm.command("small", dhcp_initrd, script=script, options=["--net", f"{net},{FORWARDS}", *options])
        with vm.piped([*says_resolver(tmp_path, "127.0.0.53"), *newer, *unprivileged(argv)]) as (process, console):
            said = vm.expect(console, "\nup\r\n")
            assert f"inet {NEAR}" in said
            assert passt == "frames" or (f"link/ether {MAC}" in said and "mtu 9000" in said), said
            assert f"{hashlib.sha256(data).hexdigest()}  /got" in said, said
            assert f"{hashlib.sha256(data[:100000]).hexdigest()}  -" in said, said
            assert f"{SECOND} is reached" in said, said
            assert said.count("is not reached") == 2, said
            with pytest.raises(BlockingIOError):
                own.accept()
            assert hashlib.sha256(echo(("127.0.0.1", 8080), data)).digest() == hashlib.sha256(data).digest()
            assert echo(("::1", 8081), b"by IPv6") == b"by IPv6"
            send_until(("127.0.0.1", 8082), lambda: console.expect_exact(["datagram", pexpect.TIMEOUT], timeout=0.2) == 0)
            [pid] = subprocess.run(["pgrep", "-P", str(process.pid)], stdout=subprocess.PIPE, check=True).stdout.split()[:1]
            os.kill(int(pid), signal.SIGKILL)
            if passt == "frames":
                vm.press_return(process)
                vm.expect(console, "alive")
            assert process.wait(vm.TIMEOUT) == (vm.OK if passt == "frames" else vm.DEVICE)
            said = process.stderr.read()
            assert said.count(b"the guest has no network any more" if passt == "frames" else b"the device is lost") == 1, said
    assert not os.path.exists(f"/proc/{int(pid)}"), "passt is reaped"


def send_until(address, arrived):
    end = time.monotonic() + vm.TIMEOUT
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"a datagram", address)
        while not arrived():
            assert time.monotonic() < end
            datagrams.sendto(b"a datagram", address)


def test_without_passt(dhcp_initrd, tmp_path):
    argv = vm.command("small", dhcp_initrd, options=["--net", "user"])
    done = subprocess.run(argv, env={"PATH": str(tmp_path)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=vm.TIMEOUT)
    assert done.returncode == vm.HOST
    assert b"apt install passt" in done.stderr
