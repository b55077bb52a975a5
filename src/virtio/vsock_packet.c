// SPDX-License-Identifier: BSD-3-Clause
/* Walks over buffers whose number and sizes are the guest's; virtqueue.c checked where they lie. */
#include "virtio/vsock_packet.h"

#include <errno.h>
#include <string.h>

void vsock_data_add(struct vsock_data *data, const struct iovec *iov, unsigned count, size_t skip,
	uint32_t size)
{
	uint32_t left = size;

	data->size += size;
	for (unsigned i = 0; i < count && left > 0; i++) {
		size_t before = min_u64(skip, iov[i].iov_len);
		size_t bytes = min_u64(left, iov[i].iov_len - before);

		skip -= before;
		left -= (uint32_t)bytes;
		if (bytes > 0)
			data->iov[data->count++] =
				(struct iovec){ (uint8_t *)iov[i].iov_base + before, bytes };
	}
}

void vsock_data_skip(struct vsock_data *data, size_t size)
{
	unsigned kept = 0;

	data->size -= (uint32_t)size;
	for (unsigned i = 0; i < data->count; i++) {
		struct iovec iov = data->iov[i];
		size_t part = min_u64(size, iov.iov_len);

		size -= part;
		if (part < iov.iov_len)
			data->iov[kept++] = (struct iovec){ (uint8_t *)iov.iov_base + part,
				iov.iov_len - part };
	}
	data->count = kept;
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
	struct vsock_data start = { .count = 0 };

	if (chain->readable_bytes < VSOCK_HEADER_SIZE)
		return -EPROTO;
	vsock_data_add(&start, chain->iov, chain->readable, 0, VSOCK_HEADER_SIZE);
	vsock_data_copy(&start, 0, ret_header, VSOCK_HEADER_SIZE);
	uint32_t size = ret_header->len;

	if (size > chain->readable_bytes - VSOCK_HEADER_SIZE || size > VSOCK_DATA_MAX)
		return -EMSGSIZE;
	ret_data->count = ret_data->size = 0;
	vsock_data_add(ret_data, chain->iov, chain->readable, VSOCK_HEADER_SIZE, size);
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
