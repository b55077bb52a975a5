/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a new process enters the jail: named stages, one after the other, each
 * giving up something for good. Runs in the process that jail_spawn() has just
 * made, with the rights of the user; nothing untrusted is looked at yet.
 */
#pragma once

#include "jail/jail.h"

/* What the parent knows of the process that it makes. */
struct jail_birth {
	uint32_t missing; /* the namespaces that it could not be born into */
	bool by_root;
	uid_t uid; /* the ids that it shall have, if it may */
	gid_t gid;
	struct jail_identity mapped; /* in a user namespace; from the parent, when it lets it go */
	int parent_pidfd;            /* closed on the way */
	int status_fd;               /* gets a struct jail_report; closed then */
};

/* To the parent, once. */
struct jail_report {
	uint32_t missing;
};

/* Maps one id to itself, in a user namespace's uid_map or gid_map at `path`. 0 or -errno. */
MUST_CHECK int jail_write_map(const char *path, unsigned id);

/*
 * Returns inside of the jail. On any failure that best_effort does not cover the
 * process ends with JAIL_EXIT_STATUS and one line on stderr that names the
 * stage, the error and what to do: there is no half-entered jail.
 */
void jail_enter(const struct jail_config *config, const struct jail_birth *birth);
