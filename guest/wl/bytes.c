// SPDX-License-Identifier: BSD-3-Clause
/* Bytes on their way. Whoever sent them may lie about each length. */
#include "bytes.h"

#include <stdlib.h>
#include <string.h>

bool add_bytes(struct bytes *bytes, const void *data, size_t size)
{
	if (size == 0)
		return true;
	if (size > BACKLOG_MAX || bytes->size + size > bytes->room) {
		size_t room = 2 * (bytes->size + size);
		uint8_t *bigger = room > 2 * BACKLOG_MAX ? NULL : realloc(bytes->data, room);

		if (bigger == NULL)
			return false;
		bytes->data = bigger;
		bytes->room = room;
	}
	memcpy(bytes->data + bytes->size, data, size);
	bytes->size += size;
	return true;
}

void drop_bytes(struct bytes *bytes, size_t size)
{
	if (size == 0)
		return;
	bytes->size -= size;
	memmove(bytes->data, bytes->data + size, bytes->size);
}

uint32_t word(const uint8_t *message, size_t index)
{
	uint32_t value;

	memcpy(&value, message + 4 * index, 4);
	return value;
}

size_t message_size(const struct bytes *bytes)
{
	if (bytes->size < 8)
		return 0;
	size_t size = word(bytes->data, 1) >> 16;

	if (size < 8 || size % 4 != 0)
		return SIZE_MAX;
	return size <= bytes->size ? size : 0;
}

const char *message_text(const uint8_t *message, size_t size, size_t index)
{
	size_t start = 4 * (index + 1);
	size_t length = start <= size ? word(message, index) : 0;

	if (length == 0 || length > size - start || message[start + length - 1] != '\0')
		return NULL;
	return (const char *)message + start;
}

size_t behind_text(const uint8_t *message, size_t index)
{
	return index + 1 + ((size_t)word(message, index) + 3) / 4;
}
