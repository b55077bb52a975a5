# SPDX-License-Identifier: BSD-3-Clause
"""Sockets between guest and host: tools/plant-bugs says what the fields are."""

PACKET = "src/virtio/vsock_packet.c"
PROTOCOL = "src/virtio/vsock_protocol.c"
CONNECTION = "src/virtio/vsock_connection.c"
QUEUE = "src/virtio/vsock_queue.c"

BUGS = [
    ("B55", "a packet says that it has more data than its buffers", PACKET,
     "if (size > chain->readable_bytes - VSOCK_HEADER_SIZE || size > VSOCK_DATA_MAX)", "if (size > VSOCK_DATA_MAX)", "test_vsock"),
    ("B55", "a packet without a whole header", PACKET,
     "\tif (chain->readable_bytes < VSOCK_HEADER_SIZE)\n\t\treturn -EPROTO;\n", "", "test_vsock"),
    ("B43", "a header for the guest is copied into one buffer, whatever that holds", PACKET,
     "size_t part = min_u64(left, iov->iov_len);", "size_t part = left;", "test_vsock_states"),
    ("B56", "credit goes below 0 when the guest's buffer shrinks", CONNECTION,
     "return in_flight < connection->peer_buf_alloc ? connection->peer_buf_alloc - in_flight : 0;",
     "return connection->peer_buf_alloc - in_flight;", "test_vsock"),
    ("B56", "the guest has read more than it was sent", CONNECTION,
     "\tif (in_flight > INT32_MAX)\n\t\treturn false;\n", "", "test_vsock"),
    ("B57", "a guest sends more than its credit", CONNECTION,
     "\tif (data->size > connection->window - vsock_buffered(connection))\n\t\treturn -ENOBUFS;\n", "", "test_vsock"),
    ("B57", "the buffer of what the host does not read wraps at the wrong place", CONNECTION,
     "size_t part = min_u64(left, connection->window - at);", "size_t part = left;", "test_vsock"),
    ("B58", "a table that is full takes one more connection", "src/virtio/vsock_connection.h",
     "return table->used == table->most;", "return table->used > table->most;", "test_vsock"),
    ("B58", "packets are taken though there is no room for another reset", QUEUE,
     "\tif (host->reset_count == VSOCK_RESETS_MAX)\n\t\treturn 0;\n", "", "test_vsock or hangs"),
    ("B60", "a packet in the name of another guest", PROTOCOL,
     "if (header.src_cid != host->cid || header.dst_cid != VMADDR_CID_HOST)", "if (header.dst_cid != VMADDR_CID_HOST)", "test_vsock"),
    ("B60", "an event of a connection that is gone reaches the one in its place", CONNECTION,
     "connection->state != VSOCK_FREE && connection->age == tag >> 32 ?", "connection->state != VSOCK_FREE ?", "test_vsock_states"),
    ("B60", "a kind of packet that is in no table", PROTOCOL,
     "bool is_known = header->op < ARRAY_SIZE(takers) && takers", "bool is_known = takers", "test_vsock_states"),
    ("B60", "data for a connection that is not there yet", PROTOCOL,
     "[VIRTIO_VSOCK_OP_RW] = { STATE(CONNECTED), take_data },",
     "[VIRTIO_VSOCK_OP_RW] = { STATE(CONNECTED) | STATE(REQUESTED), take_data },", "test_vsock_states"),
    ("B59", "data after the guest said that there will be none", PROTOCOL,
     "\tif ((connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0) {\n\t\treset(host, connection);\n\t\treturn;\n\t}\n",
     "", "test_vsock_states"),
    ("B59", "the end of what the guest sends is not handed on", PROTOCOL,
     "\t\t(void)shutdown(connection->fd, SHUT_WR);", "\t\t(void)0;", "test_vsock_states"),
    ("B51", "a buffer that holds a header and no data", QUEUE,
     "chain->writable_bytes <= VSOCK_HEADER_SIZE ||", "chain->writable_bytes < VSOCK_HEADER_SIZE ||", "test_vsock or hangs"),
    ("B60", "a connection that ends leaves its descriptor open", CONNECTION,
     "\t\tLIST_REMOVE(connection, bucket);\n\tfd_close(&connection->fd);\n\tfree", "\t\tLIST_REMOVE(connection, bucket);\n\tfree",
     "test_vsock_states"),
    ("B97", "the helper that connects gives an answer to another request", "src/base/connector.c",
     "while (r == 0 && answer.serial != request.serial);", "while (false);", "test_connector or hangs"),
    ("B97", "a helper that does not answer is waited for without end", "src/base/connector.c",
     "r = fd_wait(socket, POLLIN, deadline_ns);", "r = 0;", "test_connector or hangs"),
]
