/* SPDX-License-Identifier: BSD-3-Clause */
/* What requests to a disk look like: virtio 1.2, section 5.2.6. */
#pragma once

#include "virtio.h"

enum { SECTOR = 512 };
enum { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8, BLK_DISCARD = 11, BLK_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

/* What image() of tests/kvm/oracle.py fills the images with. */
static inline uint64_t image_word(uint64_t sector, unsigned word)
{
	return sector * UINT64_C(0x9e3779b97f4a7c15) + word;
}

static inline void set_header(struct victim *victim, uint32_t type, uint64_t sector)
{
	uint32_t words[4] = { type, 0, (uint32_t)sector, (uint32_t)(sector >> 32) };

	memcpy(victim->buffers->header, words, sizeof(words));
	victim->buffers->status = 0xee;
}

/* Header, data and status as the descriptors 0 to 2, or without data as 0 and 2. */
static inline void set_request(struct victim *victim, uint32_t length, bool device_writes)
{
	struct buffers *buffers = victim->buffers;

	set_desc(victim, 0, (uintptr_t)buffers->header, sizeof(buffers->header), NEXT,
		length != 0 ? 1 : 2);
	set_desc(
		victim, 1, (uintptr_t)buffers->data, length, NEXT | (device_writes ? WRITE : 0), 2);
	set_desc(victim, 2, (uintptr_t)&buffers->status, 1, WRITE, 0);
}
