// SPDX-License-Identifier: BSD-3-Clause
/* Starts, greets and ends device processes. They may do anything, and die at any time. */
#include "vm/device_process.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/log.h"
#include "jail/policy_compile.h"
#include "virtio/uring.h"
#include "virtio/vhost_kernel.h"
#include "virtio/vhost_thread.h"
#include "virtio/vhost_user_backend.h"
#include "virtio/vhost_user_frontend.h"
#include "virtio/vhost_user_message.h"

enum {
	READY_MS = 5000,    /* for a jail to be complete */
	FDS_FOR_MEMORY = 8, /* of a memory table on its way */
	FDS_A_QUEUE = 6,    /* kick, call and error, old and new; stop */
	FDS_FOR_FRONT_END = 1,
	FDS_OF_HELPER = 1024, /* it has three; the others are those in flight (base/connector.h) */
	VHOST_WORKERS = 1,    /* which counts as a thread of the process since Linux 6.4 */
	HELPER_MIB = 1,
	MEMORY_MIB = 128,        /* most of it for what vsock's connections hold for the guest */
	MEMORY_MIB_A_QUEUE = 20, /* block_uring.c's requests, of a queue of 1024 */
};

/* ---- the device's side: in the jail ---- */

int device_process_back(const struct device_birth *birth, struct vhost **ret_vhost)
{
	int r = device_is_kernels(birth->ops, birth->device)
			? vhost_kernel_create(birth->ops, birth->device, NULL, ret_vhost)
			: vhost_thread_create(birth->ops, birth->device, NULL, ret_vhost);

	if (r < 0)
		log_error(
			"device %s: its process cannot take it: %s; are memory and processes left?",
			birth->ops->name, strerror(-r));
	return r;
}

int device_process_serve(const struct device_birth *birth)
{
	struct vhost *vhost;
	int r = device_process_back(birth, &vhost);

	if (r < 0)
		return 1;
	r = vhost_user_serve(birth->socket, birth->ops->name, vhost, -1);
	/* The front end waits for the end of the connection, which is that of this process. */
	if (birth->ops->sync != NULL)
		birth->ops->sync(birth->device);
	return r < 0;
}

/* ---- the main process's side ---- */

/* Sanitizers need memory of their own. */
#ifdef SANITIZED
static const uint64_t memory_unit = 0;
#else
static const uint64_t memory_unit = MIB;
#endif

/* What runs in a jail. */
struct life {
	struct device_birth birth;
	int (*main)(const struct device_birth *birth);
};

static int live(void *argument)
{
	const struct life *life = argument;
	const struct device_birth *birth = &life->birth;

	/* The number may be another descriptor's soon: only the main process has this one. */
	if (birth->ops->program_fd != NULL)
		*birth->ops->program_fd(birth->device) = -1;
	return life->main(&life->birth);
}

static int help(const struct device_birth *birth)
{
	return birth->ops->helper->serve(birth->device, birth->socket);
}

/* `config` is complete but for the policy, which is the user's or one of ours. */
static int spawn_by_policy(const struct device_jail *how, const char *name,
	struct jail_config *config, const struct life *life, struct jail_process *ret_process)
{
	struct policy_error error = { "" };
	struct jail_policy *loaded = NULL;

	config->best_effort = how->best_effort;
	config->log_violations = how->log_violations;
	if (how->policy_dir != NULL) {
		int r = policy_load(how->policy_dir, name, POLICY_X86_64, &loaded, &error);

		if (r < 0) {
			log_error("--seccomp-policy-dir: %s", error.text);
			return r;
		}
	}
	config->policy = loaded != NULL ? loaded : jail_policy_find(name);
	if (config->policy == NULL) {
		log_error("device %s: no seccomp policy %s.policy; it cannot be jailed",
			life->birth.ops->name, name);
		return -ENOENT;
	}
	int r = jail_spawn(config, live, (void *)(uintptr_t)life, ret_process);

	policy_unload(loaded); /* the process has its copy */
	return r;
}

int device_process_make_pair(const char *name, int type, int ret_ends[2])
{
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret_ends) == 0)
		return 0;
	int error = errno;

	log_error("device %s: cannot make a socket pair: %s", name, strerror(error));
	return -error;
}

/* The device's end of the pair in *ret_socket; -1 where it needs no helper. */
static int start_helper(const struct device_jail *how, const struct device_ops *ops,
	struct device *device, struct jail_process *ret_process, int *ret_socket)
{
	char directory[PATH_MAX];
	int ends[2];

	int r = ops->helper != NULL ? ops->helper->directory(device, directory, sizeof(directory))
				    : 0;

	if (r <= 0)
		return r;
	r = device_process_make_pair(ops->name, SOCK_SEQPACKET, ends);
	if (r < 0)
		return r;
	const struct life life = {
		.birth = { .ops = ops, .device = device, .socket = ends[1] },
		.main = help,
	};
	struct jail_config config = {
		.name = ops->helper->name,
		.keep_fds = &ends[1],
		.keep_fd_count = 1,
		.limits = {
			.spare_fds = FDS_OF_HELPER,
			.threads = 1,
			.memory = HELPER_MIB * memory_unit,
		},
		.root = directory,
	};

	r = spawn_by_policy(how, ops->helper->policy, &config, &life, ret_process);
	fd_close(&ends[1]);
	if (r < 0)
		fd_close(&ends[0]);
	else
		*ret_socket = ends[0];
	return r;
}

/* Its own, and those that the kernel makes for it. */
static unsigned threads_of(const struct device_ops *ops, const struct device *device)
{
	if (device_is_kernels(ops, device))
		return 1 + VHOST_WORKERS;
	return 1 + ops->queue_count(device) + (ops->prepare != NULL ? URING_WORKERS : 0);
}

static int spawn(
	const struct device_jail *how, const struct life *life, struct jail_process *ret_process)
{
	const struct device_ops *ops = life->birth.ops;
	unsigned queues = ops->queue_count(life->birth.device);
	bool is_kernels = device_is_kernels(ops, life->birth.device);
	int fds[2 + DEVICE_FDS_MAX] = { life->birth.socket };
	size_t count = 1;
	char policy[32];

	snprintf(policy, sizeof(policy), "%s%s_device", is_kernels ? "vhost_" : "", ops->name);
	if (is_kernels)
		fds[count++] = ops->kernel->fd(life->birth.device);
	if (ops->fds != NULL)
		count += ops->fds(life->birth.device, fds + count);
	struct jail_config jail = {
		.name = ops->name,
		.keep_fds = fds,
		.keep_fd_count = count,
		.limits = {
			.spare_fds = FDS_FOR_MEMORY + FDS_A_QUEUE * queues + FDS_FOR_FRONT_END +
				     ops->spare_fds,
			.threads = threads_of(ops, life->birth.device),
			.memory = (MEMORY_MIB + MEMORY_MIB_A_QUEUE * queues) * memory_unit,
		},
	};

	return spawn_by_policy(how, policy, &jail, life, ret_process);
}

/* While it can be asked. */
static int learn_offer(
	const struct device_ops *ops, struct device *device, struct device_process *process)
{
	int r = ops->config_size == 0
			? 0
			: device_get_config(ops, device, 0, process->config, ops->config_size);

	process->queues = ops->queue_count(device);
	process->features = ops->features(device) | VHOST_RING_FEATURES;
	if (r == 0 && device_is_kernels(ops, device))
		r = vhost_kernel_features(ops, device, &process->features);
	if (r < 0)
		log_error("device %s: cannot tell what it offers: %s", ops->name, strerror(-r));
	return r;
}

/* Both processes; on failure there may be one. */
static int start_both(
	const struct device_jail *jail, const struct life *life, struct device_process *process)
{
	CLEANUP_FD int helper_fd = -1;
	const struct device_ops *ops = life->birth.ops;
	struct device *device = life->birth.device;
	int r = start_helper(jail, ops, device, &process->helper, &helper_fd);

	if (r < 0)
		return r;
	if (helper_fd >= 0)
		ops->helper->attach(device, helper_fd);
	if (ops->prepare != NULL)
		ops->prepare(device);
	r = spawn(jail, life, &process->jail);
	if (ops->let_go != NULL)
		ops->let_go(device);
	if (helper_fd >= 0) /* only the process has it */
		ops->helper->attach(device, -1);
	return r;
}

int device_process_start(const struct device_jail *jail, const struct device_ops *ops,
	struct device *device, int type, int (*main)(const struct device_birth *birth),
	struct device_process *ret_process)
{
	int ends[2];
	int r = device_process_make_pair(ops->name, type, ends);

	if (r < 0)
		return r;
	struct device_process process = { .socket = ends[0] };
	const struct life life = {
		.birth = { .ops = ops, .device = device, .socket = ends[1] },
		.main = main,
	};

	r = learn_offer(ops, device, &process);
	if (r == 0)
		r = start_both(jail, &life, &process);
	fd_close(&ends[1]);
	if (r < 0) {
		fd_close(&ends[0]);
		device_process_end(&process);
		return r;
	}
	*ret_process = process;
	return 0;
}

void device_process_release(struct device_process *process)
{
	if (process->helper.pid > 0)
		jail_release(&process->helper);
	if (process->jail.pid > 0)
		jail_release(&process->jail);
}

/* Its own message is there already if it died by itself. */
static int wait_for_jail(struct jail_process *jail, const char *name)
{
	uint32_t missing;
	char text[256];
	int r = jail_wait_ready(jail, READY_MS, &missing);

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

bool device_process_report(const struct jail_process *process, const char *name)
{
	siginfo_t how = { .si_pid = 0 };

	if (process->pid == 0 ||
		waitid(P_PIDFD, (id_t)process->pidfd, &how, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		how.si_pid == 0)
		return false;
	if (how.si_code == CLD_EXITED)
		log_error("device %s: its process %d ended with status %d", name, how.si_pid,
			how.si_status);
	else
		log_error("device %s: its process %d was ended by signal %d (%s)%s", name,
			how.si_pid, how.si_status, strsignal(how.si_status),
			how.si_status == SIGSYS ? "; it made a system call that it may not: "
						  "'journalctl -k -g SECCOMP' says which"
						: "");
	return how.si_code != CLD_EXITED || how.si_status != 0;
}

static int await(struct jail_process *jail, const char *name)
{
	int r = wait_for_jail(jail, name);

	if (r == -ESRCH)
		(void)device_process_report(jail, name);
	return r;
}

int device_process_wait(struct device_process *process, const struct device_ops *ops)
{
	int r = process->helper.pid > 0 ? await(&process->helper, ops->helper->name) : 0;

	return r == 0 ? await(&process->jail, ops->name) : r;
}

int device_process_connect(struct device_process *process, const struct device_ops *ops,
	const struct guest_memory *memory, const struct device_loss *loss, struct vhost **ret_vhost)
{
	const struct vhost_user_offer offer = {
		.features = process->features,
		.config = process->config,
	};
	const struct vhost_user_peer peer = {
		.name = ops->name,
		.socket = fd_steal(&process->socket),
		.queue_size = ops->queue_size,
		.config_size = ops->config_size,
		.lost = loss->lost,
		.owner = loss->owner,
		.control_size = ops->control_size,
		.takes_changes = true,
		.syncs = ops->sync != NULL,
		.has_window = ops->window_size > 0,
		.queues = process->queues,
		.known = &offer,
	};

	return vhost_user_frontend_create(&peer, memory, ret_vhost);
}

void device_process_end(struct device_process *process)
{
	if (process->jail.pid > 0) {
		fd_close(&process->socket);
		jail_end(&process->jail, NULL);
		process->jail.pid = 0;
	}
	if (process->helper.pid > 0) {
		jail_end(&process->helper, NULL);
		process->helper.pid = 0;
	}
}
