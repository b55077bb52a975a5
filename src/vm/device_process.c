// SPDX-License-Identifier: BSD-3-Clause
/* Starts, greets and ends device processes. They may do anything, and die at any time. */
#include "vm/device_process.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/log.h"
#include "virtio/vhost_thread.h"
#include "virtio/vhost_user_backend.h"
#include "virtio/vhost_user_frontend.h"

enum {
	READY_MS = 5000,     /* for a jail to be complete */
	FDS_FOR_MEMORY = 8,  /* of a memory table on its way */
	FDS_A_QUEUE = 6,     /* kick, call and error, old and new; stop */
	KERNEL_THREADS = 64, /* io_uring's workers count as threads of the process */
};

/* ---- the device's side: in the jail ---- */

/* What the new process finds in its copy of our memory. */
struct birth {
	const struct device_ops *ops;
	struct device *device;
	int socket;
};

static int serve(void *argument)
{
	const struct birth *birth = argument;
	struct vhost *vhost;
	int r = vhost_thread_create(birth->ops, birth->device, NULL, &vhost);

	if (r == 0)
		r = vhost_user_serve(birth->socket, birth->ops->name, vhost, -1);
	return r < 0;
}

/* ---- the main process's side ---- */

static int spawn(
	const struct vm_config *config, const struct birth *birth, struct jail_process *ret_process)
{
	unsigned queues = birth->ops->queue_count(birth->device);
	int fds[1 + DEVICE_FDS_MAX] = { birth->socket };
	size_t count = 1;
	char policy[32];

	snprintf(policy, sizeof(policy), "%s_device", birth->ops->name);
	if (birth->ops->fds != NULL)
		count += birth->ops->fds(birth->device, fds + 1);
	const struct jail_config jail = {
		.name = birth->ops->name,
		.policy = jail_policy_find(policy),
		.keep_fds = fds,
		.keep_fd_count = count,
		.limits = {
			.spare_fds = FDS_FOR_MEMORY + FDS_A_QUEUE * queues,
			.threads = 1 + queues + KERNEL_THREADS,
		},
		.best_effort = config->jail_best_effort,
		.log_violations = config->log_violations,
	};

	if (jail.policy == NULL) {
		log_error("device %s: no seccomp policy %s.policy; it cannot be jailed",
			birth->ops->name, policy);
		return -ENOENT;
	}
	return jail_spawn(&jail, serve, (void *)(uintptr_t)birth, ret_process);
}

int device_process_start(const struct vm_config *config, const struct device_ops *ops,
	struct device *device, struct device_process *ret_process)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		int error = errno;

		log_error("device %s: cannot make a socket pair: %s", ops->name, strerror(error));
		return -error;
	}
	if (ops->prepare != NULL)
		ops->prepare(device);
	const struct birth birth = { .ops = ops, .device = device, .socket = ends[1] };
	struct jail_process jail;
	int r = spawn(config, &birth, &jail);

	fd_close(&ends[1]);
	if (r < 0) {
		fd_close(&ends[0]);
		return r;
	}
	*ret_process = (struct device_process){ .jail = jail, .socket = ends[0] };
	return 0;
}

/* Its own message is there already if it died. */
static int wait_ready(struct device_process *process, const char *name)
{
	uint32_t missing;
	char text[256];
	int r = jail_wait_ready(&process->jail, READY_MS, &missing);

	if (r == -ETIMEDOUT)
		log_error("device %s: its jail is not complete after %d s", name, READY_MS / 1000);
	else if (r < 0 && r != -ESRCH)
		log_error("device %s: its jail failed: %s", name, strerror(-r));
	if (r < 0 || missing == 0)
		return r;
	jail_describe_missing(missing, text, sizeof(text));
	log_warn("device %s: its jail lacks: %s", name, text);
	return 0;
}

int device_process_connect(struct device_process *process, const struct device_ops *ops,
	const struct guest_memory *memory, struct vhost **ret_vhost)
{
	int r = wait_ready(process, ops->name);

	if (r < 0)
		return r;
	const struct vhost_user_peer peer = {
		.name = ops->name,
		.socket = fd_steal(&process->socket),
		.queue_size = ops->queue_size,
		.config_size = ops->config_size,
	};

	return vhost_user_frontend_create(&peer, memory, ret_vhost);
}

void device_process_report(const struct device_process *process, const char *name)
{
	siginfo_t how = { .si_pid = 0 };

	if (waitid(P_PIDFD, (id_t)process->jail.pidfd, &how, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		how.si_pid == 0)
		return;
	if (how.si_code == CLD_EXITED)
		log_error("device %s: its process %d ended with status %d", name, how.si_pid,
			how.si_status);
	else
		log_error("device %s: its process %d was ended by signal %d (%s)%s", name,
			how.si_pid, how.si_status, strsignal(how.si_status),
			how.si_status == SIGSYS ? "; it made a system call that it may not" : "");
}

void device_process_end(struct device_process *process)
{
	if (process->jail.pid <= 0)
		return;
	fd_close(&process->socket);
	jail_end(&process->jail, NULL);
	process->jail.pid = 0;
}
