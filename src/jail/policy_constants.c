// SPDX-License-Identifier: BSD-3-Clause
/* Two tables of names. Values are those of the architecture that this is built for. */
#include "jail/policy_constants.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/prctl.h>
#include <linux/vhost.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <termios.h>

#include "jail/policy.h"

/* Kernel 5.17, newer than Debian 12's C library. */
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* What glibc's pthread_create() gives to clone(): every thread is made with exactly these. */
#define CLONE_PTHREAD                                                                              \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |        \
		CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)
/* The signal by which glibc makes all threads change their user; it has no name outside. */
#define SIGSETXID 33

#define NAME(constant)                                                                             \
	{                                                                                          \
#constant, constant                                                                \
	}

struct constant {
	const char *name;
	uint64_t value;
};

static const struct constant constants[] = {
	/* mmap, mprotect, madvise, mremap */
	NAME(PROT_NONE),
	NAME(PROT_READ),
	NAME(PROT_WRITE),
	NAME(PROT_EXEC),
	NAME(MAP_SHARED),
	NAME(MAP_PRIVATE),
	NAME(MAP_FIXED),
	NAME(MAP_ANONYMOUS),
	NAME(MAP_GROWSDOWN),
	NAME(MAP_NORESERVE),
	NAME(MAP_STACK),
	NAME(MAP_HUGETLB),
	NAME(MADV_NORMAL),
	NAME(MADV_DONTNEED),
	NAME(MADV_FREE),
	NAME(MADV_REMOVE),
	NAME(MADV_DONTFORK),
	NAME(MADV_DONTDUMP),
	NAME(MADV_HUGEPAGE),
	NAME(MADV_NOHUGEPAGE),
	NAME(MREMAP_MAYMOVE),
	/* clone */
	NAME(CLONE_VM),
	NAME(CLONE_FS),
	NAME(CLONE_FILES),
	NAME(CLONE_SIGHAND),
	NAME(CLONE_THREAD),
	NAME(CLONE_SYSVSEM),
	NAME(CLONE_SETTLS),
	NAME(CLONE_PARENT_SETTID),
	NAME(CLONE_CHILD_CLEARTID),
	NAME(CLONE_PTHREAD),
	/* signals */
	{ "OWN_PID", JAIL_OWN_PID },
	NAME(SIGABRT),
	NAME(SIGHUP),
	NAME(SIGSYS),
	NAME(SIGUSR2),
	NAME(SIGSETXID),
	NAME(SIG_BLOCK),
	NAME(SIG_UNBLOCK),
	NAME(SIG_SETMASK),
	/* fcntl, files */
	NAME(F_DUPFD),
	NAME(F_DUPFD_CLOEXEC),
	NAME(F_GETFD),
	NAME(F_SETFD),
	NAME(F_GETFL),
	NAME(F_SETFL),
	NAME(F_GET_SEALS),
	NAME(F_ADD_SEALS),
	NAME(FD_CLOEXEC),
	NAME(O_RDONLY),
	NAME(O_WRONLY),
	NAME(O_RDWR),
	NAME(O_CLOEXEC),
	NAME(O_NONBLOCK),
	NAME(AT_EMPTY_PATH),
	NAME(MFD_CLOEXEC),
	NAME(MFD_ALLOW_SEALING),
	NAME(SEEK_SET),
	NAME(SEEK_CUR),
	NAME(SEEK_END),
	NAME(FALLOC_FL_KEEP_SIZE),
	NAME(FALLOC_FL_PUNCH_HOLE),
	NAME(FALLOC_FL_ZERO_RANGE),
	NAME(RWF_HIPRI),
	NAME(RWF_DSYNC),
	NAME(RWF_SYNC),
	NAME(RWF_NOWAIT),
	NAME(BLKDISCARD),
	NAME(BLKZEROOUT),
	NAME(FIONBIO),
	NAME(FIONREAD),
	NAME(TUNSETOFFLOAD),
	NAME(TUNSETQUEUE),
	NAME(TCGETS),
	NAME(TCSETS),
	NAME(TIOCGPGRP),
	/* KVM, vhost */
	NAME(KVM_RUN),
	NAME(KVM_IRQ_LINE),
	NAME(KVM_REGISTER_COALESCED_MMIO),
	NAME(KVM_UNREGISTER_COALESCED_MMIO),
	NAME(KVM_IRQFD),
	NAME(KVM_IOEVENTFD),
	NAME(KVM_SET_GSI_ROUTING),
	NAME(KVM_SET_USER_MEMORY_REGION),
	NAME(KVM_GET_REGS),
	NAME(KVM_GET_SREGS),
	NAME(KVM_KVMCLOCK_CTRL),
	NAME(VHOST_GET_FEATURES),
	NAME(VHOST_SET_FEATURES),
	NAME(VHOST_SET_OWNER),
	NAME(VHOST_SET_MEM_TABLE),
	NAME(VHOST_SET_VRING_NUM),
	NAME(VHOST_SET_VRING_ADDR),
	NAME(VHOST_SET_VRING_BASE),
	NAME(VHOST_GET_VRING_BASE),
	NAME(VHOST_SET_VRING_KICK),
	NAME(VHOST_SET_VRING_CALL),
	NAME(VHOST_SET_VRING_ERR),
	NAME(VHOST_NET_SET_BACKEND),
	NAME(VHOST_VSOCK_SET_RUNNING),
	/* sockets */
	NAME(AF_UNIX),
	NAME(AF_INET),
	NAME(AF_INET6),
	NAME(AF_NETLINK),
	NAME(AF_VSOCK),
	NAME(SOCK_STREAM),
	NAME(SOCK_DGRAM),
	NAME(SOCK_SEQPACKET),
	NAME(SOCK_CLOEXEC),
	NAME(SOCK_NONBLOCK),
	NAME(SOL_SOCKET),
	NAME(SO_SNDBUF),
	NAME(SHUT_RD),
	NAME(SHUT_WR),
	NAME(SHUT_RDWR),
	/* the rest */
	NAME(PR_SET_NAME),
	NAME(PR_SET_VMA),
	NAME(GRND_NONBLOCK),
	NAME(GRND_RANDOM),
	NAME(IORING_REGISTER_RESTRICTIONS),
	NAME(IORING_REGISTER_ENABLE_RINGS),
	NAME(IORING_ENTER_GETEVENTS),
	NAME(IORING_ENTER_SQ_WAKEUP),
	NAME(IORING_ENTER_SQ_WAIT),
	NAME(IORING_ENTER_EXT_ARG),
};

static const struct constant errnos[] = {
	NAME(EPERM),
	NAME(ENOENT),
	NAME(EINTR),
	NAME(EIO),
	NAME(EBADF),
	NAME(EAGAIN),
	NAME(ENOMEM),
	NAME(EACCES),
	NAME(EEXIST),
	NAME(ENODEV),
	NAME(EINVAL),
	NAME(ENOTTY),
	NAME(ENOSYS),
	NAME(EOPNOTSUPP),
	NAME(EAFNOSUPPORT),
};

static int find(const struct constant *table, size_t count, const char *name, uint64_t *ret_value)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(table[i].name, name) == 0) {
			*ret_value = table[i].value;
			return 0;
		}
	}
	return -ENOENT;
}

int policy_constant_find(const char *name, uint64_t *ret_value)
{
	return find(constants, ARRAY_SIZE(constants), name, ret_value);
}

int policy_errno_find(const char *name, int *ret_errno)
{
	uint64_t value;
	int r = find(errnos, ARRAY_SIZE(errnos), name, &value);

	if (r == 0)
		*ret_errno = (int)value;
	return r;
}
