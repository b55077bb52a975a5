// SPDX-License-Identifier: BSD-3-Clause
/* Reads the host's resolv.conf, which is its administrator's. */
#include "virtio/net_resolver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/fd.h"

#define RESOLV_CONF "/etc/resolv.conf"
/* Hidden for a moment, in the child's own namespace. */
#define PLACE "/tmp"

enum { TEXT_MAX = 8192 };

bool net_resolver_text_is_local(const char *text)
{
	bool is_local = false;

	for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
		char address[INET_ADDRSTRLEN];
		struct in_addr in;

		line += *line == '\n';
		if (sscanf(line, "nameserver%*[ \t]%15[0-9.]", address) != 1 ||
			inet_pton(AF_INET, address, &in) != 1)
			continue;
		if (ntohl(in.s_addr) >> 24 != 127)
			return false;
		is_local = true;
	}
	return is_local;
}

bool net_resolver_is_local(void)
{
	char text[TEXT_MAX] = "";

	return fd_read_text(RESOLV_CONF, text, sizeof(text)) == 0 &&
	       net_resolver_text_is_local(text);
}

static int map_to_itself(const char *path, unsigned id)
{
	char map[32];

	snprintf(map, sizeof(map), "%u %u 1", id, id);
	return fd_write_text(path, 0, map);
}

static int enter_namespaces(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) < 0)
		return -errno;
	if (uid == 0)
		return 0;
	int r = map_to_itself("/proc/self/uid_map", uid);

	if (r == 0)
		r = fd_write_text("/proc/self/setgroups", 0, "deny");
	return r == 0 ? map_to_itself("/proc/self/gid_map", gid) : r;
}

int net_resolver_show(void)
{
	char text[TEXT_MAX], shown[TEXT_MAX + 64];
	int r = fd_read_text(RESOLV_CONF, text, sizeof(text));

	if (r == 0)
		r = enter_namespaces();
	if (r < 0)
		return r;
	snprintf(shown, sizeof(shown), "%s\nnameserver " NET_RESOLVER "\n", text);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("tmpfs", PLACE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return -errno;
	r = fd_write_text(PLACE "/resolv.conf", O_CREAT | O_EXCL, shown);
	if (r == 0 && mount(PLACE "/resolv.conf", RESOLV_CONF, NULL, MS_BIND, NULL) < 0)
		r = -errno;
	/* What was mounted stays. */
	if (umount2(PLACE, MNT_DETACH) < 0 && r == 0)
		r = -errno;
	return r;
}
