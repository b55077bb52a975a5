/* SPDX-License-Identifier: BSD-3-Clause */
/* Bytes on their way, and the Wayland messages among them. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BACKLOG_MAX = 4 << 20 }; /* unsent to a client; it is ended there */

/* Zero is empty; free(data) ends it. */
struct bytes {
	uint8_t *data;
	size_t size, room;
};

/* False: it is too much. */
bool add_bytes(struct bytes *bytes, const void *data, size_t size);
/* The first ones. */
void drop_bytes(struct bytes *bytes, size_t size);

/* A 32-bit word of a message: 0 is the object, 1 the size and the opcode. */
uint32_t word(const uint8_t *message, size_t index);
/* The size in bytes of the message that the bytes begin with; 0: it is not whole, SIZE_MAX: it is
 * none. */
size_t message_size(const struct bytes *bytes);
/* The text whose length is the word at `index`; NULL: it does not lie in the message. */
const char *message_text(const uint8_t *message, size_t size, size_t index);
/* The index of the word behind that text. */
size_t behind_text(const uint8_t *message, size_t index);
