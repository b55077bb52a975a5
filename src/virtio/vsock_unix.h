/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host's side of vsock without a kernel module, by the convention of
 * Firecracker and Cloud Hypervisor: one listening unix socket at PATH, to which
 * a program says "CONNECT PORT\n" and hears "OK HOST_PORT\n" once the guest has
 * accepted; and PATH_PORT, where a program of the host listens for the guest.
 *
 * Whoever may open the socket may say anything. Nothing here waits. All return
 * -errno on failure.
 */
#pragma once

#include <sys/types.h>
#include <sys/un.h>

#include "base/util.h"
#include "virtio/vsock_packet.h"

/* The longest PATH: behind it there is room for "_4294967295". */
enum { VSOCK_PATH_MAX = sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("_4294967295") };

/* Connects to PATH_PORT; for a device in a jail, a helper does (connector.h). */
MUST_CHECK int vsock_unix_connect(const char *path, uint32_t port, int *ret_fd);

/* The next program that waits at the listener; -EAGAIN: none. */
MUST_CHECK int vsock_unix_accept(int listener_fd, int *ret_fd);

/*
 * Takes the line "CONNECT PORT\n" and nothing behind it. -EAGAIN: it is not
 * here as a whole, -EPROTO: it is not such a line or the socket ended.
 */
MUST_CHECK int vsock_unix_take_greeting(int fd, uint32_t *ret_port);
/* Whether there is something to receive. */
bool vsock_unix_has_bytes(int fd);
/* Says "OK PORT\n". */
MUST_CHECK int vsock_unix_confirm(int fd, uint32_t host_port);

/* Lets the socket hold as much that nobody has read, as far as the host allows it
 * (net.core.wmem_max). */
void vsock_unix_make_room(int fd, uint32_t bytes);
/* As many bytes as the socket takes. */
MUST_CHECK ssize_t vsock_unix_send(int fd, const struct iovec *iov, unsigned count);
/*
 * As many bytes as the socket has, 0 at its end. It was cut if that is only what
 * came before a descriptor, which is dropped: there may be more.
 */
MUST_CHECK ssize_t vsock_unix_receive(int fd, const struct vsock_data *to, bool *ret_was_cut);
