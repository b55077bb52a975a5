/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket's language: requests to verbs, results to replies. One
 * JSON object each; doc/control-protocol.md describes it for those who speak it.
 *
 * A request may be any bytes. It is measured before the JSON library sees it,
 * so that what the library allocates and how deep it goes is bounded by
 * constants. The replies are ours. Pure functions; the main thread's, since the
 * library has a state of its own.
 */
#pragma once

#include <jansson.h>

#include "base/util.h"

enum {
	CONTROL_PROTOCOL_VERSION = 1,
	CONTROL_DEPTH_MAX = 4,   /* of nested arrays and objects */
	CONTROL_VALUES_MAX = 32, /* names and values of a request */
};

enum control_verb {
	CONTROL_BALLOON,
	CONTROL_BALLOON_STATS,
	CONTROL_DISK_RESIZE,
	CONTROL_EVENTS,
	CONTROL_POWERBTN,
	CONTROL_RESUME,
	CONTROL_STATUS,
	CONTROL_STOP,
	CONTROL_SUSPEND,
	CONTROL_VERSION,
	CONTROL_VERBS,
};

struct control_request {
	enum control_verb verb;
	uint64_t size_mib; /* of CONTROL_BALLOON */
	uint64_t index;    /* of CONTROL_DISK_RESIZE: among the disks */
	uint64_t size;     /* the same: bytes */
};

/* Why a request was refused: a word for programs, a line for people. */
struct control_fault {
	const char *code; /* constant */
	char text[120];
};

/* 0 and the request, or -EINVAL and the fault. */
MUST_CHECK int control_request_parse(const char *text, size_t size,
	struct control_request *ret_request, struct control_fault *ret_fault);

void control_fault_set(struct control_fault *fault, const char *code, const char *format, ...)
	PRINTF_LIKE(3, 4);

/*
 * Writes a message: `fields` (an object, which it takes; NULL: there was no
 * memory for it) with version and ok added, or the fault. Bytes written; never
 * 0 and never more than `size`, which is 128 at least. Not terminated.
 */
size_t control_reply_write(json_t *fields, char *buffer, size_t size);
size_t control_reply_write_fault(const struct control_fault *fault, char *buffer, size_t size);
/* The same for what nobody asked for: there is no ok in it. */
size_t control_event_write(json_t *fields, char *buffer, size_t size);
