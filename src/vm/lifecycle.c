// SPDX-License-Identifier: BSD-3-Clause
/* The end of a VM. A guest may ask for it from all vCPUs at once, for ever. */
#include "vm/lifecycle.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#include "base/fd.h"

static const struct {
	enum exit_status status;
	const char *text;
} ends[VM_ENDS] = {
	[VM_RUNNING] = { STATUS_OK, "the VM runs" },
	[VM_END_POWER_OFF] = { STATUS_OK, "the guest powered off" },
	[VM_END_REBOOT] = { STATUS_OK, "the guest rebooted, which ends the VM" },
	[VM_END_PANIC] = { STATUS_CRASH, "the guest's kernel panicked; its console tells why" },
	[VM_END_TRIPLE_FAULT] = { STATUS_CRASH, "the guest crashed with a triple fault" },
	[VM_END_STOPPED] = { STATUS_OK, "the VM was stopped" },
	[VM_END_KVM_ERROR] = { STATUS_KVM, "KVM could not go on with the guest" },
};

int lifecycle_init(struct lifecycle *lifecycle)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	lifecycle->eventfd = fd;
	atomic_init(&lifecycle->end, VM_RUNNING);
	return 0;
}

void lifecycle_destroy(struct lifecycle *lifecycle)
{
	fd_close(&lifecycle->eventfd);
}

void lifecycle_end(struct lifecycle *lifecycle, enum vm_end end)
{
	unsigned running = VM_RUNNING;

	if (atomic_compare_exchange_strong(&lifecycle->end, &running, end))
		(void)eventfd_write(lifecycle->eventfd, 1);
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
