/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long a hostile process may let us wait, in all: vhost_user_frontend.h has
 * the rule. Nothing of it comes from that process but the time that it takes.
 *
 * Under the lock of the device that it is of.
 */
#pragma once

#include "base/clock.h"
#include "base/util.h"

enum { VHOST_USER_CREDIT_MS = 4000, VHOST_USER_CREDIT_REFILL = 8 };

struct vhost_user_credit {
	uint64_t left_ns;
	uint64_t counted_ns; /* when left_ns was right */
};

static inline struct vhost_user_credit vhost_user_credit_new(void)
{
	return (struct vhost_user_credit){ VHOST_USER_CREDIT_MS * NS_PER_MS, clock_monotonic_ns() };
}

/* Brings the credit up to date, before something to wait for. When that must have come. */
static inline uint64_t vhost_user_credit_deadline(struct vhost_user_credit *credit)
{
	uint64_t now = clock_monotonic_ns();

	credit->left_ns = min_u64(VHOST_USER_CREDIT_MS * NS_PER_MS,
		credit->left_ns + (now - credit->counted_ns) / VHOST_USER_CREDIT_REFILL);
	credit->counted_ns = now;
	return now + credit->left_ns;
}

/* After it: takes off the time since. */
static inline void vhost_user_credit_charge(struct vhost_user_credit *credit)
{
	uint64_t now = clock_monotonic_ns();

	credit->left_ns -= min_u64(credit->left_ns, now - credit->counted_ns);
	credit->counted_ns = now;
}
