// SPDX-License-Identifier: BSD-3-Clause
/*
 * The driver. It believes the device, which is the host's. Source: virtio 1.2,
 * sections 2.7, 3.1, 4.1.
 *
 * The device writes into the huge page when it likes, also after this process
 * was killed: the page goes back to the kernel's pool of huge pages then, and
 * whoever is next to drive the device resets it first.
 */
#include "device.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"

enum { QUEUE_SIZE = 32, BUFFER = 4096, HUGE_PAGE = 2 << 20, IDS = 0x800 };
enum { IN, OUT, QUEUES };
/* Places in the huge page. */
enum { RING_BYTES = 0x4000, IN_BUFFERS = 0x10000, OUT_BUFFER = 0x80000 };
enum { COMMAND = 4, COMMAND_MEMORY = 2, COMMAND_MASTER = 4, COMMAND_NO_INTX = 0x400 };
enum { TYPE_NEW = 0x100, TYPE_CLOSE, TYPE_SEND, TYPE_RECV, TYPE_NEW_CTX, TYPE_NEW_PIPE, TYPE_HUP };
enum { OK = 0x1000, OK_NEW, OUT_OF_MEMORY = 0x1101 };
#define FEATURES (UINT64_C(1) << 32 | UINT64_C(1) << 1) /* VERSION_1, TRANS_FLAGS */

struct queue {
	struct vring_desc *desc;
	volatile uint16_t *avail;
	volatile uint16_t *used; /* flags, idx, then {id, length} of 32 bits */
	uint16_t offered, seen;
	volatile uint16_t *doorbell;
};

struct device {
	char bdf[16];
	int config_fd, uio_fd, mem_fd;
	volatile struct virtio_pci_common_cfg *common;
	volatile uint8_t *isr;
	volatile uint8_t *notify;
	uint32_t notify_multiplier;
	uint8_t *page; /* the huge one */
	uint64_t page_gpa;
	struct queue queues[QUEUES];
	bool ids[IDS];
	uint32_t last_id;
	uint32_t message[BUFFER / 4];
};

static bool fail(const char *what)
{
	fprintf(stderr, "crosvm-wl: %s: %s\n", what, strerror(errno));
	return false;
}

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return good;
}

static int open_at(const struct device *device, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), DEVICES "/%s/%s", device->bdf, name);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* ---- finding it ---- */

static bool is_ours(const char *bdf)
{
	char path[512], text[16] = "";

	snprintf(path, sizeof(path), DEVICES "/%s/device", bdf);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	(void)!read(fd, text, sizeof(text) - 1);
	close(fd);
	unsigned long id = strtoul(text, NULL, 16);

	return id == 0x1040 + 30 || id == 0x1040 + 63;
}

static bool find(struct device *device)
{
	DIR *directory = opendir(DEVICES);
	const struct dirent *entry;

	while (directory != NULL && (entry = readdir(directory)) != NULL)
		if (entry->d_name[0] != '.' && is_ours(entry->d_name))
			snprintf(device->bdf, sizeof(device->bdf), "%.12s", entry->d_name);
	if (directory != NULL)
		closedir(directory);
	errno = ENODEV;
	return device->bdf[0] != '\0' || fail("no virtio-wayland device");
}

/* One process at a time: who has the device's registers file locked. */
static bool lock(struct device *device)
{
	device->config_fd = open_at(device, "config");
	if (device->config_fd < 0)
		return fail("PCI config space");
	return flock(device->config_fd, LOCK_EX | LOCK_NB) == 0 || fail("the device is in use");
}

/* From whoever has it to uio_pci_generic, whose device file appears. */
static bool take(struct device *device)
{
	char path[512];
	int fd = -1;

	snprintf(path, sizeof(path), DEVICES "/%s/driver/unbind", device->bdf);
	(void)write_text(path, device->bdf);
	snprintf(path, sizeof(path), DEVICES "/%s/driver_override", device->bdf);
	if (!write_text(path, "uio_pci_generic") ||
		!write_text("/sys/bus/pci/drivers_probe", device->bdf))
		return fail("uio_pci_generic");
	snprintf(path, sizeof(path), DEVICES "/%s/uio", device->bdf);
	DIR *directory = opendir(path);
	const struct dirent *entry;

	if (directory == NULL)
		return fail("uio_pci_generic: load the module");
	while (fd < 0 && (entry = readdir(directory)) != NULL) {
		if (strncmp(entry->d_name, "uio", 3) != 0)
			continue;
		snprintf(path, sizeof(path), "/dev/%.32s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	}
	closedir(directory);
	device->uio_fd = fd;
	return fd >= 0 || fail("/dev/uio");
}

/* ---- registers ---- */

static volatile uint8_t *map_region(struct device *device, const struct virtio_pci_cap *cap)
{
	char name[16];

	snprintf(name, sizeof(name), "resource%u", cap->bar);
	int fd = open_at(device, name);

	if (fd < 0)
		return NULL;
	/* From the start of the BAR, because a region need not begin a page. */
	volatile uint8_t *bar =
		mmap(NULL, cap->offset + cap->length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	close(fd);
	return bar == MAP_FAILED ? NULL : bar + cap->offset;
}

static bool map_registers(struct device *device)
{
	uint8_t at = 0;

	if (pread(device->config_fd, &at, 1, 0x34) != 1)
		return fail("PCI config space");
	for (unsigned n = 0; at != 0 && n < 48; n++) {
		struct virtio_pci_notify_cap cap;

		if (pread(device->config_fd, &cap, sizeof(cap), at) != sizeof(cap))
			break;
		at = cap.cap.cap_next;
		if (cap.cap.cap_vndr != 9)
			continue;
		if (cap.cap.cfg_type == VIRTIO_PCI_CAP_COMMON_CFG)
			device->common = (volatile void *)map_region(device, &cap.cap);
		if (cap.cap.cfg_type == VIRTIO_PCI_CAP_ISR_CFG)
			device->isr = map_region(device, &cap.cap);
		if (cap.cap.cfg_type != VIRTIO_PCI_CAP_NOTIFY_CFG)
			continue;
		device->notify = map_region(device, &cap.cap);
		device->notify_multiplier = cap.notify_off_multiplier;
	}
	return (device->common != NULL && device->isr != NULL && device->notify != NULL) ||
	       fail("registers");
}

static void set_command(struct device *device)
{
	uint16_t command = 0;

	(void)!pread(device->config_fd, &command, 2, COMMAND);
	command |= COMMAND_MEMORY | COMMAND_MASTER;
	command &= (uint16_t)~COMMAND_NO_INTX;
	(void)!pwrite(device->config_fd, &command, 2, COMMAND);
}

/* ---- rings ---- */

/* Memory that stays where it is, and where that is. */
static bool make_page(struct device *device)
{
	uint64_t entry = 0;

	(void)write_text("/proc/sys/vm/nr_hugepages", "1");
	device->page = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (device->page == MAP_FAILED)
		return fail("a huge page");
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || pread(fd, &entry, 8, (off_t)((uintptr_t)device->page / 4096 * 8)) != 8)
		return fail("/proc/self/pagemap");
	close(fd);
	device->page_gpa = (entry & ((UINT64_C(1) << 55) - 1)) * 4096;
	errno = EPERM;
	return device->page_gpa != 0 || fail("/proc/self/pagemap");
}

static void set_address(volatile uint32_t *low, volatile uint32_t *high, uint64_t gpa)
{
	*low = (uint32_t)gpa;
	*high = (uint32_t)(gpa >> 32);
}

static void start_queue(struct device *device, unsigned index)
{
	volatile struct virtio_pci_common_cfg *common = device->common;
	struct queue *queue = &device->queues[index];
	unsigned at = index * RING_BYTES;

	queue->desc = (void *)(device->page + at);
	queue->avail = (volatile void *)(device->page + at + 0x1000);
	queue->used = (volatile void *)(device->page + at + 0x2000);
	common->queue_select = (uint16_t)index;
	common->queue_size = QUEUE_SIZE;
	set_address(&common->queue_desc_lo, &common->queue_desc_hi, device->page_gpa + at);
	set_address(
		&common->queue_avail_lo, &common->queue_avail_hi, device->page_gpa + at + 0x1000);
	set_address(&common->queue_used_lo, &common->queue_used_hi, device->page_gpa + at + 0x2000);
	common->queue_enable = 1;
	queue->doorbell = (volatile void *)(device->notify +
					    common->queue_notify_off * device->notify_multiplier);
}

static void offer(struct queue *queue, unsigned head)
{
	queue->avail[2 + queue->offered % QUEUE_SIZE] = (uint16_t)head;
	__atomic_store_n(&queue->avail[1], ++queue->offered, __ATOMIC_RELEASE);
}

static void kick(struct queue *queue, unsigned index)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if ((queue->used[0] & VRING_USED_F_NO_NOTIFY) == 0)
		*queue->doorbell = (uint16_t)index;
}

static void offer_in(struct device *device, unsigned slot)
{
	struct queue *queue = &device->queues[IN];

	queue->desc[slot] = (struct vring_desc){ device->page_gpa + IN_BUFFERS + slot * BUFFER,
		BUFFER, VRING_DESC_F_WRITE, 0 };
	offer(queue, slot);
}

void device_stop(struct device *device)
{
	device->common->device_status = 0;
	while (device->common->device_status != 0)
		;
}

static bool start(struct device *device)
{
	volatile struct virtio_pci_common_cfg *common = device->common;

	device_stop(device);
	common->device_status = 1 | 2;
	for (unsigned i = 0; i < 2; i++) {
		common->guest_feature_select = i;
		common->guest_feature = (uint32_t)(FEATURES >> 32 * i);
	}
	common->device_status = 1 | 2 | 8;
	errno = EPROTO;
	if ((common->device_status & 8) == 0)
		return fail("features");
	for (unsigned i = 0; i < QUEUES; i++)
		start_queue(device, i);
	device->queues[OUT].avail[0] = VRING_AVAIL_F_NO_INTERRUPT;
	common->device_status = 1 | 2 | 8 | 4;
	for (unsigned i = 0; i < QUEUE_SIZE; i++)
		offer_in(device, i);
	kick(&device->queues[IN], IN);
	return true;
}

struct device *device_open(void)
{
	struct device *device = calloc(1, sizeof(*device));

	if (device == NULL)
		return NULL;
	device->mem_fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
	bool good = device->mem_fd >= 0 || fail("/dev/mem");

	good = good && find(device) && lock(device) && take(device) && map_registers(device) &&
	       make_page(device);
	if (good)
		set_command(device);
	if (good && start(device))
		return device;
	free(device); /* and the process ends */
	return NULL;
}

int device_fd(const struct device *device)
{
	return device->uio_fd;
}

void device_rearm(struct device *device)
{
	uint32_t count;

	(void)!read(device->uio_fd, &count, sizeof(count));
	(void)*device->isr; /* lets the line go */
	set_command(device);
}

/* ---- messages ---- */

bool device_next_event(struct device *device, struct device_event *ret_event)
{
	struct queue *queue = &device->queues[IN];
	const uint32_t *m = device->message;

	if (__atomic_load_n(&queue->used[1], __ATOMIC_ACQUIRE) == queue->seen)
		return false;
	volatile uint32_t *entry =
		(volatile void *)(queue->used + 2 + queue->seen++ % QUEUE_SIZE * 4);
	unsigned slot = entry[0] % QUEUE_SIZE;
	size_t size = entry[1] < BUFFER ? entry[1] : BUFFER;

	memcpy(device->message, device->page + IN_BUFFERS + slot * BUFFER, size);
	offer_in(device, slot);
	kick(queue, IN);
	*ret_event = (struct device_event){ .kind = EVENT_HUP, .vfd = m[2] };
	if (m[0] == TYPE_NEW) {
		ret_event->kind = EVENT_NEW;
		ret_event->flags = m[3];
		ret_event->pfn = m[4] | (uint64_t)m[5] << 32;
		ret_event->size = m[6];
	} else if (m[0] == TYPE_RECV) {
		ret_event->kind = EVENT_DATA;
		ret_event->count = m[3] < WL_FDS_MAX ? m[3] : WL_FDS_MAX;
		memcpy(ret_event->ids, m + 4, 4 * ret_event->count);
		ret_event->data = (const uint8_t *)(m + 4 + ret_event->count);
		ret_event->data_size = size - 16 - 4 * ret_event->count;
	}
	return true;
}

/* The answer is where the command was. The device never waits, so neither do we for long. */
static const uint32_t *ask(struct device *device, size_t size)
{
	struct queue *queue = &device->queues[OUT];
	uint64_t gpa = device->page_gpa + OUT_BUFFER;
	const struct timespec moment = { .tv_nsec = 20000 };

	queue->desc[0] = (struct vring_desc){ gpa, (uint32_t)size, VRING_DESC_F_NEXT, 1 };
	queue->desc[1] = (struct vring_desc){ gpa, BUFFER, VRING_DESC_F_WRITE, 0 };
	offer(queue, 0);
	kick(queue, OUT);
	for (unsigned n = 0; __atomic_load_n(&queue->used[1], __ATOMIC_ACQUIRE) == queue->seen; n++)
		if (n > 200)
			nanosleep(&moment, NULL);
	queue->seen++;
	return (const uint32_t *)(device->page + OUT_BUFFER);
}

static const uint32_t *ask_words(struct device *device, const uint32_t words[8])
{
	memcpy(device->page + OUT_BUFFER, words, 32);
	return ask(device, 32);
}

/* 0: none is free. */
static uint32_t take_id(struct device *device)
{
	for (unsigned n = 1; n < IDS; n++) {
		uint32_t id = device->last_id = device->last_id % (IDS - 1) + 1;

		if (device->ids[id])
			continue;
		device->ids[id] = true;
		return id;
	}
	return 0;
}

static uint32_t make(
	struct device *device, uint32_t type, uint32_t flags, uint32_t size, uint64_t *ret_pfn)
{
	uint32_t id = take_id(device);
	const uint32_t *answer =
		ask_words(device, (const uint32_t[8]){ type, 0, id, flags, 0, 0, size });

	if (answer[0] != OK_NEW) {
		device->ids[id] = false;
		return 0;
	}
	*ret_pfn = answer[4] | (uint64_t)answer[5] << 32;
	return id;
}

uint32_t device_new_context(struct device *device)
{
	uint64_t ignored;

	return make(device, TYPE_NEW_CTX, 0, 0, &ignored);
}

uint32_t device_new_pipe(struct device *device, unsigned direction)
{
	uint64_t ignored;

	return make(device, TYPE_NEW_PIPE, direction, 0, &ignored);
}

uint32_t device_new_memory(struct device *device, uint32_t size, uint64_t *ret_pfn)
{
	return make(device, TYPE_NEW, 0, size, ret_pfn);
}

enum sent device_send(struct device *device, uint32_t vfd, const void *data, size_t size,
	const uint32_t *ids, unsigned count)
{
	uint32_t *words = (uint32_t *)(device->page + OUT_BUFFER);

	if (size > WL_DATA_MAX || count > WL_FDS_MAX)
		return SEND_REFUSED;
	words[0] = TYPE_SEND;
	words[1] = 0;
	words[2] = vfd;
	words[3] = count;
	memcpy(words + 4, ids, 4 * count);
	memcpy(words + 4 + count, data, size);
	uint32_t answer = ask(device, 16 + 4 * count + size)[0];

	return answer == OK ? SENT : answer == OUT_OF_MEMORY ? SEND_BUSY : SEND_REFUSED;
}

void device_close_vfd(struct device *device, uint32_t vfd)
{
	(void)ask_words(device, (const uint32_t[8]){ TYPE_CLOSE, 0, vfd });
	if (vfd < IDS)
		device->ids[vfd] = false;
}

void *device_map(const struct device *device, uint64_t pfn, size_t size, bool writable)
{
	void *view = pfn == 0 ? MAP_FAILED
			      : mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0),
					MAP_SHARED, device->mem_fd, (off_t)(pfn * 4096));

	return view == MAP_FAILED ? NULL : view;
}
