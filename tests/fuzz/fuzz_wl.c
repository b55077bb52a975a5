// SPDX-License-Identifier: BSD-3-Clause
/*
 * A program of a hostile driver and a hostile compositor against the wayland
 * device: commands with any words, answers that do not fit, descriptors of all
 * kinds, connections that end at any time, readers that do not read. What
 * comes out must be a message, bounds must hold, and after the reset nothing
 * may be left (the rig aborts otherwise).
 */
#include <signal.h>

#include "base/log.h"
#include "unit/wl_rig.h"

enum { PEERS = 4, IDS = 8 };

/* One operation of the input; its bytes follow. */
struct step {
	uint8_t op;
	uint8_t size; /* of the bytes that follow */
	uint8_t what;
	uint8_t room;
};

struct machine {
	struct wl_rig rig;
	int peers[PEERS];
	int held[PEERS]; /* the last descriptor that a peer got */
};

static void do_command(struct machine *machine, const struct step *step, const uint8_t *bytes)
{
	uint8_t answer[WL_NEW_SIZE];
	uint32_t room = WL_ANSWER_SIZE + step->room % 64;
	uint32_t size = wl_host_command(machine->rig.host, bytes, step->size, room, answer);

	rig_require(size == WL_ANSWER_SIZE || size == WL_NEW_SIZE);
	rig_require(size <= room);
}

/* A command of a right form, with ids that may exist. A few of the long ones fill a socket. */
static void do_likely(struct machine *machine, const struct step *step, const uint8_t *bytes)
{
	static const uint32_t types[] = { WL_NEW, WL_CLOSE, WL_SEND, WL_NEW_CTX, WL_NEW_PIPE,
		WL_SEND, WL_CLOSE, WL_SEND };
	/* Each is at its end, so that a look beyond is found. */
	static uint8_t commands[32768];
	uint32_t words[24] = { types[step->what % 8], 0, step->room % IDS };
	uint8_t answer[WL_NEW_SIZE];
	uint32_t size = step->what % 8 == 7 ? sizeof(commands) : 4 * 300;
	uint8_t *command = commands + sizeof(commands) - size;

	if (step->room & 0x80)
		words[2] += WL_HOST_ID;
	words[3] = step->size > 0 ? bytes[0] % 4 : 1;
	for (unsigned i = 4; i < ARRAY_SIZE(words) && i - 3 < step->size; i++)
		words[i] = bytes[i - 3] % IDS + (bytes[i - 3] & 0x80 ? WL_HOST_ID : 0);
	if (words[0] == WL_NEW)
		words[6] = step->size << 12;
	memcpy(command, words, sizeof(words));
	(void)wl_host_command(machine->rig.host, command, size, WL_NEW_SIZE, answer);
}

static void accept_peer(struct machine *machine, int *peer)
{
	fd_close(peer);
	*peer = accept4(machine->rig.listeners[0], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static int make_file(uint8_t kind)
{
	int ends[2];

	if (kind % 4 == 1)
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	if (kind % 4 == 2) {
		rig_require(pipe2(ends, O_CLOEXEC) == 0);
		close(ends[kind / 4 % 2]);
		return ends[1 - kind / 4 % 2];
	}
	if (kind % 4 == 3) {
		rig_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
		close(ends[0]);
		return ends[1];
	}
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	rig_require(ftruncate(fd, kind * 37) == 0);
	if (kind & 0x40)
		rig_require(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
	return fd;
}

/* Made once and kept, as a compositor may: to make it takes longer than to send it. */
static int file_of(uint8_t kind)
{
	static int files[UINT8_MAX + 1]; /* 0: not yet */

	/* What is no memory has 16 kinds at most. */
	if (kind % 4 != 0)
		kind %= 16;
	if (files[kind] == 0)
		files[kind] = make_file(kind);
	return files[kind];
}

static void send_from(int peer, const struct step *step, const uint8_t *bytes)
{
	unsigned count = step->room % (WL_FDS_MAX + 2);
	int fds[WL_FDS_MAX + 2];

	if (peer < 0 || step->size == 0)
		return;
	for (unsigned i = 0; i < count; i++)
		fds[i] = file_of(bytes[i % step->size]);
	(void)rig_send(peer, bytes, step->size, fds, count);
}

static void read_at(int peer, int *held)
{
	static uint8_t data[65536];
	unsigned count;
	int fds[64];

	if (peer < 0 || rig_receive(peer, data, sizeof(data), fds, &count) <= 0)
		return;
	for (unsigned i = 0; i < count; i++) {
		fd_close(held);
		*held = fds[i];
	}
}

static void take_message(struct machine *machine)
{
	uint32_t words[WL_MESSAGE_MAX / 4];
	uint32_t size = wl_host_next_message(machine->rig.host, (uint8_t *)words);

	if (size == 0)
		return;
	rig_require(size >= WL_HUP_SIZE && size <= WL_MESSAGE_MAX);
	rig_require(words[0] == WL_NEW || words[0] == WL_RECV || words[0] == WL_HUP);
	if (words[0] == WL_RECV)
		rig_require(words[3] <= WL_FDS_MAX && size >= 16 + 4 * words[3]);
	wl_host_delivered(machine->rig.host);
}

static void run_step(struct machine *machine, const struct step *step, const uint8_t *bytes)
{
	unsigned n = step->what % PEERS;

	switch (step->op % 8) {
	case 0:
		do_command(machine, step, bytes);
		break;
	case 1:
	case 2:
		do_likely(machine, step, bytes);
		break;
	case 3:
		accept_peer(machine, &machine->peers[n]);
		break;
	case 4:
		send_from(machine->peers[n], step, bytes);
		break;
	case 5:
		read_at(machine->peers[n], &machine->held[n]);
		break;
	case 6:
		take_message(machine);
		break;
	default:
		wl_host_flush(machine->rig.host);
		if (step->room == 0)
			fd_close(&machine->peers[n]);
		if (step->room == 1)
			machine->rig.host->trans_flags ^= true;
		if (step->room == 2)
			wl_host_reset(machine->rig.host);
	}
	rig_require(machine->rig.host->table.descriptors <= WL_DESCRIPTORS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One for all inputs: to make its sockets takes longer than most of them. */
static struct machine machine;

static void close_machine(void)
{
	rig_close(&machine.rig);
}

static void open_machine(void)
{
	log_set_level(LOG_LEVEL_NONE);
	(void)signal(SIGPIPE, SIG_IGN); /* as the device's process has it */
	rig_open(&machine.rig);
	for (unsigned i = 0; i < PEERS; i++)
		machine.peers[i] = machine.held[i] = -1;
	rig_require(atexit(close_machine) == 0);
}

/* As new, whatever the input did. */
static void reset_machine(void)
{
	for (unsigned i = 0; i < PEERS; i++) {
		fd_close(&machine.peers[i]);
		fd_close(&machine.held[i]);
	}
	machine.rig.host->trans_flags = false;
	rig_reset(&machine.rig);
	for (unsigned i = 0; i < ARRAY_SIZE(machine.rig.listeners); i++)
		for (int fd; (fd = rig_accept(machine.rig.listeners[i])) >= 0;)
			close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct step step;

	if (machine.rig.host == NULL)
		open_machine();
	while (size >= sizeof(step)) {
		memcpy(&step, data, sizeof(step));
		data += sizeof(step);
		size -= sizeof(step);
		step.size = (uint8_t)min_u64(step.size, size);
		/* A copy of just that size, so that a look beyond is found. */
		uint8_t *bytes = malloc(step.size > 0 ? step.size : 1u);

		rig_require(bytes != NULL);
		memcpy(bytes, data, step.size);
		run_step(&machine, &step, bytes);
		free(bytes);
		data += step.size;
		size -= step.size;
	}
	reset_machine();
	return 0;
}
