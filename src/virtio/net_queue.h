/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the network device, shared by net.c (what it is), its three
 * kinds of queues (net_receive.c, net_transmit.c, net_control.c), and what
 * these need (net_pair.c, net_cable.c, net_header.c). Nobody else includes it.
 */
#pragma once

#include <linux/virtio_net.h>
#include <stdatomic.h>

#include "virtio/device.h"
#include "virtio/net_pair.h"
#include "virtio/net_stream.h"
#include "virtio/net_tap.h"
#include "virtio/uring.h"

enum {
	NET_QUEUE_SIZE = 256,
	NET_HEADER_SIZE = sizeof(struct virtio_net_hdr_mrg_rxbuf),
	NET_ETHERNET_HEADER = 14,
	NET_VLAN_TAG = 4,
	/* Of frames with their header. */
	NET_FRAME_MIN = NET_HEADER_SIZE + NET_ETHERNET_HEADER,
	NET_FRAME_MAX = NET_HEADER_SIZE + NET_ETHERNET_HEADER + NET_VLAN_TAG + 65535,
};

/* Bits of virtio that <linux/virtio_net.h> of Debian 12 has not. */
#ifndef VIRTIO_NET_F_GUEST_USO4
#define VIRTIO_NET_F_GUEST_USO4   54
#define VIRTIO_NET_F_GUEST_USO6   55
#define VIRTIO_NET_F_HOST_USO     56
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

struct device {
	struct net_options options;
	struct net_tap tap;        /* without queues where the network is a stream */
	struct net_stream *stream; /* passt's, or NULL */
	int passt_fd;              /* its pidfd, or -1 */
	int back_end_fd;           /* its vhost-user socket until somebody takes that, or -1 */
	struct urings urings;
	int vhost_fd;              /* /dev/vhost-net, or -1: the rings are ours */
	_Atomic uint64_t features; /* accepted by the driver */
	atomic_uint pairs;         /* that the driver uses; set by the control queue's thread */
	atomic_bool gone;          /* the end of the network; it was said */
	struct net_pair queue_pairs[NET_PAIRS_MAX];
};

static inline bool net_has(const struct device *device, unsigned feature)
{
	return ((device->features >> feature) & 1) != 0;
}

/* Where in the available ring the newest pop was: what tells whether it can be taken back. */
static inline uint16_t net_last_position(const struct virtqueue *vq)
{
	return (uint16_t)(virtqueue_base(vq) - 1);
}

/* Whether the driver may send a frame with this header, by the features that it accepted. */
bool net_header_is_good(uint64_t features, const struct virtio_net_hdr *header);
/* Whether it knows what this header of a tap means, perhaps after a change of it. */
bool net_header_fits_guest(uint64_t features, struct virtio_net_hdr *header);

/* Copy into buffers that hold as much, and out of them, from `offset` on. */
void net_store(const struct iovec *iov, size_t offset, const void *data, size_t size);
void net_load(const struct iovec *iov, size_t offset, void *data, size_t size);
/* Copies the header out of the first buffers and leaves them without it. */
void net_take_header(struct iovec *iov, struct virtio_net_hdr_mrg_rxbuf *ret_header);

extern const struct uring_kind net_uring_kind;

/* The serve functions of each kind of queue; see device.h. */
MUST_CHECK int net_serve_receive(struct device_queue *queue);
MUST_CHECK int net_serve_transmit(struct device_queue *queue);
MUST_CHECK int net_serve_control(struct device_queue *queue);
