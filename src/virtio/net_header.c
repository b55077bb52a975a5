// SPDX-License-Identifier: BSD-3-Clause
/*
 * The header in front of each frame: what it may say, by what the driver
 * accepted, and how it gets into and out of buffers that may cut it anywhere.
 * Headers to the network are the driver's, those to the guest a tap's.
 */
#include <string.h>

#include "virtio/net_queue.h"

static bool has(uint64_t features, unsigned feature)
{
	return (features >> feature & 1) != 0;
}

/* Whether segmentation of this kind was accepted for this direction. */
static bool segments_are_good(uint64_t features, const struct virtio_net_hdr *header, bool to_guest)
{
	static const struct {
		uint8_t type;
		unsigned to_host;
		unsigned to_guest;
	} kinds[] = {
		{ VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4 },
		{ VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_TSO6 },
	};
	unsigned ecn = to_guest ? VIRTIO_NET_F_GUEST_ECN : VIRTIO_NET_F_HOST_ECN;
	uint8_t type = header->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;

	if ((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0)
		return false;
	if (header->gso_type == VIRTIO_NET_HDR_GSO_UDP_L4)
		return to_guest ? has(features, VIRTIO_NET_F_GUEST_USO4) ||
					  has(features, VIRTIO_NET_F_GUEST_USO6)
				: has(features, VIRTIO_NET_F_HOST_USO);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].type == type)
			return has(features, to_guest ? kinds[i].to_guest : kinds[i].to_host) &&
			       (type == header->gso_type || has(features, ecn));
	return false;
}

bool net_header_is_good(uint64_t features, const struct virtio_net_hdr *header)
{
	if ((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0 && !has(features, VIRTIO_NET_F_CSUM))
		return false;
	return header->gso_type == VIRTIO_NET_HDR_GSO_NONE ||
	       segments_are_good(features, header, false);
}

/*
 * A frame may have waited in the tap since before the driver said what it
 * accepts. Without GUEST_CSUM there are no flags; a tap says even then that it
 * has verified a checksum.
 */
bool net_header_fits_guest(uint64_t features, struct virtio_net_hdr *header)
{
	if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE &&
		!segments_are_good(features, header, true))
		return false;
	if (has(features, VIRTIO_NET_F_GUEST_CSUM))
		return true;
	if ((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0)
		return false;
	header->flags = 0;
	return true;
}

void net_store(const struct iovec *iov, size_t offset, const void *data, size_t size)
{
	const uint8_t *bytes = data;

	for (; size > 0; iov++) {
		size_t skip = min_u64(offset, iov->iov_len);
		size_t part = min_u64(size, iov->iov_len - skip);

		memcpy((uint8_t *)iov->iov_base + skip, bytes, part);
		offset -= skip;
		bytes += part;
		size -= part;
	}
}

void net_load(const struct iovec *iov, size_t offset, void *data, size_t size)
{
	uint8_t *bytes = data;

	for (; size > 0; iov++) {
		size_t skip = min_u64(offset, iov->iov_len);
		size_t part = min_u64(size, iov->iov_len - skip);

		memcpy(bytes, (const uint8_t *)iov->iov_base + skip, part);
		offset -= skip;
		bytes += part;
		size -= part;
	}
}

void net_take_header(struct iovec *iov, struct virtio_net_hdr_mrg_rxbuf *ret_header)
{
	size_t done = 0;

	while (done < sizeof(*ret_header)) {
		size_t size = min_u64(iov->iov_len, sizeof(*ret_header) - done);

		memcpy((uint8_t *)ret_header + done, iov->iov_base, size);
		iov->iov_base = (uint8_t *)iov->iov_base + size;
		iov->iov_len -= size;
		done += size;
		if (iov->iov_len == 0)
			iov++;
	}
}
