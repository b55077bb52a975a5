// SPDX-License-Identifier: BSD-3-Clause
/*
 * A driver of our own at the queues of the network device, without a guest, on
 * a tap that it makes: in a network namespace, as by `unshare -rn`. Frames go
 * one way as fast as they can, or at a rate. Prints what one frame costs the
 * device's threads: system calls, kicks, calls; and how many frames a second.
 *
 *	netqueue [-to] [-s FRAME_BYTES] [-n FRAMES] [-b BURST] [-a FRAMES]
 *
 * Frames go to the guest, or with -t from it; only that queue runs. With -b, so
 * many at a time, and the next when those are through: a bit of load instead of
 * all that goes. With -a both queues run, and every so many frames have a small
 * one the other way for their answer, as segments of TCP have: the driver's, or
 * with -t the host's, by ARP, which has it on the tap before the frame's write
 * has returned; there, answers let the next frames go. With -o the driver has
 * GUEST_TSO4 and Linux's buffers of 1536 bytes; a frame may have 65549 bytes then.
 *
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
#include <net/if_arp.h>
#include <netinet/if_ether.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
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

enum { RECEIVE, TRANSMIT, QUEUES };
enum { QUEUE_SIZE = 256, HEADER = 12, MTU = 1500, ANSWER = 66, LARGEST = ETH_HLEN + 65535 };
/* Each buffer's place. */
enum { RECEIVED = 2048, SENT = 0x11000, LINUX_BUFFER = 1536 };
#define RECEIVED_AT DRIVER_RINGS_END
#define SENT_AT     (RECEIVED_AT + QUEUE_SIZE * (uint64_t)RECEIVED)
#define MEMORY_END  (SENT_AT + QUEUE_SIZE * (uint64_t)SENT)
#define HOST_IP     0x0a630001
#define GUEST_IP    0x0a630002

struct bench {
	struct guest_memory *memory;
	struct vhost *vhost;
	struct driver_queue queues[QUEUES];
	int counters[QUEUES]; /* of each queue's thread */
	int packet_fd;
	bool transmit, offloads;
	uint32_t size, burst;
	uint32_t answered; /* frames for one answer; 0: none */
	uint64_t frames;
};

static uint8_t *sent_at(const struct bench *bench, unsigned n)
{
	return driver_at(bench->memory, SENT_AT + n * (uint64_t)SENT, SENT);
}

static void offer_buffer(struct bench *bench, unsigned n)
{
	struct driver_queue *queue = &bench->queues[RECEIVE];

	queue->desc[n] = (struct vring_desc){ RECEIVED_AT + n * (uint64_t)RECEIVED,
		bench->offloads ? LINUX_BUFFER : RECEIVED, VRING_DESC_F_WRITE, 0 };
	driver_offer(queue, (uint16_t)n);
}

/* ---- frames ---- */

/* What its size says: a frame whose TCP segments the receiver may have as one, or one that is not
 * for anybody. */
static void fill_frame(uint8_t *frame, uint32_t size, struct virtio_net_hdr *ret_header)
{
	const struct iphdr ip = { .version = 4,
		.ihl = 5,
		.ttl = 64,
		.protocol = IPPROTO_TCP,
		.tot_len = htons((uint16_t)(size - ETH_HLEN)),
		.saddr = htonl(HOST_IP),
		.daddr = htonl(GUEST_IP) };
	const struct tcphdr tcp = { .doff = 5, .ack = 1 };

	memset(frame, 0, size);
	memset(frame, 0xff, ETH_ALEN);
	memset(ret_header, 0, sizeof(*ret_header));
	frame[12] = 0x88; /* an experiment's: nobody answers */
	frame[13] = 0xb5;
	if (size <= ETH_HLEN + MTU)
		return;
	frame[12] = ETH_P_IP >> 8;
	frame[13] = ETH_P_IP & 0xff;
	memcpy(frame + ETH_HLEN, &ip, sizeof(ip));
	memcpy(frame + ETH_HLEN + sizeof(ip), &tcp, sizeof(tcp));
	*ret_header = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = ETH_HLEN + sizeof(ip) + sizeof(tcp),
		.gso_size = MTU - sizeof(ip) - sizeof(tcp),
		.csum_start = ETH_HLEN + sizeof(ip),
		.csum_offset = offsetof(struct tcphdr, check),
	};
}

/* Makes it a question that the host's kernel answers. */
static void fill_question(uint8_t *frame)
{
	const struct ether_arp arp = {
		.arp_hrd = htons(ARPHRD_ETHER),
		.arp_pro = htons(ETH_P_IP),
		.arp_hln = ETH_ALEN,
		.arp_pln = sizeof(uint32_t),
		.arp_op = htons(ARPOP_REQUEST),
		.arp_sha = { 2, 0, 0, 0, 0, 1 },
		.arp_spa = { GUEST_IP >> 24, GUEST_IP >> 16 & 0xff, GUEST_IP >> 8 & 0xff,
			GUEST_IP & 0xff },
		.arp_tpa = { HOST_IP >> 24, HOST_IP >> 16 & 0xff, HOST_IP >> 8 & 0xff,
			HOST_IP & 0xff },
	};

	memcpy(frame + ETH_ALEN, arp.arp_sha, ETH_ALEN);
	frame[12] = ETH_P_ARP >> 8;
	frame[13] = ETH_P_ARP & 0xff;
	memcpy(frame + ETH_HLEN, &arp, sizeof(arp));
}

/* What the driver will send, over and over. */
static void fill_sent(struct bench *bench)
{
	struct driver_queue *queue = &bench->queues[TRANSMIT];
	uint32_t size = bench->transmit ? bench->size : ANSWER;

	for (unsigned n = 0; n < QUEUE_SIZE; n++) {
		struct virtio_net_hdr header;
		uint8_t *at = sent_at(bench, n);

		fill_frame(at + HEADER, size, &header);
		memset(at, 0, HEADER);
		memcpy(at, &header, sizeof(header));
		if (bench->transmit && bench->answered != 0 && n % bench->answered == 0) {
			memset(at, 0, HEADER);
			fill_question(at + HEADER);
		}
		queue->desc[n] =
			(struct vring_desc){ SENT_AT + n * (uint64_t)SENT, HEADER + size, 0, 0 };
	}
}

/* The driver's next frame, whose descriptor was used long ago unless the queue is full. */
static void offer_sent(struct bench *bench)
{
	struct driver_queue *queue = &bench->queues[TRANSMIT];

	queue->seen = (uint16_t)(queue->seen + driver_ready(queue));
	if ((uint16_t)(queue->offered - queue->seen) == QUEUE_SIZE) {
		driver_kick(queue);
		driver_await(queue, 1);
	}
	driver_offer(queue, queue->offered % QUEUE_SIZE);
}

/* ---- set-up ---- */

/* The host's end of the tap. */
static void open_packets(struct bench *bench)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
		.sll_ifindex = (int)if_nametoindex("bench0") };
	int on = 1;

	/* It hears nothing. */
	bench->packet_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	check(bench->packet_fd >= 0 &&
			setsockopt(bench->packet_fd, SOL_PACKET, PACKET_VNET_HDR, &on,
				sizeof(on)) == 0 &&
			bind(bench->packet_fd, (void *)&address, sizeof(address)) == 0,
		"packet socket");
}

static uint64_t features(const struct bench *bench)
{
	uint64_t plain = UINT64_C(1) << VIRTIO_F_VERSION_1 |
			 UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX |
			 UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF;
	uint64_t offloads =
		UINT64_C(1) << VIRTIO_NET_F_CSUM | UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM |
		UINT64_C(1) << VIRTIO_NET_F_HOST_TSO4 | UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4;

	return bench->offloads ? plain | offloads : plain;
}

static void start_queue(struct bench *bench, unsigned index)
{
	driver_start(&bench->queues[index], bench->vhost, bench->memory, index, QUEUE_SIZE);
	bench->counters[index] = count_system_calls(last_thread());
}

static void start(struct bench *bench)
{
	const struct guest_memory_range range = { 0, MEMORY_END };
	struct net_options options = net_default_options;
	struct device *device;

	options.tap_name = "bench0";
	options.vhost = NET_VHOST_OFF;
	options.has_host_ip = options.has_netmask = true;
	options.host_ip.s_addr = htonl(HOST_IP);
	options.netmask.s_addr = htonl(0xffffff00);
	check(guest_memory_create(&range, 1, 0, &bench->memory) == 0, "memory");
	check(net_device_class.open(&options, &device) == 0, "open");
	check(vhost_thread_create(net_device_class.ops, device, bench->memory, &bench->vhost) == 0,
		"device");
	check(bench->vhost->ops->set_features(bench->vhost, features(bench)) == 0, "features");
	if (!bench->transmit || bench->answered != 0)
		start_queue(bench, RECEIVE);
	if (bench->transmit || bench->answered != 0) {
		start_queue(bench, TRANSMIT);
		fill_sent(bench);
	}
	open_packets(bench);
}

/* Of both threads; false: we may not count. */
static bool counted(const struct bench *bench, uint64_t *ret_calls)
{
	uint64_t calls;

	*ret_calls = 0;
	for (unsigned i = 0; i < QUEUES; i++) {
		if (bench->queues[i].size == 0)
			continue;
		if (bench->counters[i] < 0 ||
			read(bench->counters[i], &calls, sizeof(calls)) != sizeof(calls))
			return false;
		*ret_calls += calls;
	}
	return true;
}

/* ---- to the guest ---- */

/* Sends to the guest: all, or a burst whenever the main thread asks for one. */
static void send_frames(struct bench *bench, uint64_t count)
{
	uint8_t frame[sizeof(struct virtio_net_hdr) + LARGEST];
	struct virtio_net_hdr header;

	fill_frame(frame + sizeof(header), bench->size, &header);
	memcpy(frame, &header, sizeof(header));
	while (count-- > 0)
		check(send(bench->packet_fd, frame, sizeof(header) + bench->size, 0) >= 0 ||
				errno == ENOBUFS,
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

/* Gives the buffers of a frame that is there as a whole back. Whether it is an answer of the host,
 * which has things of its own to say. */
static bool take_received(struct bench *bench)
{
	struct driver_queue *queue = &bench->queues[RECEIVE];
	unsigned id = driver_take(queue);
	const uint8_t *at =
		driver_at(bench->memory, RECEIVED_AT + id * (uint64_t)RECEIVED, RECEIVED);
	unsigned buffers = at[10] | at[11] << 8;
	bool is_answer = at[HEADER + 12] == ETH_P_ARP >> 8 && at[HEADER + 13] == (ETH_P_ARP & 0xff);

	for (offer_buffer(bench, id); buffers > 1; buffers--)
		offer_buffer(bench, driver_take(queue));
	return is_answer;
}

/* An answer for each so many frames. */
static void answer(struct bench *bench, uint64_t before, uint64_t after)
{
	if (bench->answered == 0)
		return;
	for (uint64_t n = before / bench->answered; n < after / bench->answered; n++)
		offer_sent(bench);
	driver_kick(&bench->queues[TRANSMIT]);
}

static void receive_frames(struct bench *bench)
{
	struct driver_queue *queue = &bench->queues[RECEIVE];
	/* Of a burst, one call. */
	uint16_t wanted =
		bench->burst != 0 && bench->size <= ETH_HLEN + MTU ? (uint16_t)bench->burst : 1;
	uint64_t done = 0;

	for (unsigned n = 0; n < QUEUE_SIZE; n++)
		offer_buffer(bench, n);
	driver_kick(queue);
	while (done < bench->frames) {
		uint64_t before = done;

		send_frames(bench, bench->burst);
		do {
			driver_await(queue, wanted);
			for (; driver_ready(queue) > 0; done++)
				(void)take_received(bench);
		} while (done < before + bench->burst);
		answer(bench, before, done);
		driver_kick(queue);
	}
	bench->frames = done;
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

/* ---- from the guest ---- */

static void transmit_frames(struct bench *bench)
{
	struct driver_queue *queue = &bench->queues[TRANSMIT];
	unsigned burst = bench->burst != 0 ? bench->burst : QUEUE_SIZE;
	uint16_t wanted = (uint16_t)(bench->burst != 0 ? burst : burst / 2);
	uint64_t done = 0;

	for (unsigned n = 0; n < burst; n++)
		offer_sent(bench);
	driver_kick(queue);
	while (done < bench->frames) {
		uint16_t count = driver_await(queue, wanted);

		for (uint16_t i = 0; i < count; i++)
			offer_sent(bench);
		done += count;
		driver_kick(queue);
	}
	bench->frames = done;
}

/* As many as TCP's window holds are on their way. */
static void transmit_by_answers(struct bench *bench)
{
	struct driver_queue *queue = &bench->queues[RECEIVE];
	unsigned window = bench->burst != 0 ? bench->burst : QUEUE_SIZE / 4;
	uint64_t done = 0;

	for (unsigned n = 0; n < QUEUE_SIZE; n++)
		offer_buffer(bench, n);
	driver_kick(queue);
	for (unsigned n = 0; n < window; n++)
		offer_sent(bench);
	driver_kick(&bench->queues[TRANSMIT]);
	while (done < bench->frames) {
		driver_await(queue, 1);
		while (driver_ready(queue) > 0) {
			if (!take_received(bench))
				continue;
			for (unsigned n = 0; n < bench->answered; n++)
				offer_sent(bench);
			done += bench->answered;
		}
		driver_kick(queue);
		driver_kick(&bench->queues[TRANSMIT]);
	}
	bench->frames = done;
}

static void run(struct bench *bench)
{
	if (!bench->transmit)
		run_receive(bench);
	else if (bench->answered == 0)
		transmit_frames(bench);
	else
		transmit_by_answers(bench);
}

/* ---- the program ---- */

static void parse(int argc, char **argv, struct bench *bench)
{
	int option;

	while ((option = getopt(argc, argv, "tos:n:b:a:")) != -1)
		switch (option) {
		case 't':
			bench->transmit = true;
			break;
		case 'o':
			bench->offloads = true;
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
		case 'a':
			bench->answered = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		default:
			exit(2);
		}
	if (optind != argc || bench->size < ETH_ZLEN ||
		bench->size > (bench->offloads ? LARGEST : ETH_HLEN + MTU) ||
		bench->burst > QUEUE_SIZE || bench->answered > QUEUE_SIZE / 4) {
		fprintf(stderr, "usage: netqueue [-to] [-s FRAME_BYTES] [-n FRAMES] [-b BURST] [-a "
				"FRAMES]\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct bench bench = { .size = ETH_HLEN + MTU, .frames = 200000 };
	uint64_t calls = 0, kicks = 0, interrupts = 0;
	uint16_t base;

	parse(argc, argv, &bench);
	start(&bench);
	double begin = seconds();

	run(&bench);
	double end = seconds();
	bool has_calls = counted(&bench, &calls);
	double frames = (double)bench.frames;

	for (unsigned i = 0; i < QUEUES; i++) {
		kicks += bench.queues[i].kicks;
		interrupts += bench.queues[i].calls;
		check(bench.queues[i].size == 0 ||
				bench.vhost->ops->stop_vring(bench.vhost, i, &base) == 0,
			"stop");
	}
	bench.vhost->ops->free(bench.vhost);
	guest_memory_free(bench.memory);
	printf("{\"frames\": %lu, \"per_second\": %.0f, ", bench.frames, frames / (end - begin));
	if (has_calls)
		printf("\"system_calls\": %.4f, ", (double)calls / frames);
	printf("\"kicks\": %.4f, \"calls\": %.4f}\n", (double)kicks / frames,
		(double)interrupts / frames);
	return 0;
}
