/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a virtio device is: one const table of functions, and its private state.
 *
 * A device never knows where it runs: as threads of the main process, in a
 * jailed process, or alone as a vhost-user backend. It holds its own host fds,
 * sees virtqueues and iovecs, and never a gpa, a process or a socket.
 *
 * Life:  open (with all rights of the user; every fd is opened here)
 *        -> prepare, if a jail is to follow; and let_go where it is not
 *        -> features, config_read, config_write   any time, serialised
 *        -> start (features are fixed)            before the queues run
 *        -> serve, once for each queue, each in a thread of its own
 *           (a queue may stop and go on where it was: serve is called again)
 *        -> stop (the driver reset it; no queue runs) -> start again, or sync and free
 *
 * A device must never fork, exit, block without bound outside of its queue's
 * wait, or allocate by a size that the guest gave.
 */
#pragma once

#include <sys/uio.h>

#include "base/option_values.h"
#include "base/util.h"
#include "virtio/virtqueue.h"
#include "virtio/window.h"

enum { DEVICE_QUEUES_MAX = 16, DEVICE_FDS_MAX = 32 };

struct device; /* the device's own; cast by its functions */

/* One running queue, made by whoever runs the device. */
struct device_queue {
	struct virtqueue vq;
	struct device *device;
	unsigned index;
	uint16_t size;
	int kick_fd; /* eventfd: the driver has offered chains */
	int call_fd; /* eventfd: raises the queue's interrupt */
	int stop_fd; /* eventfd, readable once serve shall return; never read it */
};

/*
 * A device whose rings the kernel serves: /dev/vhost-vsock, /dev/vhost-net. The
 * kernel has the first `queues` rings; those after them nobody serves, and
 * they are there because the specification says so.
 */
struct device_kernel_ops {
	unsigned queues;
	uint64_t features; /* those of the device that the kernel must know of */
	/* The device's, which keeps it; -1: not this time, serve() does it. */
	int (*fd)(const struct device *device);
	/* The ring is set up and shall run, or shall run no more. 0 or -errno. */
	int (*run_queue)(struct device *device, unsigned index, bool run);
};

/*
 * A second process, jailed too, for what a jailed device must ask of the host
 * while it runs. It is made after open; the two share a SOCK_SEQPACKET pair.
 */
struct device_helper_ops {
	const char *name;   /* as `ps` shows it: 8 characters */
	const char *policy; /* of its system calls, without ".policy" */
	/* The directory that is all it sees. 1; 0: no helper is needed, this time; -errno, logged.
	 */
	int (*directory)(const struct device *device, char *ret_path, size_t size);
	/* What it does: its exit status. In its copy of the device, whose descriptors are closed.
	 */
	int (*serve)(struct device *device, int socket);
	/* The device's end of the pair, borrowed: it stays open as long as the jailed process. */
	void (*attach)(struct device *device, int socket);
};

struct device_ops {
	const char *name;    /* "block" */
	uint32_t virtio_id;  /* virtio 1.2, section 5 */
	uint16_t pci_class;  /* class and subclass that PCI shows */
	uint16_t queue_size; /* the most entries of a queue */
	/* What serve() can do when a foreign front end asks for more; 0: queue_size. */
	uint16_t queue_size_limit;
	uint32_t config_size;
	/* Of addresses in which it shows files to the guest; 0: none. */
	uint64_t window_size;
	/*
	 * The configuration space goes on by this many bytes for the VMM alone:
	 * what its control side asks of the device, and what that answers.
	 */
	uint32_t control_size;
	/*
	 * Where in that part a uint32_t says how many requests the host still works
	 * on. The VMM waits until it is 0 before it holds the device, since a disk may
	 * take long. 0: stopping the queues takes no time.
	 */
	uint32_t busy_offset;

	unsigned (*queue_count)(const struct device *device);
	/* Device-specific feature bits on offer; the transport adds its own. */
	uint64_t (*features)(const struct device *device);
	/* The device configuration space; that it is inside of it is checked. */
	void (*config_read)(struct device *device, uint32_t offset, uint8_t *data, uint32_t size);
	/* NULL when nothing is writable. */
	void (*config_write)(
		struct device *device, uint32_t offset, const uint8_t *data, uint32_t size);
	/*
	 * Makes now what serve would make when it first runs. Only who runs the
	 * device in a jail calls it, once, after open and before the filter that
	 * forbids to make it. NULL when there is nothing to do.
	 */
	void (*prepare)(struct device *device);
	/*
	 * Closes what the jailed process has: its files, which are nobody else's
	 * business, and what prepare made. Here only program_fd, socket_path and free
	 * are called after it. NULL: it has nothing.
	 */
	void (*let_go)(struct device *device);
	/*
	 * The same for one queue of a device in the main process: in the queue's
	 * thread, before the filter of that and serve. NULL: nothing.
	 */
	void (*prepare_queue)(struct device_queue *queue);
	/* The descriptors that it needs in a jail, after prepare. How many; NULL: none. */
	unsigned (*fds)(const struct device *device, int ret_fds[DEVICE_FDS_MAX]);
	/* How many more it opens while it runs. */
	unsigned spare_fds;
	/* NULL: it asks the host for nothing. */
	const struct device_helper_ops *helper;
	/* The window, if there is one where the device runs, while no queue does; NULL takes it
	 * away, and there may be another. */
	void (*set_window)(struct device *device, const struct window *window);
	/*
	 * The same by the VMM, which may change what the driver can only read,
	 * and the bytes of its own. 0 or -EINVAL; NULL when there is nothing.
	 */
	int (*config_change)(
		struct device *device, uint32_t offset, const uint8_t *data, uint32_t size);
	/* 0 or -errno; NULL when there is nothing to do. */
	int (*start)(struct device *device, uint64_t features);
	/*
	 * Serves one queue until its stop_fd is readable; every chain that was
	 * popped is pushed by then. -EBADMSG when the driver broke the queue,
	 * another -errno when the host failed; after both, only stop is waited for.
	 */
	int (*serve)(struct device_queue *queue);
	/* NULL: serve() does it. */
	const struct device_kernel_ops *kernel;
	/*
	 * Gives away the vhost-user socket of a program that open started and that serves the
	 * rings. The device answers for features and configuration space still, as far as the
	 * program keeps none. -1: there is none; NULL: never.
	 */
	int (*take_back_end)(struct device *device);
	void (*stop)(struct device *device);
	/*
	 * Makes durable what the driver wrote: the VM ends, or the front end is gone.
	 * No queue runs; it takes as long as the host does. NULL: it keeps nothing.
	 */
	void (*sync)(struct device *device);
	/*
	 * Where the device keeps a program that open started, as a pidfd that free
	 * waits for; -1 there: none. The VM ends if it fails before the driver is there. A
	 * device's process, whose child it is not, puts -1 there. NULL: there is never one.
	 */
	int *(*program_fd)(struct device *device);
	/* The path of a socket that free removes, or NULL; NULL: it has none. */
	const char *(*socket_path)(const struct device *device);
	void (*free)(struct device *device);
};

/* Whether the kernel serves its rings, this time. */
static inline bool device_is_kernels(const struct device_ops *ops, const struct device *device)
{
	return ops->kernel != NULL && ops->kernel->fd(device) >= 0;
}

/* What vhost's get_config, set_config and change_config are for a device here. -EINVAL outside of
 * its space. */
MUST_CHECK int device_get_config(const struct device_ops *ops, struct device *device,
	uint32_t offset, uint8_t *data, uint32_t size);
MUST_CHECK int device_set_config(const struct device_ops *ops, struct device *device,
	uint32_t offset, const uint8_t *data, uint32_t size);
MUST_CHECK int device_change_config(const struct device_ops *ops, struct device *device,
	uint32_t offset, const uint8_t *data, uint32_t size);

/*
 * The serve loop of a device without I/O of its own: waits for kicks and calls
 * `handle` for each chain; it returns how many bytes it wrote into the chain's
 * writable buffers.
 */
MUST_CHECK int device_serve_chains(struct device_queue *queue,
	uint32_t (*handle)(struct device *device, const struct virtqueue_chain *chain));

/* For other loops. Waits for a kick (1) or the wish to stop (0); -errno when the host fails. */
MUST_CHECK int device_wait_for_kick(const struct device_queue *queue);
/* Whether stop_fd is readable, without waiting. */
bool device_shall_stop(const struct device_queue *queue);

/*
 * A kind of device, as a user asks for it: the line of devices.def and this
 * are all that the rest of crosvm knows of it.
 */
struct device_class {
	const struct device_ops *ops;
	/* Others by the options; NULL: always those. */
	const struct device_ops *(*choose_ops)(const void *options);
	bool once;    /* a VM has one at most: --NAME again adds to its options */
	bool gathers; /* then it may say the words of the one before again, for one more of what it
			 has */
	/* The words of --NAME word=value,...; they change a copy of `defaults`. */
	const struct suboption *suboptions;
	size_t suboption_count;
	const void *defaults;
	size_t options_size;
	/* The options as a whole. 0, or -EINVAL, logged; NULL: any will do. */
	int (*check)(const char *option, const void *options);
	/* Whether take_back_end() will give a socket, so that another program maps guest memory;
	 * NULL: never. */
	bool (*has_back_end)(const void *options);
	/* Opens all fds, with the user's rights. 0 or -errno, logged. ops->free frees it. */
	int (*open)(const void *options, struct device **ret_device);
	/*
	 * Writes what the kernel's command line must say, with a blank before
	 * it, or "". `index` devices of this class come before. NULL: nothing.
	 */
	void (*kernel_params)(const void *options, unsigned index, char *ret_text, size_t size);
};

static inline const struct device_ops *device_class_ops(
	const struct device_class *class, const void *options)
{
	return class->choose_ops != NULL && options != NULL ? class->choose_ops(options)
							    : class->ops;
}

static inline bool device_class_has_back_end(const struct device_class *class, const void *options)
{
	return class->has_back_end != NULL && options != NULL && class->has_back_end(options);
}

#define DEVICE(name, ...) extern const struct device_class name##_device_class;
#include "virtio/devices.def"
#undef DEVICE
