// SPDX-License-Identifier: BSD-3-Clause
/* Walks over buffers whose number and sizes are the guest's; virtqueue.c checked where they lie. */
#include "virtio/vsock_packet.h"

#include <errno.h>
#include <string.h>

void vsock_data_slice(const struct iovec *iov, unsigned count, size_t skip, uint32_t size,
	struct vsock_data *ret_data)
{
	uint32_t left = size;

	ret_data->count = 0;
	ret_data->size = size;
	for (unsigned i = 0; i < count && left > 0; i++) {
		size_t before = min_u64(skip, iov[i].iov_len);
		size_t bytes = min_u64(left, iov[i].iov_len - before);

		skip -= before;
		left -= (uint32_t)bytes;
		if (bytes > 0)
			ret_data->iov[ret_data->count++] =
				(struct iovec){ (uint8_t *)iov[i].iov_base + before, bytes };
	}
}

void vsock_data_copy(const struct vsock_data *data, size_t skip, void *to, size_t size)
{
	uint8_t *bytes = to;

	for (unsigned i = 0; i < data->count && size > 0; i++) {
		size_t before = min_u64(skip, data->iov[i].iov_len);
		size_t part = min_u64(size, data->iov[i].iov_len - before);

		memcpy(bytes, (const uint8_t *)data->iov[i].iov_base + before, part);
		skip -= before;
		bytes += part;
		size -= part;
	}
}

int vsock_packet_take(const struct virtqueue_chain *chain, struct virtio_vsock_hdr *ret_header,
	struct vsock_data *ret_data)
{
	struct vsock_data start;

	if (chain->readable_bytes < VSOCK_HEADER_SIZE)
		return -EPROTO;
	vsock_data_slice(chain->iov, chain->readable, 0, VSOCK_HEADER_SIZE, &start);
	vsock_data_copy(&start, 0, ret_header, VSOCK_HEADER_SIZE);
	uint32_t size = ret_header->len;

	if (size > chain->readable_bytes - VSOCK_HEADER_SIZE || size > VSOCK_DATA_MAX)
		return -EMSGSIZE;
	vsock_data_slice(chain->iov, chain->readable, VSOCK_HEADER_SIZE, size, ret_data);
	return 0;
}

void vsock_packet_put_header(const struct iovec *iov, const struct virtio_vsock_hdr *header)
{
	const uint8_t *bytes = (const uint8_t *)header;

	for (size_t left = sizeof(*header); left > 0; iov++) {
		size_t part = min_u64(left, iov->iov_len);

		memcpy(iov->iov_base, bytes, part);
		bytes += part;
		left -= part;
	}
}
