// SPDX-License-Identifier: BSD-3-Clause
/*
 * A driver of our own at one queue of the network device, without a guest, on
 * a tap that it makes: in a network namespace, as by `unshare -rn`. Frames
 * without offloads go one way as fast as they can, or at a rate. Prints what
 * one frame costs the queue's thread: system calls, kicks, calls; and how many
 * frames a second.
 *
 *	netqueue [-t] [-s FRAME_BYTES] [-n FRAMES] [-b BURST]
 *
 * Frames go to the guest, or with -t from it. With -b, so many at a time, and
 * the next when those are through: a bit of load instead of all that goes.
 * Rings with event indices, as Linux drives them. System calls are counted by
 * perf's tracepoint, which needs the right to use it; without, by strace -c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "driver.h"
#include "memory/guest_memory.h"
#include "virtio/device.h"
#include "virtio/net_options.h"
#include "virtio/vhost_thread.h"

enum { QUEUE_SIZE = 256, BUFFER = 2048, DATA_AT = DRIVER_RINGS_END, HEADER = 12 };

struct bench {
	struct guest_memory *memory;
	struct vhost *vhost;
	struct driver_queue queue;
	int packet_fd;
	bool transmit;
	uint32_t size, burst;
	uint64_t frames;
};

static void *at(const struct bench *bench, uint64_t gpa, uint64_t size)
{
	return guest_memory_at(bench->memory, gpa, size);
}

static void offer(struct bench *bench, unsigned n)
{
	uint64_t gpa = DATA_AT + n * (uint64_t)BUFFER;

	bench->queue.desc[n] =
		(struct vring_desc){ gpa, bench->transmit ? HEADER + bench->size : BUFFER,
			bench->transmit ? 0 : VRING_DESC_F_WRITE, 0 };
	driver_offer(&bench->queue, (uint16_t)n);
}

/* The host's end of the tap. */
static void open_packets(struct bench *bench)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
		.sll_ifindex = (int)if_nametoindex("bench0") };

	bench->packet_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	check(bench->packet_fd >= 0 &&
			bind(bench->packet_fd, (void *)&address, sizeof(address)) == 0,
		"packet socket");
}

static void start(struct bench *bench)
{
	const struct guest_memory_range range = { 0, DATA_AT + QUEUE_SIZE * BUFFER };
	struct net_options options = net_default_options;
	struct device *device;

	options.tap_name = "bench0";
	options.vhost = NET_VHOST_OFF;
	options.has_host_ip = options.has_netmask = true;
	options.host_ip.s_addr = htonl(0x0a630001);
	options.netmask.s_addr = htonl(0xffffff00);
	check(guest_memory_create(&range, 1, 0, &bench->memory) == 0, "memory");
	check(net_device_class.open(&options, &device) == 0, "open");
	check(vhost_thread_create(net_device_class.ops, device, bench->memory, &bench->vhost) == 0,
		"device");
	const uint64_t features = UINT64_C(1) << VIRTIO_F_VERSION_1 |
				  UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX |
				  UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF;

	check(bench->vhost->ops->set_features(bench->vhost, features) == 0, "features");
	driver_start(
		&bench->queue, bench->vhost, bench->memory, bench->transmit ? 1 : 0, QUEUE_SIZE);
	open_packets(bench);
}

static void fill_frame(uint8_t *frame, uint32_t size)
{
	memset(frame, 0, size);
	memset(frame, 0xff, ETH_ALEN);
	frame[12] = 0x88; /* an experiment's: nobody answers */
	frame[13] = 0xb5;
}

/* Sends to the guest: all, or a burst whenever the main thread asks for one. */
static void send_frames(struct bench *bench, uint64_t count)
{
	uint8_t frame[BUFFER];

	fill_frame(frame, bench->size);
	while (count-- > 0)
		check(send(bench->packet_fd, frame, bench->size, 0) >= 0 || errno == ENOBUFS,
			"send");
}

static void *flood(void *argument)
{
	for (;;) {
		send_frames(argument, 64);
		pthread_testcancel();
	}
	return NULL;
}

static void receive_frames(struct bench *bench)
{
	uint64_t done = 0;

	for (unsigned n = 0; n < QUEUE_SIZE; n++)
		offer(bench, n);
	driver_kick(&bench->queue);
	while (done < bench->frames) {
		send_frames(bench, bench->burst);
		uint16_t count =
			driver_await(&bench->queue, bench->burst != 0 ? (uint16_t)bench->burst : 1);

		for (uint16_t i = 0; i < count; i++)
			offer(bench, driver_take(&bench->queue));
		done += count;
		driver_kick(&bench->queue);
	}
}

static void run_receive(struct bench *bench)
{
	if (bench->burst != 0) {
		receive_frames(bench);
		return;
	}
	pthread_t thread;

	check(pthread_create(&thread, NULL, flood, bench) == 0, "thread");
	receive_frames(bench);
	pthread_cancel(thread);
	pthread_join(thread, NULL);
}

static void run_transmit(struct bench *bench)
{
	unsigned burst = bench->burst != 0 ? bench->burst : QUEUE_SIZE;
	uint64_t done = 0;

	for (unsigned n = 0; n < QUEUE_SIZE; n++) {
		memset(at(bench, DATA_AT + n * (uint64_t)BUFFER, HEADER), 0, HEADER);
		fill_frame(at(bench, DATA_AT + n * (uint64_t)BUFFER + HEADER, bench->size),
			bench->size);
	}
	for (unsigned n = 0; n < burst; n++)
		offer(bench, n);
	driver_kick(&bench->queue);
	while (done < bench->frames) {
		uint16_t count = driver_await(
			&bench->queue, (uint16_t)(bench->burst != 0 ? burst : burst / 2));

		for (uint16_t i = 0; i < count; i++)
			offer(bench, driver_take(&bench->queue));
		done += count;
		driver_kick(&bench->queue);
	}
	bench->frames = done;
}

static void parse(int argc, char **argv, struct bench *bench)
{
	int option;

	while ((option = getopt(argc, argv, "ts:n:b:")) != -1)
		switch (option) {
		case 't':
			bench->transmit = true;
			break;
		case 's':
			bench->size = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'n':
			bench->frames = strtoull(optarg, NULL, 10);
			break;
		case 'b':
			bench->burst = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		default:
			exit(2);
		}
	if (optind != argc || bench->size < ETH_HLEN || bench->size > 1514 ||
		bench->burst > QUEUE_SIZE) {
		fprintf(stderr, "usage: netqueue [-t] [-s FRAME_BYTES] [-n FRAMES] [-b BURST]\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct bench bench = { .size = 1514, .frames = 200000 };
	uint64_t calls = 0;
	uint16_t base;

	parse(argc, argv, &bench);
	start(&bench);
	int counter = count_system_calls(last_thread());
	double begin = seconds();

	if (bench.transmit)
		run_transmit(&bench);
	else
		run_receive(&bench);
	double end = seconds();
	bool counted = counter >= 0 && read(counter, &calls, sizeof(calls)) == sizeof(calls);
	double frames = (double)bench.frames;

	check(bench.vhost->ops->stop_vring(bench.vhost, bench.transmit ? 1 : 0, &base) == 0,
		"stop");
	bench.vhost->ops->free(bench.vhost);
	guest_memory_free(bench.memory);
	printf("{\"frames\": %lu, \"per_second\": %.0f, ", bench.frames, frames / (end - begin));
	if (counted)
		printf("\"system_calls\": %.4f, ", (double)calls / frames);
	printf("\"kicks\": %.4f, \"calls\": %.4f}\n", (double)bench.queue.kicks / frames,
		(double)bench.queue.calls / frames);
	return 0;
}
