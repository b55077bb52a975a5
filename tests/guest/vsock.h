/* SPDX-License-Identifier: BSD-3-Clause */
/* What packets of vsock look like: virtio 1.2, section 5.10.6. */
#pragma once

#include "cases.h"

enum { HOST_CID = 2, GUEST_CID = 42, STREAM = 1, ROOM = 65536 };
enum { NOBODY = 9 }; /* a port of the host's */
enum {
	OP_INVALID,
	OP_REQUEST,
	OP_RESPONSE,
	OP_RST,
	OP_SHUTDOWN,
	OP_RW,
	OP_CREDIT_UPDATE,
	OP_CREDIT_REQUEST,
	OP_UNKNOWN = 255
};

struct vsock_header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

static inline struct vsock_header make_header(uint16_t op, uint32_t port, uint32_t host_port)
{
	return (struct vsock_header){
		.src_cid = GUEST_CID,
		.dst_cid = HOST_CID,
		.src_port = port,
		.dst_port = host_port,
		.type = STREAM,
		.op = op,
		.buf_alloc = ROOM,
	};
}
