/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a jailed vsock device cannot do itself: connect to PATH_PORT. A helper
 * process, jailed too, with PATH's directory as its root, gets a port and
 * answers with a connected socket. So a device that a guest owns reaches
 * the sockets PATH_0 to PATH_4294967295, and no other that lies beside them.
 */
#pragma once

#include "base/util.h"

/* How long the device waits for an answer, with all its connections. */
enum { VSOCK_CONNECTOR_MS = 1000 };

/* Says which port it is about: the answer to a request that was given up may come late. */
struct vsock_connector_answer {
	uint32_t port;
	int32_t result; /* 0, with a descriptor; or -errno */
};

/* The directory of `path`. False when there is no room. */
MUST_CHECK bool vsock_connector_directory(const char *path, char *ret_directory, size_t size);

/*
 * The helper: answers until the other end of `socket` (SOCK_SEQPACKET) closes,
 * for the `path` whose directory is its root. Exit status.
 */
int vsock_connector_serve(const char *path, int socket);

/*
 * The device: a connection to PATH_port. -errno of the helper's connect(), or
 * -ECONNABORTED: the helper is gone, or did not answer in time.
 */
MUST_CHECK int vsock_connector_ask(int socket, uint32_t port, int *ret_fd);
