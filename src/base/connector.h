/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a jailed device cannot do itself: connect to the sockets of the host's
 * programs. A helper process, jailed too, with those sockets' directory as its
 * root, gets a number and answers with a connected socket. So a device that a
 * guest owns reaches the sockets that its numbers mean, and no other that lies
 * beside them; and one that its program makes anew is found by its path.
 */
#pragma once

#include "base/util.h"

/* How long the device waits for an answer, with all its connections. */
enum { CONNECTOR_MS = 1000 };

struct connector_request {
	uint64_t serial; /* no other request's */
	uint32_t number;
} __attribute__((packed));

/* Says what it answers: a request may have been given up before. */
struct connector_answer {
	uint64_t serial;
	int32_t result; /* 0, with a descriptor; or -errno */
} __attribute__((packed));

/* The directory of `path`. 1, as a device says it (virtio/device.h), or -ENAMETOOLONG. */
MUST_CHECK int connector_directory(const char *path, char *ret_directory, size_t size);
/* What `path` is called in that directory. */
const char *connector_name(const char *path);

/* A new connection, which does not block, to the unix stream socket at `path`. 0 or -errno. */
MUST_CHECK int connector_connect(const char *path, int *ret_fd);

/*
 * The helper: answers until the other end of `socket` (SOCK_SEQPACKET) closes.
 * `connect` gives the connection that a number means, or -errno. Exit status.
 * Linux refuses to pass a descriptor while the user's programs have more in
 * flight than this process may have open: RLIMIT_NOFILE must leave them room.
 */
int connector_serve(int socket, int (*connect)(const void *owner, uint32_t number, int *ret_fd),
	const void *owner);

/*
 * The device: the connection that `number` means. What `connect` said there;
 * -ETIMEDOUT: no answer in CONNECTOR_MS; -ECONNABORTED: none that can be used.
 * A helper that is stuck costs one wait: *ask_from_ns, the caller's and 0 at
 * first, is when it is asked again.
 */
MUST_CHECK int connector_ask(int socket, uint64_t *ask_from_ns, uint32_t number, int *ret_fd);
/* What is the helper's fault, in words; NULL: r is what `connect` said. */
const char *connector_fault(int r);
