/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets of virtio-vsock in the guest's buffers: a header of 44 bytes and
 * data, cut into buffers anywhere. The guest writes headers and lengths as it
 * likes; they are copied once, and the copy is checked.
 *
 * Source: virtio 1.2, section 5.10.6.
 */
#pragma once

#include <linux/virtio_vsock.h>
#include <sys/uio.h>

#include "base/util.h"
#include "virtio/virtqueue.h"

enum {
	VSOCK_QUEUE_SIZE = 128,
	VSOCK_HEADER_SIZE = sizeof(struct virtio_vsock_hdr),
	/* Of what the guest sends; a driver that goes by our credit stays far below. */
	VSOCK_DATA_MAX = 64 << 10,
	/* Of one connection to the guest at once: Linux offers 4 KiB for each. */
	VSOCK_PACKETS_MAX = 16,
	VSOCK_IOV_MAX = 2 * VSOCK_QUEUE_SIZE,
};

/* Bytes of the guest, one buffer after the other. */
struct vsock_data {
	struct iovec iov[VSOCK_IOV_MAX];
	unsigned count;
	uint32_t size;
};

/* Chains that the guest offered, for packets to be written to. All hold a header and a byte. */
struct vsock_room {
	unsigned count;
	struct virtqueue_chain chains[VSOCK_PACKETS_MAX];
	uint32_t sizes[VSOCK_PACKETS_MAX]; /* of the packets that were written */
	struct iovec iov[VSOCK_IOV_MAX];   /* of all chains */
};

/* Adds the part [skip, skip + size) of buffers that hold as much; all have VSOCK_IOV_MAX at most.
 */
void vsock_data_add(struct vsock_data *data, const struct iovec *iov, unsigned count, size_t skip,
	uint32_t size);
/* Takes its first bytes away; it has as many. */
void vsock_data_skip(struct vsock_data *data, size_t size);
/* Copies [skip, skip + size) out of the data. The caller knows that it is there. */
void vsock_data_copy(const struct vsock_data *data, size_t skip, void *to, size_t size);

/*
 * Takes a packet that the guest sent. 0; -EPROTO when the chain holds no
 * header; or -EMSGSIZE with the header when its length does not fit: beyond
 * the chain or VSOCK_DATA_MAX. Bytes behind the length are left out.
 */
MUST_CHECK int vsock_packet_take(const struct virtqueue_chain *chain,
	struct virtio_vsock_hdr *ret_header, struct vsock_data *ret_data);

/* Writes a header to the start of buffers that hold it. */
void vsock_packet_put_header(const struct iovec *iov, const struct virtio_vsock_hdr *header);
