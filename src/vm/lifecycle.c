// SPDX-License-Identifier: BSD-3-Clause
/* The end of a VM. A guest may ask for it from all vCPUs at once, for ever. */
#include "vm/lifecycle.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/fd.h"

static const struct {
	enum exit_status status;
	const char *event;
	const char *text;
} ends[VM_ENDS] = {
	[VM_RUNNING] = { STATUS_OK, NULL, "the VM runs" },
	[VM_END_POWER_OFF] = { STATUS_OK, "power-off", "the guest powered off" },
	[VM_END_REBOOT] = { STATUS_OK, "reset", "the guest rebooted, which ends the VM" },
	[VM_END_PANIC] = { STATUS_CRASH, "panic",
		"the guest's kernel panicked; its console tells why" },
	[VM_END_TRIPLE_FAULT] = { STATUS_CRASH, "triple-fault",
		"the guest crashed with a triple fault" },
	[VM_END_STOPPED] = { STATUS_OK, "stopped", "the VM was stopped" },
	[VM_END_KVM_ERROR] = { STATUS_KVM, "kvm-error", "KVM could not go on with the guest" },
	[VM_END_HOST] = { STATUS_HOST, "host-error",
		"the host refused what the VM needs, as said above" },
	[VM_END_DEVICE] = { STATUS_DEVICE, "device-lost",
		"the process of a device was lost, as said above" },
};

int lifecycle_open_fd(struct lifecycle *lifecycle, int *ret_fd)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	/* Whoever ends the VM now signals it; for an end before, it is signalled here. */
	atomic_store(&lifecycle->eventfd, fd);
	if (lifecycle_get(lifecycle) != VM_RUNNING)
		(void)eventfd_write(fd, 1);
	*ret_fd = fd;
	return 0;
}

void lifecycle_destroy(struct lifecycle *lifecycle)
{
	int fd = atomic_exchange(&lifecycle->eventfd, -1);

	fd_close(&fd);
}

void lifecycle_end(struct lifecycle *lifecycle, enum vm_end end)
{
	unsigned running = VM_RUNNING;

	if (!atomic_compare_exchange_strong(&lifecycle->end, &running, end))
		return;
	int fd = atomic_load(&lifecycle->eventfd);

	if (fd >= 0)
		(void)eventfd_write(fd, 1);
}

enum vm_end lifecycle_get(struct lifecycle *lifecycle)
{
	return atomic_load(&lifecycle->end);
}

enum exit_status vm_end_status(enum vm_end end)
{
	return ends[end].status;
}

const char *vm_end_text(enum vm_end end)
{
	return ends[end].text;
}

const char *vm_end_event(enum vm_end end)
{
	return ends[end].event;
}

bool vm_end_has_event(const char *name)
{
	for (size_t i = 0; i < VM_ENDS; i++)
		if (ends[i].event != NULL && strcmp(ends[i].event, name) == 0)
			return true;
	return false;
}
