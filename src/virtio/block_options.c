// SPDX-License-Identifier: BSD-3-Clause
/* Parses the options of a disk. Paths and values are the user's. */
#include "virtio/block_options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "virtio/device.h"

const struct block_options block_default_options = { .block_size = SECTOR_SIZE, .queues = 1 };

static int apply_path(void *target, const char *option, const char *value)
{
	(void)option;
	((struct block_options *)target)->path = value;
	return 0;
}

static int apply_ro(void *target, const char *option, const char *value)
{
	return suboption_bool(option, "ro", value, &((struct block_options *)target)->read_only);
}

static int apply_root(void *target, const char *option, const char *value)
{
	return suboption_bool(option, "root", value, &((struct block_options *)target)->root);
}

static int apply_direct(void *target, const char *option, const char *value)
{
	return suboption_bool(option, "direct", value, &((struct block_options *)target)->direct);
}

static int apply_sparse(void *target, const char *option, const char *value)
{
	bool sparse;
	int r = suboption_bool(option, "sparse", value, &sparse);

	if (r == 0)
		((struct block_options *)target)->no_discard = !sparse;
	return r;
}

static int apply_block_size(void *target, const char *option, const char *value)
{
	uint64_t size;
	int r = suboption_number(option, "block-size", value, SECTOR_SIZE, 4096, &size);

	if (r == 0 && (size & (size - 1)) != 0) {
		log_error("%s: block-size=%s is not a power of two", option, value);
		return -EINVAL;
	}
	if (r == 0)
		((struct block_options *)target)->block_size = (unsigned)size;
	return r;
}

static int apply_id(void *target, const char *option, const char *value)
{
	struct block_options *disk = target;

	if (strlen(value) > BLOCK_ID_SIZE) {
		log_error("%s: id=%s is longer than %d characters", option, value, BLOCK_ID_SIZE);
		return -EINVAL;
	}
	memcpy(disk->id, value, strlen(value) + 1);
	return 0;
}

static int apply_queues(void *target, const char *option, const char *value)
{
	uint64_t queues;
	int r = suboption_number(option, "queues", value, 1, DEVICE_QUEUES_MAX, &queues);

	if (r == 0)
		((struct block_options *)target)->queues = (unsigned)queues;
	return r;
}

static int apply_format(void *target, const char *option, const char *value)
{
	if (strcmp(value, "raw") != 0) {
		log_error("%s: format=%s: only raw is there; convert the image with qemu-img",
			option, value);
		return -EINVAL;
	}
	((struct block_options *)target)->raw = true;
	return 0;
}

static int apply_snapshot(void *target, const char *option, const char *value)
{
	return suboption_bool(
		option, "snapshot", value, &((struct block_options *)target)->snapshot);
}

static int apply_engine(void *target, const char *option, const char *value)
{
	bool sync = strcmp(value, "sync") == 0;

	if (!sync && strcmp(value, "uring") != 0) {
		log_error("%s: engine=%s is neither uring nor sync", option, value);
		return -EINVAL;
	}
	((struct block_options *)target)->sync_engine = sync;
	return 0;
}

const struct suboption block_suboptions[BLOCK_SUBOPTIONS] = {
	/* First: a value without a name. */
	{ "path", true, apply_path, .with_commas = "--disk or --rwdisk of 'crosvm run'" },
	{ "ro", false, apply_ro },
	{ "root", false, apply_root },
	{ "direct", false, apply_direct },
	{ "sparse", false, apply_sparse },
	{ "block-size", true, apply_block_size },
	{ "id", true, apply_id },
	{ "queues", true, apply_queues },
	{ "format", true, apply_format },
	{ "engine", true, apply_engine },
	{ "snapshot", false, apply_snapshot },
};

int block_options_check(const char *option, const void *opaque_options)
{
	const struct block_options *options = opaque_options;

	if (options->path != NULL && *options->path != '\0')
		return 0;
	log_error("%s: no path; say path=FILE", option);
	return -EINVAL;
}

/* vda to vdz, then vdaa, as the kernel counts them. Writes after "vd". */
static void name_disk(unsigned index, char *ret_letters, size_t size)
{
	char reversed[8];
	size_t n = 0;

	do {
		reversed[n++] = (char)('a' + index % 26);
		index = index / 26;
	} while (index-- > 0 && n < sizeof(reversed));
	for (size_t i = 0; i < n && i + 1 < size; i++)
		ret_letters[i] = reversed[n - 1 - i];
	ret_letters[n < size ? n : size - 1] = '\0';
}

void block_kernel_params(const void *opaque_options, unsigned index, char *ret_text, size_t size)
{
	const struct block_options *options = opaque_options;
	char letters[8];

	*ret_text = '\0';
	if (!options->root)
		return;
	name_disk(index, letters, sizeof(letters));
	snprintf(ret_text, size, " root=/dev/vd%s %s", letters, options->read_only ? "ro" : "rw");
}
