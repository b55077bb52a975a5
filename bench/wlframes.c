// SPDX-License-Identifier: BSD-3-Clause
/*
 * A Wayland client that draws as fast as its compositor takes it: each frame
 * is written whole into one of two shared-memory buffers, attached, committed,
 * and answered (wl_display.sync) before the next. Static and without libwayland,
 * so that the same program runs on the host and in a guest.
 *
 *	wlframes WIDTH HEIGHT SECONDS        needs XDG_RUNTIME_DIR and WAYLAND_DISPLAY
 *
 * Prints frames a second, and how many. What is drawn is not looked at: see tests/vm/test_wl.py.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Our objects, in the order in which they are made, as libwayland wants it. */
enum {
	DISPLAY = 1,
	REGISTRY,
	CALLBACK, /* again and again */
	COMPOSITOR,
	SHM,
	WM_BASE,
	SURFACE,
	XDG_SURFACE,
	TOPLEVEL,
	POOL,
	BUFFERS, /* and those behind it */
};

enum { MESSAGE_MAX = 4096, BUFFER_COUNT = 2, XRGB8888 = 1 };

static int connection;
static uint32_t names[WM_BASE + 1]; /* of the globals */
static uint32_t configured;         /* the serial; 0: not yet */
static bool answered;

static void check(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "wlframes: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* A request of `count` words, with a descriptor or -1. */
static void say_with(
	int fd, uint32_t object, uint32_t opcode, const uint32_t *words, uint32_t count)
{
	uint32_t message[64] = { object, (8 + 4 * count) << 16 | opcode };
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec iov = { message, 8 + 4 * count };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count > 0)
		memcpy(message + 2, words, 4 * count);
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	if (fd >= 0) {
		header.msg_control = &control;
		header.msg_controllen = sizeof(control);
	}
	check(sendmsg(connection, &header, MSG_NOSIGNAL) == (ssize_t)iov.iov_len, "send");
}

#define SAY(object, opcode, ...)                                                                   \
	say_with(-1, object, opcode, (const uint32_t[]){ __VA_ARGS__ },                            \
		sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4)

static void note_global(const uint32_t *body)
{
	static const char *const interfaces[] = {
		[COMPOSITOR] = "wl_compositor", [SHM] = "wl_shm", [WM_BASE] = "xdg_wm_base"
	};

	for (int i = COMPOSITOR; i <= WM_BASE; i++)
		if (strcmp((const char *)(body + 2), interfaces[i]) == 0)
			names[i] = body[0];
}

static void hear(uint32_t object, uint32_t opcode, const uint32_t *body)
{
	if (object == DISPLAY && opcode == 0) {
		fprintf(stderr, "wlframes: the compositor says of object %u: %s\n", body[0],
			(const char *)(body + 3));
		exit(1);
	}
	if (object == REGISTRY && opcode == 0)
		note_global(body);
	else if (object == WM_BASE)
		SAY(WM_BASE, 3, body[0]); /* pong */
	else if (object == XDG_SURFACE)
		configured = body[0];
	else if (object == CALLBACK)
		answered = true;
}

static void listen_once(void)
{
	static uint32_t buffer[MESSAGE_MAX];
	static size_t have;
	ssize_t n = recv(connection, (char *)buffer + have, sizeof(buffer) - have, 0);

	check(n > 0, "the compositor is gone");
	have += (size_t)n;
	const uint32_t *at = buffer;

	while (have >= 8 && have >= at[1] >> 16) {
		size_t size = at[1] >> 16;

		hear(at[0], at[1] & 0xffff, at + 2);
		at += size / 4;
		have -= size;
	}
	memmove(buffer, at, have);
}

/* All that was said is done. */
static void sync_display(void)
{
	answered = false;
	SAY(DISPLAY, 0, CALLBACK);
	while (!answered)
		listen_once();
}

static void bind_global(uint32_t object, const char *interface)
{
	uint32_t words[16] = { names[object], (uint32_t)strlen(interface) + 1 };
	uint32_t count = 2 + (words[1] + 3) / 4;

	check(names[object] != 0, interface);
	memcpy(words + 2, interface, words[1]);
	words[count++] = 1; /* version */
	words[count++] = object;
	say_with(-1, REGISTRY, 0, words, count);
}

static void open_connection(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *directory = getenv("XDG_RUNTIME_DIR"), *display = getenv("WAYLAND_DISPLAY");

	check(directory != NULL && display != NULL, "XDG_RUNTIME_DIR, WAYLAND_DISPLAY");
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, display);
	connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(connect(connection, (void *)&address, sizeof(address)) == 0, address.sun_path);
}

static void open_window(void)
{
	SAY(DISPLAY, 1, REGISTRY);
	sync_display();
	bind_global(COMPOSITOR, "wl_compositor");
	bind_global(SHM, "wl_shm");
	bind_global(WM_BASE, "xdg_wm_base");
	SAY(COMPOSITOR, 0, SURFACE);
	SAY(WM_BASE, 2, XDG_SURFACE, SURFACE);
	SAY(XDG_SURFACE, 1, TOPLEVEL);
	say_with(-1, SURFACE, 6, NULL, 0); /* commit */
	while (configured == 0)
		listen_once();
	SAY(XDG_SURFACE, 4, configured);
}

static uint32_t *make_buffers(uint32_t width, uint32_t height)
{
	uint32_t size = 4 * width * height;
	int fd = memfd_create("frames", MFD_CLOEXEC);

	check(fd >= 0 && ftruncate(fd, BUFFER_COUNT * (off_t)size) == 0, "memory");
	void *pixels =
		mmap(NULL, BUFFER_COUNT * (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	check(pixels != MAP_FAILED, "memory");
	say_with(fd, SHM, 0, (const uint32_t[]){ POOL, BUFFER_COUNT * size }, 2);
	for (uint32_t i = 0; i < BUFFER_COUNT; i++)
		SAY(POOL, 0, BUFFERS + i, i * size, width, height, 4 * width, XRGB8888);
	return pixels;
}

static void draw(uint32_t *pixels, uint32_t count, uint32_t frame)
{
	for (uint32_t i = 0; i < count; i++)
		pixels[i] = 0xff000000 | (frame * 0x10101 + i);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	check(argc == 4, "usage: wlframes WIDTH HEIGHT SECONDS");
	uint32_t width = (uint32_t)strtoul(argv[1], NULL, 10);
	uint32_t height = (uint32_t)strtoul(argv[2], NULL, 10);
	double seconds = strtod(argv[3], NULL);

	open_connection();
	open_window();
	uint32_t *pixels = make_buffers(width, height);
	uint32_t frames = 0;
	double begin = now();

	for (; now() - begin < seconds; frames++) {
		uint32_t which = frames % BUFFER_COUNT;

		draw(pixels + which * width * height, width * height, frames);
		SAY(SURFACE, 1, BUFFERS + which, 0, 0);
		SAY(SURFACE, 2, 0, 0, width, height); /* damage */
		say_with(-1, SURFACE, 6, NULL, 0);
		sync_display();
	}
	printf("%.1f frames a second, %u frames\n", frames / (now() - begin), frames);
	return 0;
}
