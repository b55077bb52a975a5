// SPDX-License-Identifier: BSD-3-Clause
/* Parses disk options. Paths and values are the user's. */
#include "cli/disks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/options.h"
#include "cli/suboptions.h"
#include "virtio/device.h"

/* A disk on its way into the configuration. */
struct draft {
	struct block_options disk;
	bool root;
};

static const struct block_options default_disk = { .block_size = SECTOR_SIZE, .queues = 1 };

static int apply_path(void *target, const char *option, const char *value)
{
	(void)option;
	((struct draft *)target)->disk.path = value;
	return 0;
}

static int apply_ro(void *target, const char *option, const char *value)
{
	return suboption_bool(option, "ro", value, &((struct draft *)target)->disk.read_only);
}

static int apply_root(void *target, const char *option, const char *value)
{
	return suboption_bool(option, "root", value, &((struct draft *)target)->root);
}

static int apply_direct(void *target, const char *option, const char *value)
{
	return suboption_bool(option, "direct", value, &((struct draft *)target)->disk.direct);
}

static int apply_sparse(void *target, const char *option, const char *value)
{
	bool sparse;
	int r = suboption_bool(option, "sparse", value, &sparse);

	if (r == 0)
		((struct draft *)target)->disk.no_discard = !sparse;
	return r;
}

static int apply_block_size(void *target, const char *option, const char *value)
{
	uint64_t size;
	int r = option_parse_number(option, value, SECTOR_SIZE, 4096, &size);

	if (r == 0 && (size & (size - 1)) != 0) {
		log_error("--%s: block-size=%s is not a power of two", option, value);
		return -EINVAL;
	}
	if (r == 0)
		((struct draft *)target)->disk.block_size = (unsigned)size;
	return r;
}

static int apply_id(void *target, const char *option, const char *value)
{
	struct block_options *disk = &((struct draft *)target)->disk;

	if (strlen(value) > BLOCK_ID_SIZE) {
		log_error("--%s: id=%s is longer than %d characters", option, value, BLOCK_ID_SIZE);
		return -EINVAL;
	}
	memcpy(disk->id, value, strlen(value) + 1);
	return 0;
}

static int apply_queues(void *target, const char *option, const char *value)
{
	uint64_t queues;
	int r = option_parse_number(option, value, 1, DEVICE_QUEUES_MAX, &queues);

	if (r == 0)
		((struct draft *)target)->disk.queues = (unsigned)queues;
	return r;
}

static int apply_format(void *target, const char *option, const char *value)
{
	if (strcmp(value, "raw") != 0) {
		log_error("--%s: format=%s: only raw is there; convert the image with qemu-img",
			option, value);
		return -EINVAL;
	}
	((struct draft *)target)->disk.raw = true;
	return 0;
}

static int apply_engine(void *target, const char *option, const char *value)
{
	bool sync = strcmp(value, "sync") == 0;

	if (!sync && strcmp(value, "uring") != 0) {
		log_error("--%s: engine=%s is neither uring nor sync", option, value);
		return -EINVAL;
	}
	((struct draft *)target)->disk.sync_engine = sync;
	return 0;
}

static const struct suboption rows[] = {
	{ "path", true, apply_path }, /* first: a value without a name */
	{ "ro", false, apply_ro },
	{ "root", false, apply_root },
	{ "direct", false, apply_direct },
	{ "sparse", false, apply_sparse },
	{ "block-size", true, apply_block_size },
	{ "id", true, apply_id },
	{ "queues", true, apply_queues },
	{ "format", true, apply_format },
	{ "engine", true, apply_engine },
};

static int add(struct vm_config *config, const char *option, const struct draft *draft)
{
	if (draft->disk.path == NULL || *draft->disk.path == '\0') {
		log_error("--%s: no path; pass --%s path=FILE", option, option);
		return -EINVAL;
	}
	if (draft->root && config->root_disk >= 0) {
		log_error("--%s: a second root disk; give one", option);
		return -EINVAL;
	}
	if (config->disk_count == VM_DISKS_MAX) {
		log_error("--%s: more than %d disks", option, VM_DISKS_MAX);
		return -EINVAL;
	}
	struct block_options *disks =
		realloc(config->disks, (config->disk_count + 1) * sizeof(config->disks[0]));

	if (disks == NULL)
		return -ENOMEM;
	if (draft->root)
		config->root_disk = (int)config->disk_count;
	config->disks = disks;
	config->disks[config->disk_count++] = draft->disk;
	return 0;
}

int disks_add_block(struct vm_config *config, char *spec)
{
	struct draft draft = { .disk = default_disk };
	int r = suboptions_parse("block", rows, ARRAY_SIZE(rows), spec, &draft);

	return r == 0 ? add(config, "block", &draft) : r;
}

int disks_add_path(
	struct vm_config *config, const char *option, const char *path, bool read_only, bool root)
{
	struct draft draft = { .disk = default_disk, .root = root };

	draft.disk.path = path;
	draft.disk.read_only = read_only;
	return add(config, option, &draft);
}
