/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The messages of virtio-wayland, as bytes: little-endian, no padding but what
 * is named here. Nothing outside of the bytes is touched.
 *
 * Commands come from the guest, which may send anything; the caller copied
 * them. There is no specification; the layout is that of ChromeOS' driver, of
 * 2017 and today.
 */
#pragma once

#include "base/util.h"

enum wl_type {
	WL_NEW = 0x100, /* shared memory; to the guest: a vfd that the host made */
	WL_CLOSE,
	WL_SEND,
	WL_RECV,
	WL_NEW_CTX,
	WL_NEW_PIPE,
	WL_HUP,
	WL_NEW_DMABUF,
	WL_DMABUF_SYNC,
	WL_SEND_FOREIGN_ID,
	WL_NEW_CTX_NAMED,
};

/* What a command is answered with; from WL_ERR on they are errors. */
enum wl_answer {
	WL_OK = 0x1000,
	WL_OK_NEW = 0x1001,
	WL_ERR = 0x1100, /* to the driver: the device is no longer reliable */
	WL_OUT_OF_MEMORY,
	WL_INVALID_ID,
	WL_INVALID_TYPE,
	WL_INVALID_FLAGS,
	WL_INVALID_CMD,
};

enum {
	WL_FDS_MAX = 28, /* of one message: libwayland's limit */
	WL_NAME_MAX = 32,
	WL_ANSWER_SIZE = 4,
	WL_NEW_SIZE = 32,
	WL_HUP_SIZE = 12,
	WL_MESSAGE_MAX = 4096, /* the driver's buffers for what it receives */
	WL_RECV_HEADER = 16,
	WL_RECV_DATA_MAX = WL_MESSAGE_MAX - WL_RECV_HEADER - 4 * WL_FDS_MAX,
	WL_COMMAND_MAX = 65536,
};

/* vfd ids: those of the guest are below, those of the host begin there. */
enum { WL_GUEST_IDS = 0x800, WL_HOST_ID = 0x40000000 };

/* A vfd's flags by the first driver, and with TRANS_FLAGS negotiated. */
enum { WL_FLAG_WRITE = 1, WL_FLAG_MAP = 2, WL_FLAG_CONTROL = 4 };
enum { WL_TRANS_WRITE = 1, WL_TRANS_READ = 2 };

/* Feature bits. */
enum { WL_F_TRANS_FLAGS = 1, WL_F_SEND_FENCES = 2 };

struct wl_command {
	uint32_t type;
	uint32_t id;
	uint32_t vfd_flags;
	uint32_t size;
	char name[WL_NAME_MAX + 1];
	unsigned count; /* vfds to send */
	uint32_t ids[WL_FDS_MAX];
	const uint8_t *data; /* within the command's bytes */
	uint32_t data_size;
};

/* A vfd as the guest is told of it. */
struct wl_new {
	uint32_t id;
	uint32_t flags;
	uint64_t pfn;
	uint32_t size;
};

/* WL_OK with the command, or the error to answer. */
MUST_CHECK enum wl_answer wl_parse_command(
	const uint8_t *bytes, uint32_t size, struct wl_command *ret_command);
/* How long the answer is if all goes well. */
uint32_t wl_answer_size(const struct wl_command *command);

/* All build at `ret_bytes` and return the length. `type` is WL_NEW or WL_OK_NEW. */
uint32_t wl_build_new(uint32_t type, const struct wl_new *vfd, uint8_t ret_bytes[WL_NEW_SIZE]);
uint32_t wl_build_answer(enum wl_answer answer, uint8_t ret_bytes[WL_ANSWER_SIZE]);
uint32_t wl_build_hup(uint32_t id, uint8_t ret_bytes[WL_HUP_SIZE]);
/* The start of a RECV, of WL_RECV_HEADER + 4 * count bytes; the data follow it. */
uint32_t wl_build_recv(
	uint32_t id, const uint32_t *ids, unsigned count, uint8_t ret_bytes[WL_MESSAGE_MAX]);
