// SPDX-License-Identifier: BSD-3-Clause
/*
 * Each function is one or two accesses to the configuration space; only the
 * control loop makes them, so no two requests get the same number.
 */
#include "vm/balloon_control.h"

#include <errno.h>

const char *const balloon_stat_names[BALLOON_STATS] = {
	"swap-in",
	"swap-out",
	"major-faults",
	"minor-faults",
	"free-memory",
	"total-memory",
	"available-memory",
	"disk-caches",
	"hugetlb-allocations",
	"hugetlb-failures",
	"oom-kills",
	"allocation-stalls",
	"async-scans",
	"direct-scans",
	"async-reclaims",
	"direct-reclaims",
};

int balloon_set_target(struct virtio_pci *pci, uint64_t size_mib)
{
	if (size_mib > UINT32_MAX / BALLOON_PAGES_PER_MIB)
		return -EINVAL;
	uint32_t pages = (uint32_t)size_mib * BALLOON_PAGES_PER_MIB;

	return virtio_pci_change_config(
		pci, offsetof(struct balloon_state, target_pages), &pages, sizeof(pages));
}

int balloon_ask_stats(struct virtio_pci *pci, uint32_t *ret_number)
{
	struct balloon_state state = { 0 };
	int r = balloon_read_state(pci, &state);

	if (r < 0)
		return r;
	uint32_t number = state.stats_asked + 1;

	r = virtio_pci_change_config(
		pci, offsetof(struct balloon_state, stats_asked), &number, sizeof(number));
	if (r == 0)
		*ret_number = number;
	return r;
}

int balloon_read_state(struct virtio_pci *pci, struct balloon_state *ret_state)
{
	return virtio_pci_read_config(pci, 0, ret_state, sizeof(*ret_state));
}
