// SPDX-License-Identifier: BSD-3-Clause
/*
 * The control queue of virtio-net: offloads and the number of queue pairs,
 * which change the tap. Commands are the driver's.
 */
#include <string.h>

#include "virtio/net_queue.h"

static uint8_t set_offloads(struct device *device, const uint8_t *data, size_t size)
{
	const uint64_t settable =
		UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM | UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4 |
		UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO6 | UINT64_C(1) << VIRTIO_NET_F_GUEST_ECN |
		UINT64_C(1) << VIRTIO_NET_F_GUEST_USO4 | UINT64_C(1) << VIRTIO_NET_F_GUEST_USO6;
	uint64_t offloads;

	if (size != sizeof(offloads) || !net_has(device, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
		return VIRTIO_NET_ERR;
	memcpy(&offloads, data, sizeof(offloads));
	/* The receive queues go on with room for the largest frame. */
	if ((offloads & ~(device->features & settable)) != 0 ||
		net_tap_set_offloads(&device->tap, offloads) < 0)
		return VIRTIO_NET_ERR;
	return VIRTIO_NET_OK;
}

static uint8_t set_pairs(struct device *device, const uint8_t *data, size_t size)
{
	uint16_t pairs;

	if (size != sizeof(pairs) || !net_has(device, VIRTIO_NET_F_MQ))
		return VIRTIO_NET_ERR;
	memcpy(&pairs, data, sizeof(pairs));
	unsigned before = device->pairs;

	if (pairs < 1 || pairs > device->options.pairs)
		return VIRTIO_NET_ERR;
	/* First, so that no queue that the tap lets go of is told as lost. */
	device->pairs = (unsigned)min_u64(before, pairs);
	if (net_tap_set_pairs(&device->tap, before, pairs) < 0) {
		device->pairs = before;
		return VIRTIO_NET_ERR;
	}
	device->pairs = pairs;
	/* Their threads look again, should they have given up. */
	for (unsigned i = before; i < pairs; i++)
		net_pair_wake(&device->queue_pairs[i]);
	return VIRTIO_NET_OK;
}

/* The tap gives us all frames, so that no filter is needed. */
static uint8_t accept_mode(struct device *device, const uint8_t *data, size_t size)
{
	(void)device;
	(void)data;
	return size == 1 ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
}

/*
 * Two tables, a count and as many addresses each. All frames come anyway, so that the addresses
 * are not looked at.
 */
static uint8_t accept_tables(const struct virtqueue_chain *chain)
{
	uint64_t end = sizeof(struct virtio_net_ctrl_hdr);
	uint32_t count;

	for (unsigned table = 0; table < 2; table++) {
		if (!is_within(end, sizeof(count), chain->readable_bytes))
			return VIRTIO_NET_ERR;
		net_load(chain->iov, end, &count, sizeof(count));
		end += sizeof(count) + count * (uint64_t)NET_MAC_SIZE;
	}
	return end == chain->readable_bytes ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
}

static uint8_t run_command(struct device *device, const uint8_t *command, size_t size)
{
	static const struct {
		uint8_t class;
		uint8_t command_max;
		uint8_t (*run)(struct device *device, const uint8_t *data, size_t size);
	} commands[] = {
		{ VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, accept_mode },
		{ VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, set_pairs },
		{ VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
			set_offloads },
	};
	const struct virtio_net_ctrl_hdr *header = (const void *)command;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].class == header->class && header->cmd <= commands[i].command_max)
			return commands[i].run(
				device, command + sizeof(*header), size - sizeof(*header));
	return VIRTIO_NET_ERR;
}

static uint32_t handle_control(struct device *device, const struct virtqueue_chain *chain)
{
	uint8_t command[16] = { 0 }; /* but for addresses, the longest has 10 bytes */
	size_t size = chain->readable_bytes;
	uint8_t ack = VIRTIO_NET_ERR;

	if (chain->writable_bytes < 1)
		return 0;
	bool has_header = size >= sizeof(struct virtio_net_ctrl_hdr);

	net_load(chain->iov, 0, command, min_u64(size, sizeof(command)));
	if (has_header && command[0] == VIRTIO_NET_CTRL_MAC &&
		command[1] == VIRTIO_NET_CTRL_MAC_TABLE_SET)
		ack = accept_tables(chain);
	else if (has_header && size <= sizeof(command))
		ack = run_command(device, command, size);
	net_store(chain->iov + chain->readable, 0, &ack, 1);
	return 1;
}

int net_serve_control(struct device_queue *queue)
{
	return device_serve_chains(queue, handle_control);
}
