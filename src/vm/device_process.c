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
#include "jail/policy_compile.h"
#include "virtio/vhost_thread.h"
#include "virtio/vhost_user_backend.h"
#include "virtio/vhost_user_frontend.h"

enum {
	READY_MS = 5000,    /* for a jail to be complete */
	FDS_FOR_MEMORY = 8, /* of a memory table on its way */
	FDS_A_QUEUE = 6,    /* kick, call and error, old and new; stop */
	FDS_FOR_FRONT_END = 1,
	KERNEL_THREADS = 64, /* io_uring's workers count as threads of the process */
};

/* ---- the device's side: in the jail ---- */

int device_process_serve(const struct device_birth *birth)
{
	struct vhost *vhost;
	int r = vhost_thread_create(birth->ops, birth->device, NULL, &vhost);

	if (r == 0)
		r = vhost_user_serve(birth->socket, birth->ops->name, vhost, -1);
	return r < 0;
}

/* ---- the main process's side ---- */

/* What runs in the jail. */
struct life {
	struct device_birth birth;
	int (*main)(const struct device_birth *birth);
};

static int live(void *argument)
{
	const struct life *life = argument;

	return life->main(&life->birth);
}

/* A policy of the user's is the caller's to unload. */
static int find_policy(const struct device_jail *jail, const char *device,
	const struct jail_policy **ret_policy, struct jail_policy **ret_loaded)
{
	struct policy_error error = { "" };
	char name[32];

	snprintf(name, sizeof(name), "%s_device", device);
	if (jail->policy_dir != NULL) {
		int r = policy_load(jail->policy_dir, name, ret_loaded, &error);

		if (r < 0)
			log_error("--seccomp-policy-dir: %s", error.text);
		else
			*ret_policy = *ret_loaded;
		return r;
	}
	*ret_policy = jail_policy_find(name);
	if (*ret_policy == NULL) {
		log_error("device %s: no seccomp policy %s.policy; it cannot be jailed", device,
			name);
		return -ENOENT;
	}
	return 0;
}

static int spawn(const struct device_jail *how, const struct life *life,
	const struct jail_policy *policy, struct jail_process *ret_process)
{
	const struct device_ops *ops = life->birth.ops;
	unsigned queues = ops->queue_count(life->birth.device);
	int fds[1 + DEVICE_FDS_MAX] = { life->birth.socket };
	size_t count = 1;

	if (ops->fds != NULL)
		count += ops->fds(life->birth.device, fds + 1);
	const struct jail_config jail = {
		.name = ops->name,
		.policy = policy,
		.keep_fds = fds,
		.keep_fd_count = count,
		.limits = {
			.spare_fds = FDS_FOR_MEMORY + FDS_A_QUEUE * queues + FDS_FOR_FRONT_END,
			.threads = 1 + queues + KERNEL_THREADS,
		},
		.best_effort = how->best_effort,
		.log_violations = how->log_violations,
	};

	return jail_spawn(&jail, live, (void *)(uintptr_t)life, ret_process);
}

int device_process_start(const struct device_jail *jail, const struct device_ops *ops,
	struct device *device, int type, int (*main)(const struct device_birth *birth),
	struct device_process *ret_process)
{
	const struct jail_policy *policy = NULL;
	struct jail_policy *loaded = NULL;
	struct jail_process process;
	int ends[2];
	int r = find_policy(jail, ops->name, &policy, &loaded);

	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) < 0) {
		r = -errno;
		log_error("device %s: cannot make a socket pair: %s", ops->name, strerror(-r));
		policy_unload(loaded);
		return r;
	}
	if (ops->prepare != NULL)
		ops->prepare(device);
	const struct life life = {
		.birth = { .ops = ops, .device = device, .socket = ends[1] },
		.main = main,
	};

	r = spawn(jail, &life, policy, &process);
	policy_unload(loaded); /* the process has its copy */
	fd_close(&ends[1]);
	if (r < 0) {
		fd_close(&ends[0]);
		return r;
	}
	*ret_process = (struct device_process){ .jail = process, .socket = ends[0] };
	return 0;
}

/* Its own message is there already if it died. */
int device_process_wait(struct device_process *process, const char *name)
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
	const struct guest_memory *memory, const struct device_loss *loss, struct vhost **ret_vhost)
{
	int r = device_process_wait(process, ops->name);

	if (r < 0)
		return r;
	const struct vhost_user_peer peer = {
		.name = ops->name,
		.socket = fd_steal(&process->socket),
		.queue_size = ops->queue_size,
		.config_size = ops->config_size,
		.lost = loss->lost,
		.owner = loss->owner,
		.control_size = ops->control_size,
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
			how.si_status == SIGSYS ? "; it made a system call that it may not: "
						  "'journalctl -k -g SECCOMP' says which"
						: "");
}

void device_process_end(struct device_process *process)
{
	if (process->jail.pid <= 0)
		return;
	fd_close(&process->socket);
	jail_end(&process->jail, NULL);
	process->jail.pid = 0;
}
