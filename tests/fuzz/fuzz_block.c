// SPDX-License-Identifier: BSD-3-Clause
/*
 * A program of a hostile driver against the block device: requests of all
 * kinds with lies in each field, cut into descriptors anywhere, and raw writes
 * to the rings. The device works through a real virtqueue on a memfd.
 *
 * A model of our own does each request on a copy of the disk and of guest
 * memory, so that not only a wild access is found but every wrong byte, status
 * and used length. After a raw write the model is blind; then the file must
 * still keep its size, and what lies behind the disk in it its content.
 */
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "memory/guest_memory.h"
#include "virtio/block_image.h"
#include "virtio/block_request.h"
#include "virtio/device.h"
#include "virtio/vhost_thread.h"

enum {
	QUEUE_SIZE = 64,
	DESC_AT = 0,
	AVAIL_AT = 0x1000,
	USED_AT = 0x2000,
	REQUESTS_AT = 0x3000,
	MEMORY_SIZE = 0xa000,
	DISK_SIZE = 16 << 10,
	TAIL_SIZE = 300, /* of the file, behind the disk */
	DEVICES = 8,
	STREAM_MAX = 6000,
};

enum flag {
	FLAG_NO_STATUS = 1, /* nothing to write to */
	FLAG_SHORT_HEADER = 2,
	FLAG_DATA_BOTH_WAYS = 4,
	FLAG_ONE_BYTE_FIRST = 8,
};

enum op { OP_REQUEST, OP_REQUEST_2, OP_REQUEST_3, OP_RAW_DESC, OP_RAW_AVAIL, OP_RAW_BYTE, OPS };

/* One operation of the input. */
struct step {
	uint8_t op;
	uint8_t type;
	uint8_t flags;
	uint8_t piece; /* bytes of a descriptor, about */
	uint8_t sector_kind;
	uint8_t sector;
	uint16_t length;
	uint8_t segment_kind;
	uint8_t segment_flags;
	uint16_t segment_sectors;
	uint32_t seed;
};

struct fuzzed_device {
	struct device *device;
	int fd;
	uint8_t *file; /* its mapping */
	bool read_only;
	bool discard;
	uint32_t block_size;
};

struct piece {
	uint32_t at;
	uint32_t length;
};

struct machine {
	struct fuzzed_device *device;
	uint8_t *memory;
	uint8_t *expected; /* guest memory */
	uint8_t disk[DISK_SIZE];
	uint32_t next_byte;
	unsigned next_desc;
	uint16_t offered;
	bool blind;
	/* Of the request that is being made. */
	struct piece readable[QUEUE_SIZE];
	struct piece writable[QUEUE_SIZE];
	unsigned readable_count, writable_count;
};

static void require(bool holds)
{
	if (!holds)
		abort();
}

static const char disk_id[] = "fuzzed";

static void open_device(struct fuzzed_device *fuzzed, unsigned index)
{
	struct block_options options = {
		.read_only = (index & 1) != 0,
		.no_discard = (index & 2) != 0,
		.block_size = (index & 4) != 0 ? 4096 : 512,
		.queues = 1,
		.sync_engine = true,
	};
	char path[32];

	fuzzed->fd = memfd_create("disk", MFD_CLOEXEC);
	require(fuzzed->fd >= 0 && ftruncate(fuzzed->fd, DISK_SIZE + TAIL_SIZE) == 0);
	fuzzed->file = mmap(
		NULL, DISK_SIZE + TAIL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fuzzed->fd, 0);
	require(fuzzed->file != MAP_FAILED);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fuzzed->fd);
	options.path = path;
	memcpy(options.id, disk_id, sizeof(disk_id));
	require(block_device_class.open(&options, &fuzzed->device) == 0);
	fuzzed->read_only = options.read_only;
	fuzzed->discard = !options.read_only && !options.no_discard;
	fuzzed->block_size = options.block_size;
}

/* The same byte at the same place in all runs. */
static uint8_t noise(uint32_t seed, uint32_t i)
{
	return (uint8_t)((seed + i * 2654435761u) >> 13);
}

/* ---- making requests ------------------------------------------------------- */

/* Cuts `length` bytes into descriptors' buffers with a byte between them. */
static unsigned cut(
	struct machine *machine, const struct step *step, uint32_t length, struct piece *pieces)
{
	/* All streams of a request find descriptors enough. */
	uint32_t size = (uint32_t)max_u64(step->piece * 16u + 1, length / 10 + 1);
	unsigned count = 0;

	while (length > 0) {
		bool first = count == 0 && (step->flags & FLAG_ONE_BYTE_FIRST) != 0;
		uint32_t n = first ? 1 : (uint32_t)min_u64(size, length);

		pieces[count++] = (struct piece){ machine->next_byte, n };
		machine->next_byte += n + 1;
		length -= n;
	}
	return count;
}

static void put_bytes(uint8_t *memory, const struct piece *pieces, unsigned count,
	const uint8_t *from, uint32_t size)
{
	for (unsigned i = 0; i < count && size > 0; i++) {
		uint32_t n = (uint32_t)min_u64(pieces[i].length, size);

		memcpy(memory + pieces[i].at, from, n);
		from += n;
		size -= n;
	}
}

static uint64_t make_sector(uint8_t kind, uint8_t small)
{
	switch (kind % 8) {
	case 0:
		return UINT64_MAX - small;
	case 1:
		return (UINT64_C(1) << 55) + small;
	case 2:
		return DISK_SIZE / SECTOR_SIZE - 4 + small % 8;
	case 3:
		return (uint64_t)small << 56 | small;
	case 4:
		return small & ~7u;
	default:
		return small % (DISK_SIZE / SECTOR_SIZE);
	}
}

static uint32_t make_type(uint8_t type)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH,
		VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
		VIRTIO_BLK_T_SCSI_CMD, VIRTIO_BLK_T_BARRIER };

	return (type & 0xc0) == 0xc0 ? type & 0x3f : types[type % ARRAY_SIZE(types)];
}

/* What the driver says: header and data. Returns its size. */
static uint32_t make_stream(const struct step *step, uint32_t data_size, uint8_t *stream)
{
	struct virtio_blk_outhdr header = { .type = make_type(step->type),
		.sector = make_sector(step->sector_kind, step->sector) };
	bool segments =
		header.type == VIRTIO_BLK_T_DISCARD || header.type == VIRTIO_BLK_T_WRITE_ZEROES;

	memcpy(stream, &header, sizeof(header));
	stream += sizeof(header);
	for (uint32_t i = 0; i < data_size; i++)
		stream[i] = noise(step->seed, i);
	for (uint32_t i = 0; segments && i < data_size / 16; i++) {
		struct virtio_blk_discard_write_zeroes segment = {
			.sector = make_sector(step->segment_kind, noise(step->seed, i)),
			.num_sectors = (step->segment_kind & 0x80) != 0
					       ? UINT32_MAX - i
					       : step->segment_sectors % 40u,
			.flags = (step->segment_flags & 0xc0) == 0xc0 ? step->seed
								      : (step->segment_flags & 1u),
		};

		memcpy(stream + i * sizeof(segment), &segment, sizeof(segment));
	}
	return sizeof(header) + data_size;
}

static void offer(struct machine *machine)
{
	unsigned count = machine->readable_count + machine->writable_count;
	unsigned head = machine->next_desc;
	struct vring_desc *desc = (void *)(machine->memory + DESC_AT);
	uint16_t *avail = (void *)(machine->memory + AVAIL_AT);

	for (unsigned i = 0; i < count; i++) {
		bool writable = i >= machine->readable_count;
		const struct piece *piece =
			writable ? &machine->writable[i - machine->readable_count]
				 : &machine->readable[i];

		desc[head + i] = (struct vring_desc){ .addr = piece->at,
			.len = piece->length,
			.flags = (uint16_t)((writable ? VRING_DESC_F_WRITE : 0) |
					    (i + 1 < count ? VRING_DESC_F_NEXT : 0)),
			.next = (uint16_t)(head + i + 1) };
	}
	machine->next_desc += count;
	avail[2 + machine->offered % QUEUE_SIZE] = (uint16_t)head;
	avail[1] = ++machine->offered;
}

/* ---- the model ------------------------------------------------------------- */

static bool inside(const struct machine *machine, uint64_t sector, uint64_t length)
{
	unsigned __int128 at = (unsigned __int128)sector * SECTOR_SIZE;

	return at + length <= DISK_SIZE && at % machine->device->block_size == 0 &&
	       length % machine->device->block_size == 0;
}

static int model_segments(struct machine *machine, bool discard, const uint8_t *data, uint32_t size)
{
	struct virtio_blk_discard_write_zeroes s;

	if (machine->device->read_only)
		return VIRTIO_BLK_S_IOERR;
	if (discard && !machine->device->discard)
		return VIRTIO_BLK_S_UNSUPP;
	if (size == 0 || size % 16 != 0 || size > 512)
		return VIRTIO_BLK_S_IOERR;
	for (int pass = 0; pass < 2; pass++)
		for (uint32_t i = 0; i < size; i += 16) {
			memcpy(&s, data + i, sizeof(s));
			if (discard ? s.flags != 0 : s.flags > 1)
				return VIRTIO_BLK_S_UNSUPP;
			if (!inside(machine, s.sector, (uint64_t)s.num_sectors * SECTOR_SIZE))
				return VIRTIO_BLK_S_IOERR;
			if (pass == 1) /* a memfd forgets what is discarded */
				memset(machine->disk + s.sector * 512, 0, s.num_sectors * 512);
		}
	return VIRTIO_BLK_S_OK;
}

/* Does the request on the copies: `out` is all that the driver said, `in_size` what it takes. */
static int model(struct machine *machine, const uint8_t *out, uint32_t out_size, uint32_t in_size,
	uint32_t *ret_written)
{
	uint8_t id[BLOCK_ID_SIZE] = { 0 };
	struct virtio_blk_outhdr header;

	if (out_size < sizeof(header))
		return VIRTIO_BLK_S_IOERR;
	memcpy(&header, out, sizeof(header));
	out += sizeof(header);
	out_size -= sizeof(header);
	switch (header.type) {
	case VIRTIO_BLK_T_IN:
		if (!inside(machine, header.sector, in_size))
			return VIRTIO_BLK_S_IOERR;
		put_bytes(machine->expected, machine->writable, machine->writable_count,
			machine->disk + header.sector * SECTOR_SIZE, in_size);
		*ret_written = in_size;
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_OUT:
		if (machine->device->read_only || !inside(machine, header.sector, out_size))
			return VIRTIO_BLK_S_IOERR;
		memcpy(machine->disk + header.sector * SECTOR_SIZE, out, out_size);
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_FLUSH:
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_GET_ID:
		memcpy(id, disk_id, sizeof(disk_id));
		*ret_written = (uint32_t)min_u64(in_size, sizeof(id));
		put_bytes(machine->expected, machine->writable, machine->writable_count, id,
			*ret_written);
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return model_segments(machine, header.type == VIRTIO_BLK_T_DISCARD, out, out_size);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

static void request(struct machine *machine, const struct step *step)
{
	uint8_t stream[STREAM_MAX];
	uint32_t type = make_type(step->type);
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	bool both = (step->flags & FLAG_DATA_BOTH_WAYS) != 0;
	uint32_t data_size =
		step->length % 4 == 0 ? step->length % 4608u / 512 * 512 : step->length % 5000u;

	if ((type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES) &&
		(step->length & 3) != 1)
		data_size = step->length % 34u * 16;
	uint32_t out_size = make_stream(step, in && !both ? 0 : data_size, stream);
	uint32_t in_size = in || both ? data_size : 0;

	if (machine->next_byte + out_size + in_size + 64 > MEMORY_SIZE ||
		machine->next_desc + 28 > QUEUE_SIZE)
		return;
	if ((step->flags & FLAG_SHORT_HEADER) != 0)
		out_size = (uint32_t)min_u64(out_size, step->seed % 18);
	bool answered = (step->flags & FLAG_NO_STATUS) == 0;
	uint32_t writable = answered ? in_size + 1 : 0;

	if (out_size + writable == 0)
		return;
	machine->readable_count = cut(machine, step, out_size, machine->readable);
	machine->writable_count = cut(machine, step, writable, machine->writable);
	put_bytes(machine->memory, machine->readable, machine->readable_count, stream, out_size);
	put_bytes(machine->expected, machine->readable, machine->readable_count, stream, out_size);
	offer(machine);
	uint32_t *used = (void *)(machine->expected + USED_AT);
	uint32_t written = 0;
	unsigned slot = (machine->offered - 1u) % QUEUE_SIZE;

	if (answered) {
		int status = model(machine, stream, out_size, in_size, &written);
		const struct piece *last = &machine->writable[machine->writable_count - 1];

		machine->expected[last->at + last->length - 1] = (uint8_t)status;
		written += written == in_size; /* only then the status is next */
	}
	const uint16_t *avail = (const void *)(machine->memory + AVAIL_AT);

	used[1 + slot * 2] = avail[2 + slot];
	used[2 + slot * 2] = written;
}

/* ---- running ------------------------------------------------------------------ */

static void raw_step(struct machine *machine, const struct step *step)
{
	struct vring_desc *desc = (void *)(machine->memory + DESC_AT);
	uint16_t *avail = (void *)(machine->memory + AVAIL_AT);

	machine->blind = true;
	switch ((enum op)(step->op % OPS)) {
	case OP_RAW_DESC:
		desc[step->piece % QUEUE_SIZE] = (struct vring_desc){
			.addr = step->flags & 1 ? (uint64_t)step->seed << 32 : step->seed & 0x1ffff,
			.len = step->flags & 2 ? step->seed : step->length,
			.flags = (uint16_t)(step->flags >> 4),
			.next = step->sector,
		};
		break;
	case OP_RAW_AVAIL:
		avail[step->piece % (QUEUE_SIZE + 2)] = step->length;
		machine->offered = avail[1];
		break;
	default:
		machine->memory[step->seed % MEMORY_SIZE] = step->type;
	}
}

static void serve(struct machine *machine, const struct guest_memory *memory, int stop_fd)
{
	static int kick_fd = -1;
	const struct virtqueue_config config = {
		.size = QUEUE_SIZE,
		.desc = DESC_AT,
		.avail = AVAIL_AT,
		.used = USED_AT,
		.indirect = machine->blind,
	};
	struct device_queue queue = {
		.device = machine->device->device,
		.size = QUEUE_SIZE,
		.stop_fd = stop_fd,
	};

	if (kick_fd < 0)
		kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	queue.kick_fd = queue.call_fd = kick_fd;
	require(virtqueue_init(&queue.vq, memory, &config, 0) == 0);
	int r = block_device_class.ops->serve(&queue);

	require(machine->blind || r == 0);
}

/* What the file holds before each run. */
static const uint8_t *fresh_file(void)
{
	static uint8_t bytes[DISK_SIZE + TAIL_SIZE];

	for (uint32_t i = 0; bytes[0] == 0 && i < sizeof(bytes); i++)
		bytes[sizeof(bytes) - 1 - i] = noise(2, i) | 1;
	return bytes;
}

static void check(struct machine *machine)
{
	struct fuzzed_device *device = machine->device;
	uint16_t *used = (void *)(machine->expected + USED_AT);
	struct stat st;

	require(fstat(device->fd, &st) == 0 && st.st_size == DISK_SIZE + TAIL_SIZE);
	require(memcmp(device->file + DISK_SIZE, fresh_file() + DISK_SIZE, TAIL_SIZE) == 0);
	if (machine->blind) {
		require(!device->read_only || memcmp(device->file, fresh_file(), DISK_SIZE) == 0);
		return;
	}
	require(memcmp(device->file, machine->disk, DISK_SIZE) == 0);
	used[1] = machine->offered;
	memcpy(machine->expected, machine->memory, USED_AT); /* the driver's own rings */
	require(memcmp(machine->expected, machine->memory, MEMORY_SIZE) == 0);
}

static uint8_t *guest_bytes(const struct guest_memory **ret_memory)
{
	static struct guest_memory *memory;
	const struct guest_memory_range range = { 0, MEMORY_SIZE };

	if (memory == NULL)
		require(guest_memory_create(&range, 1, 0, &memory) == 0);
	*ret_memory = memory;
	return guest_memory_at(memory, 0, MEMORY_SIZE);
}

static struct fuzzed_device *get_device(uint8_t selector)
{
	static struct fuzzed_device devices[DEVICES];
	struct fuzzed_device *device = &devices[selector % DEVICES];
	uint64_t features = (selector & 8) != 0 ? UINT64_C(1) << VIRTIO_BLK_F_FLUSH : 0;

	log_set_level(LOG_LEVEL_NONE);
	if (device->device == NULL)
		open_device(device, selector % DEVICES);
	memcpy(device->file, fresh_file(), DISK_SIZE + TAIL_SIZE);
	require(block_device_class.ops->start(device->device, features) == 0);
	return device;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t expected[MEMORY_SIZE];
	static struct machine machine;
	static int stop_fd = -1;
	const struct guest_memory *memory;
	struct step step;

	if (size == 0)
		return 0;
	if (stop_fd < 0)
		stop_fd = eventfd(1, EFD_CLOEXEC);
	memset(&machine, 0, sizeof(machine));
	machine.memory = guest_bytes(&memory);
	machine.expected = expected;
	machine.device = get_device(data[0]);
	machine.next_byte = REQUESTS_AT;
	memcpy(machine.disk, machine.device->file, DISK_SIZE);
	memset(machine.memory, 0, MEMORY_SIZE);
	memset(expected, 0, MEMORY_SIZE);
	for (data++, size--; size >= sizeof(step); data += sizeof(step), size -= sizeof(step)) {
		memcpy(&step, data, sizeof(step));
		if (step.op % OPS <= OP_REQUEST_3)
			request(&machine, &step);
		else
			raw_step(&machine, &step);
	}
	serve(&machine, memory, stop_fd);
	check(&machine);
	block_device_class.ops->stop(machine.device->device);
	return 0;
}
