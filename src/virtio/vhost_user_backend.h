/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs a device for another process: the back end of the vhost-user protocol.
 *
 * One thread reads requests and drives the thread backend of the vhost contract
 * (vhost_thread.h) around the device, which does not notice, or the kernel's
 * (vhost_kernel.h). It runs in a jailed child of `crosvm run` and in `crosvm device`, whose front
 * end may be QEMU.
 *
 * The front end is not trusted with this process: every message is checked for
 * its form, index, sizes and descriptors, in any order and at any time. What is
 * no message ends the connection; what cannot be done is answered with a
 * failure where an answer is asked for, and ends the connection where not. A
 * ring that its driver placed badly signals the error descriptor.
 *
 * A ring runs while it has a size, addresses, a kick descriptor and is enabled.
 * Whatever changes what a ring depends on (its own messages, the memory table)
 * stops the rings that run, finishing what is in flight, and starts them again
 * afterwards; the device is not told. GET_VRING_BASE stops one for good.
 *
 * System calls, beside the device's own: poll, recvmsg, sendmsg, close, fstat,
 * mmap, munmap, eventfd2, write and preadv2 (eventfds); clone3 or clone, mprotect,
 * madvise, rt_sigprocmask, set_robust_list, rseq, futex, exit for a ring's
 * thread. A file of guest memory that its owner shrinks is a SIGBUS, which ends
 * this process and nothing else.
 *
 * Source: the vhost-user specification.
 */
#pragma once

#include "virtio/vhost.h"

/* How long a message may be on its way, once it has begun. */
enum { VHOST_USER_MESSAGE_MS = 5000 };

/*
 * Serves the front end at the other end of `socket`, a connected unix stream
 * socket, until it hangs up (0), until `stop_fd` is readable (0; -1 for never),
 * or until it breaks the protocol or the host fails (-errno, logged; `name` is
 * for that). `vhost` has set_memory(), and no memory yet; it and the descriptors
 * are borrowed. Afterwards it is reset and can serve another front end.
 */
MUST_CHECK int vhost_user_serve(int socket, const char *name, struct vhost *vhost, int stop_fd);
