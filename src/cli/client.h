/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The client's end of a VM's control socket: one request, one reply. The VM
 * may be stuck, gone, of another version, or no crosvm at all.
 */
#pragma once

#include <jansson.h>

#include "base/util.h"

/* 0 and the connected socket, or -errno, logged with the path. */
MUST_CHECK int client_connect(const char *path, int *ret_fd);

/*
 * Sends the verb, with the fields of `fields` if it is not NULL, and waits for the reply, an object
 * whose "ok" is true; the caller frees it by json_decref(). -errno, logged: no reply within 10 s,
 * none at all, one that is no reply, or a refusal (-EREMOTEIO).
 */
MUST_CHECK int client_ask(
	const char *path, int fd, const char *verb, const json_t *fields, json_t **ret_reply);

/*
 * Waits for the next message, for ever, or until nobody reads any more what is written to `out_fd`.
 * 0, -EPIPE when that is so, or another -errno. Not logged.
 */
MUST_CHECK int client_await(int fd, int out_fd);

/*
 * The next message; `timeout_ms` -1 waits for ever. 0, -ENODATA when the VM
 * closed the connection, -ETIMEDOUT, or another -errno. Not logged.
 */
MUST_CHECK int client_receive(int fd, int timeout_ms, json_t **ret_message);
