// SPDX-License-Identifier: BSD-3-Clause
// First process of the nested test host. Runs commands for host.py, which is at the other end of a
// virtio-serial port and is trusted: it is this machine's owner. The protocol is described in
// host.py.
//
// One poll loop. Output goes to the port only while its queue is short, so a slow reader stops the
// command, not us. Input is limited by the peer to INPUT_WINDOW bytes per command that are not
// acknowledged, so a command that does not read stops only itself.

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { START = 1, STDIN, SIGNAL, RESIZE };       // from host.py
enum { HELLO = 16, STDOUT, STDERR, EXIT, ACK };  // to host.py
enum { ENDED = 0, KILLED = 1, NOT_STARTED = 2 }; // first byte of EXIT
enum {
	HEADER = 9,
	CHUNK = 64 * 1024,
	QUEUE_MAX = 512 * 1024,
	FRAME_MAX = 4 * 1024 * 1024,
	COMMANDS_MAX = 64
};

struct buffer {
	uint8_t *data;
	size_t start, end, size;
};

struct command {
	uint32_t id;
	pid_t pid; // 0: free slot
	bool pty, input_ended, exited;
	int in, out, err; // -1: closed; with a pty in and out are the same file, opened twice
	int status;
	struct buffer input;
};

static struct command commands[COMMANDS_MAX];
static struct buffer to_port, from_port;
static int port = -1;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void buffer_add(struct buffer *b, const void *data, size_t length)
{
	if (b->start == b->end)
		b->start = b->end = 0;
	if (b->end + length > b->size && b->start) {
		memmove(b->data, b->data + b->start, b->end - b->start);
		b->end -= b->start;
		b->start = 0;
	}
	if (!b->data || b->end + length > b->size) {
		b->size = (b->end + length) * 2;
		b->data = realloc(b->data, b->size);
		if (!b->data)
			die("memory");
	}
	memcpy(b->data + b->end, data, length);
	b->end += length;
}

static size_t buffer_length(const struct buffer *b)
{
	return b->end - b->start;
}

static void send_frame(uint8_t type, uint32_t id, const void *data, size_t length)
{
	uint8_t header[HEADER];
	uint32_t le_length = htole32((uint32_t)length), le_id = htole32(id);
	memcpy(header, &le_length, 4);
	header[4] = type;
	memcpy(header + 5, &le_id, 4);
	buffer_add(&to_port, header, HEADER);
	if (length)
		buffer_add(&to_port, data, length);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void release(struct command *c)
{
	close_fd(&c->in);
	close_fd(&c->out);
	close_fd(&c->err);
	free(c->input.data);
	memset(c, 0, sizeof *c);
}

static struct command *find(uint32_t id)
{
	for (struct command *c = commands; c < commands + COMMANDS_MAX; c++)
		if (c->pid && c->id == id)
			return c;
	return NULL;
}

static void cgroup_path(char *path, size_t size, uint32_t id, const char *file)
{
	snprintf(path, size, "/sys/fs/cgroup/command-%u%s", id, file);
}

static void cgroup_write(uint32_t id, const char *file)
{
	char path[64];
	cgroup_path(path, sizeof path, id, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	// "0" to cgroup.procs is the writer itself; "1" to cgroup.kill kills all.
	ssize_t done = write(fd, strcmp(file, "/cgroup.kill") == 0 ? "1" : "0", 1);
	(void)done;
	close(fd);
}

static void nonblocking(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

// What START carries, decoded in place.
struct request {
	bool pty;
	uint32_t uid, gid, group_count;
	uint16_t rows, columns;
	gid_t groups[64];
	char *cwd;
	char **argv, **envp;
};

static uint32_t take_u32(const uint8_t **p)
{
	uint32_t value;
	memcpy(&value, *p, 4);
	*p += 4;
	return le32toh(value);
}

static char **take_strings(const uint8_t **p, uint32_t count)
{
	char **list = calloc(count + 1, sizeof *list);
	if (!list)
		die("memory");
	for (uint32_t i = 0; i < count; i++) {
		list[i] = (char *)(uintptr_t)*p;
		*p += strlen(list[i]) + 1;
	}
	return list;
}

static void decode(struct request *r, const uint8_t *p)
{
	r->pty = take_u32(&p);
	r->rows = (uint16_t)take_u32(&p);
	r->columns = (uint16_t)take_u32(&p);
	r->uid = take_u32(&p);
	r->gid = take_u32(&p);
	uint32_t given = take_u32(&p);
	for (uint32_t i = 0; i < given; i++) {
		uint32_t group = take_u32(&p);
		if (r->group_count < 64)
			r->groups[r->group_count++] = group;
	}
	uint32_t argc = take_u32(&p), envc = take_u32(&p);
	r->cwd = (char *)(uintptr_t)p;
	p += strlen(r->cwd) + 1;
	r->argv = take_strings(&p, argc);
	r->envp = take_strings(&p, envc);
}

// In the child. Does not return; errno of what failed goes through the pipe `failed`.
static void become(const struct request *r, uint32_t id, const int fds[3], int failed)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	cgroup_write(id, "/cgroup.procs");
	for (int i = 0; i < 3; i++)
		dup2(fds[i], i);
	if (r->pty)
		ioctl(0, TIOCSCTTY, 0);
	umask(022);
	if (setgroups(r->group_count, r->groups) == 0 && setresgid(r->gid, r->gid, r->gid) == 0 &&
		setresuid(r->uid, r->uid, r->uid) == 0 && chdir(r->cwd) == 0) {
		environ = r->envp;
		execvp(r->argv[0], r->argv);
	}
	int error = errno;
	ssize_t done = write(failed, &error, sizeof error);
	(void)done;
	_exit(127);
}

static int open_pty(const struct request *r, int ours[3], int theirs[3])
{
	struct winsize size = { .ws_row = r->rows, .ws_col = r->columns };
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0 || grantpt(master) || unlockpt(master))
		return -1;
	ioctl(master, TIOCSWINSZ, &size);
	int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -1;
	fchown(slave, r->uid, (gid_t)-1);
	ours[0] = fcntl(master, F_DUPFD_CLOEXEC, 0);
	ours[1] = master;
	ours[2] = -1;
	for (int i = 0; i < 3; i++)
		theirs[i] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
	close(slave);
	return 0;
}

static int open_pipes(const struct request *r, int ours[3], int theirs[3])
{
	for (int i = 0; i < 3; i++) {
		int ends[2];
		if (pipe2(ends, O_CLOEXEC))
			return -1;
		ours[i] = ends[i == 0 ? 1 : 0];
		theirs[i] = ends[i == 0 ? 0 : 1];
		// So that the command may open /dev/stdin and the like again.
		fchown(theirs[i], r->uid, (gid_t)-1);
	}
	return 0;
}

static void send_exit(uint32_t id, uint8_t kind, uint32_t value)
{
	uint8_t data[5] = { kind };
	value = htole32(value);
	memcpy(data + 1, &value, 4);
	send_frame(EXIT, id, data, sizeof data);
}

static void start(uint32_t id, const uint8_t *data)
{
	struct request r = { 0 };
	struct command *c = commands;
	int ours[3], theirs[3], failed[2], error = 0;
	decode(&r, data);
	while (c < commands + COMMANDS_MAX && c->pid)
		c++;
	if (c == commands + COMMANDS_MAX || pipe2(failed, O_CLOEXEC) ||
		(r.pty ? open_pty(&r, ours, theirs) : open_pipes(&r, ours, theirs))) {
		send_exit(id, NOT_STARTED, EAGAIN);
		goto out;
	}
	char path[64];
	cgroup_path(path, sizeof path, id, "");
	mkdir(path, 0755);
	pid_t pid = fork();
	if (pid == 0)
		become(&r, id, theirs, failed[1]);
	error = pid < 0 ? errno : 0;
	for (int i = 0; i < 3; i++)
		close(theirs[i]);
	close(failed[1]);
	if (!error && read(failed[0], &error, sizeof error) != sizeof error)
		error = 0;
	close(failed[0]);
	*c = (struct command){
		.id = id, .pid = pid, .pty = r.pty, .in = ours[0], .out = ours[1], .err = ours[2]
	};
	if (error) {
		send_exit(id, NOT_STARTED, (uint32_t)error);
		rmdir(path);
		release(c); // the child is reaped as an orphan
	} else {
		for (int i = 0; i < 3; i++)
			if (ours[i] >= 0)
				nonblocking(ours[i]);
	}
out:
	free(r.argv);
	free(r.envp);
}

static void send_signal(const struct command *c, int number)
{
	// All it started, including what left its process group.
	if (number == SIGKILL)
		cgroup_write(c->id, "/cgroup.kill");
	kill(-c->pid, number);
}

static void handle(uint8_t type, uint32_t id, const uint8_t *data, size_t length)
{
	if (type == START) {
		start(id, data);
		return;
	}
	struct command *c = find(id);
	if (!c) // it ended meanwhile
		return;
	if (type == STDIN && length) {
		buffer_add(&c->input, data, length);
	} else if (type == STDIN) {
		c->input_ended = true;
	} else if (type == SIGNAL) {
		send_signal(c, data[0]);
	} else if (type == RESIZE && c->pty) {
		struct winsize size = { .ws_row = (uint16_t)take_u32(&data) };
		size.ws_col = (uint16_t)take_u32(&data);
		ioctl(c->out, TIOCSWINSZ, &size);
	}
}

static void read_port(void)
{
	static uint8_t chunk[CHUNK];
	ssize_t got = read(port, chunk, sizeof chunk);
	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
		die("host.py is gone");
	if (got < 0)
		return;
	buffer_add(&from_port, chunk, (size_t)got);
	while (buffer_length(&from_port) >= HEADER) {
		const uint8_t *frame = from_port.data + from_port.start, *p = frame + 5;
		const uint8_t *q = frame;
		uint32_t length = take_u32(&q), id = take_u32(&p);
		if (length > FRAME_MAX)
			die("bad frame");
		if (buffer_length(&from_port) < HEADER + length)
			break;
		from_port.start += HEADER + length;
		handle(frame[4], id, frame + HEADER, length);
	}
}

static void write_port(void)
{
	while (buffer_length(&to_port)) {
		ssize_t done = write(port, to_port.data + to_port.start, buffer_length(&to_port));
		if (done < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (done <= 0)
			die("host.py is gone");
		to_port.start += (size_t)done;
	}
}

// Send one chunk of what the command wrote. Returns whether there was any.
static bool read_output(struct command *c, int *fd, uint8_t type)
{
	static uint8_t chunk[CHUNK];
	if (*fd < 0)
		return false;
	ssize_t got = read(*fd, chunk, sizeof chunk);
	if (got > 0)
		send_frame(type, c->id, chunk, (size_t)got);
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		close_fd(fd); // EIO: nobody holds the pty any more
	return got > 0;
}

static void write_input(struct command *c)
{
	if (buffer_length(&c->input)) {
		ssize_t done =
			write(c->in, c->input.data + c->input.start, buffer_length(&c->input));
		if (done < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		// A command that closed its input loses it, as with a pipe; it is acknowledged all
		// the same.
		size_t used = done < 0 ? buffer_length(&c->input) : (size_t)done;
		if (done < 0)
			close_fd(&c->in);
		c->input.start += used;
		uint32_t ack = htole32((uint32_t)used);
		send_frame(ACK, c->id, &ack, sizeof ack);
	}
	if (c->input_ended && !buffer_length(&c->input) && !c->pty)
		close_fd(&c->in);
}

static void reap(void)
{
	int status;
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
		for (struct command *c = commands; c < commands + COMMANDS_MAX; c++)
			if (c->pid == pid) {
				c->exited = true;
				c->status = status;
			}
}

// The command has ended: send what is left in its pipes, but do not wait for daemons that hold
// them.
static void finish(struct command *c)
{
	while (buffer_length(&to_port) < QUEUE_MAX)
		if (!read_output(c, &c->out, STDOUT) && !read_output(c, &c->err, STDERR)) {
			if (WIFSIGNALED(c->status))
				send_exit(c->id, KILLED, (uint32_t)WTERMSIG(c->status));
			else
				send_exit(c->id, ENDED, (uint32_t)WEXITSTATUS(c->status));
			char path[64];
			cgroup_path(path, sizeof path, c->id, "");
			rmdir(path); // stays while a daemon of the command lives
			release(c);
			return;
		}
}

static int watch(struct pollfd *polls, int signals)
{
	int count = 0;
	bool room = buffer_length(&to_port) < QUEUE_MAX;
	polls[count++] = (struct pollfd){ .fd = port, .events = POLLIN };
	if (buffer_length(&to_port))
		polls[0].events |= POLLOUT;
	polls[count++] = (struct pollfd){ .fd = signals, .events = POLLIN };
	for (struct command *c = commands; c < commands + COMMANDS_MAX; c++) {
		// Negative descriptors are ignored, which keeps three places for each command.
		bool more = c->pid && (buffer_length(&c->input) || c->input_ended);
		polls[count++] =
			(struct pollfd){ .fd = c->pid && more ? c->in : -1, .events = POLLOUT };
		polls[count++] =
			(struct pollfd){ .fd = c->pid && room ? c->out : -1, .events = POLLIN };
		polls[count++] =
			(struct pollfd){ .fd = c->pid && room ? c->err : -1, .events = POLLIN };
	}
	return count;
}

static void serve_commands(const struct pollfd *polls)
{
	for (size_t i = 0; i < COMMANDS_MAX; i++) {
		struct command *c = &commands[i];
		const struct pollfd *p = polls + 3 * i;
		if (p[0].revents)
			write_input(c);
		if (p[1].revents)
			read_output(c, &c->out, STDOUT);
		if (p[2].revents)
			read_output(c, &c->err, STDERR);
	}
}

static void serve(int signals)
{
	static struct pollfd polls[2 + 3 * COMMANDS_MAX];
	for (;;) {
		int count = watch(polls, signals);
		if (poll(polls, (nfds_t)count, -1) < 0 && errno != EINTR)
			die("poll");
		serve_commands(polls + 2);
		if (polls[1].revents) {
			struct signalfd_siginfo info;
			while (read(signals, &info, sizeof info) > 0)
				;
			reap();
		}
		if (polls[0].revents & ~POLLOUT)
			read_port();
		for (struct command *c = commands; c < commands + COMMANDS_MAX; c++)
			if (c->pid && c->exited && buffer_length(&to_port) < QUEUE_MAX)
				finish(c);
		write_port();
	}
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	int signals = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
	port = open(argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (port < 0 || signals < 0)
		die(argv[1]);
	send_frame(HELLO, 0, NULL, 0);
	serve(signals);
}
