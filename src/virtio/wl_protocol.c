// SPDX-License-Identifier: BSD-3-Clause
/* The bytes of commands are the guest's: every length is looked at before a field is. */
#include "virtio/wl_protocol.h"

#include <endian.h>
#include <string.h>

enum {
	AT_ID = 8,
	AT_FLAGS = 12, /* of a new vfd */
	AT_PFN = 16,
	AT_SIZE = 24,
	AT_NAME = 28,
	AT_COUNT = 12, /* of a transaction */
	AT_IDS = WL_RECV_HEADER,
};

static uint32_t get32(const uint8_t *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof(value));
	return le32toh(value);
}

static void put32(uint8_t *bytes, uint32_t value)
{
	value = htole32(value);
	memcpy(bytes, &value, sizeof(value));
}

static enum wl_answer parse_id(const uint8_t *bytes, uint32_t size, struct wl_command *command)
{
	(void)size;
	command->id = get32(bytes + AT_ID);
	return WL_OK;
}

static enum wl_answer parse_flags(const uint8_t *bytes, uint32_t size, struct wl_command *command)
{
	command->vfd_flags = get32(bytes + AT_FLAGS);
	return parse_id(bytes, size, command);
}

static enum wl_answer parse_new(const uint8_t *bytes, uint32_t size, struct wl_command *command)
{
	command->size = get32(bytes + AT_SIZE);
	return parse_flags(bytes, size, command);
}

static enum wl_answer parse_named(const uint8_t *bytes, uint32_t size, struct wl_command *command)
{
	memcpy(command->name, bytes + AT_NAME, WL_NAME_MAX);
	return parse_id(bytes, size, command);
}

static enum wl_answer parse_send(const uint8_t *bytes, uint32_t size, struct wl_command *command)
{
	command->count = get32(bytes + AT_COUNT);
	if (command->count > WL_FDS_MAX)
		return WL_INVALID_TYPE;
	uint32_t data = AT_IDS + 4 * command->count;

	if (size < data)
		return WL_ERR;
	for (unsigned i = 0; i < command->count; i++)
		command->ids[i] = get32(bytes + AT_IDS + 4 * i);
	command->data = bytes + data;
	command->data_size = size - data;
	return parse_id(bytes, size, command);
}

static const struct {
	uint32_t type;
	uint32_t least;
	uint32_t answer_size;
	enum wl_answer (*parse)(const uint8_t *bytes, uint32_t size, struct wl_command *command);
} forms[] = {
	{ WL_NEW, AT_SIZE + 4, WL_NEW_SIZE, parse_new },
	{ WL_CLOSE, AT_ID + 4, WL_ANSWER_SIZE, parse_id },
	{ WL_SEND, AT_IDS, WL_ANSWER_SIZE, parse_send },
	{ WL_NEW_CTX, AT_ID + 4, WL_NEW_SIZE, parse_id },
	{ WL_NEW_PIPE, AT_FLAGS + 4, WL_NEW_SIZE, parse_flags },
	{ WL_NEW_CTX_NAMED, AT_NAME + WL_NAME_MAX, WL_NEW_SIZE, parse_named },
};

enum wl_answer wl_parse_command(const uint8_t *bytes, uint32_t size, struct wl_command *ret_command)
{
	if (size < 4)
		return WL_ERR;
	struct wl_command command = { .type = get32(bytes) };
	enum wl_answer answer = WL_INVALID_CMD;

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		if (forms[i].type == command.type)
			answer = size < forms[i].least ? WL_ERR
						       : forms[i].parse(bytes, size, &command);
	if (answer == WL_OK)
		*ret_command = command;
	return answer;
}

uint32_t wl_answer_size(const struct wl_command *command)
{
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		if (forms[i].type == command->type)
			return forms[i].answer_size;
	return WL_ANSWER_SIZE;
}

uint32_t wl_build_new(uint32_t type, const struct wl_new *vfd, uint8_t ret_bytes[WL_NEW_SIZE])
{
	memset(ret_bytes, 0, WL_NEW_SIZE);
	put32(ret_bytes, type);
	put32(ret_bytes + AT_ID, vfd->id);
	put32(ret_bytes + AT_FLAGS, vfd->flags);
	put32(ret_bytes + AT_PFN, (uint32_t)vfd->pfn);
	put32(ret_bytes + AT_PFN + 4, (uint32_t)(vfd->pfn >> 32));
	put32(ret_bytes + AT_SIZE, vfd->size);
	return WL_NEW_SIZE;
}

uint32_t wl_build_answer(enum wl_answer answer, uint8_t ret_bytes[WL_ANSWER_SIZE])
{
	put32(ret_bytes, answer);
	return WL_ANSWER_SIZE;
}

uint32_t wl_build_hup(uint32_t id, uint8_t ret_bytes[WL_HUP_SIZE])
{
	put32(ret_bytes, WL_HUP);
	put32(ret_bytes + 4, 0);
	put32(ret_bytes + AT_ID, id);
	return WL_HUP_SIZE;
}

uint32_t wl_build_recv(
	uint32_t id, const uint32_t *ids, unsigned count, uint8_t ret_bytes[WL_MESSAGE_MAX])
{
	put32(ret_bytes, WL_RECV);
	put32(ret_bytes + 4, 0);
	put32(ret_bytes + AT_ID, id);
	put32(ret_bytes + AT_COUNT, count);
	for (unsigned i = 0; i < count; i++)
		put32(ret_bytes + AT_IDS + 4 * i, ids[i]);
	return AT_IDS + 4 * count;
}
