# SPDX-License-Identifier: BSD-3-Clause
"""Network cards: tools/plant-bugs says what the fields are."""

TRANSMIT = "src/virtio/net_transmit.c"
RECEIVE = "src/virtio/net_receive.c"
HEADER = "src/virtio/net_header.c"
CONTROL = "src/virtio/net_control.c"

BUGS = [
    ("B45", "a frame that is shorter than its header", TRANSMIT,
     "if (chain->readable_bytes < NET_FRAME_MIN || chain->readable_bytes", "if (chain->readable_bytes", "test_net"),
    ("B46", "a frame that is shorter than an Ethernet header goes to the tap", TRANSMIT,
     "chain->readable_bytes < NET_FRAME_MIN", "chain->readable_bytes < NET_HEADER_SIZE", "test_net"),
    ("B48", "a frame of any length", TRANSMIT,
     " || chain->readable_bytes > NET_FRAME_MAX)", ")", "test_net"),
    ("B47", "flags that mean nothing go to the tap", TRANSMIT,
     "\theader->hdr.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;\n", "", "test_net"),
    ("B54", "a checksum offload that was not accepted", HEADER,
     "\tif ((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0 && !has(features, VIRTIO_NET_F_CSUM))\n\t\treturn false;\n",
     "", "test_net"),
    ("B47", "segmentation of a kind that nobody knows", HEADER,
     "\t\t\t       (type == header->gso_type || has(features, ecn));\n\treturn false;\n",
     "\t\t\t       (type == header->gso_type || has(features, ecn));\n\treturn true;\n", "test_net"),
    ("B54", "a frame in segments for a guest that did not accept them", HEADER,
     "\tif (header->gso_type != VIRTIO_NET_HDR_GSO_NONE &&\n\t\t!segments_are_good(features, header, true))\n\t\treturn false;\n",
     "", "test_net"),
    ("B45", "a header in pieces is stored as if its first buffer held it", HEADER,
     "size_t part = min_u64(size, iov->iov_len - skip);", "size_t part = size;", "test_net"),
    ("B53", "frames for a network that is gone are thrown away at full speed", TRANSMIT,
     "bool lost = failed > 0 && failed == sender->count;", "bool lost = false;", "test_net"),
    ("B51", "a buffer that does not hold the header", RECEIVE,
     "chain.writable_bytes < NET_HEADER_SIZE || chain.readable != 0", "chain.readable != 0", "test_net or hangs"),
    ("B49", "the number of buffers is not told", RECEIVE,
     "used = (uint16_t)(used + give_end(receiver, end));", "(void)give_end(receiver, end);", "test_net_large"),
    ("B26", "the driver is told of all its buffer, not of what was written", RECEIVE,
     "\t\tgive(receiver, chain, bytes);", "\t\tgive(receiver, chain, chain->bytes);", "test_net"),
    ("B44", "a network with frames is looked at again and again while there are no buffers", RECEIVE,
     "side->wants_kick = batch->count == 0;", "side->wants_kick = false;", "test_net"),
    ("B7", "a command that is longer than any is copied whole", CONTROL,
     "load(chain, 0, command, min_u64(size, sizeof(command)));", "load(chain, 0, command, size);",
     "test_net"),
    ("B7", "a table of addresses may count more than there are", CONTROL,
     "return end == chain->readable_bytes ? VIRTIO_NET_OK : VIRTIO_NET_ERR;", "return VIRTIO_NET_OK;", "test_net"),
    ("B50", "no queue pair at all", CONTROL,
     "if (pairs < 1 || pairs > device->options.pairs)", "if (pairs > device->options.pairs)", "test_net"),
    ("B50", "more queue pairs than the device has", CONTROL,
     "if (pairs < 1 || pairs > device->options.pairs)", "if (pairs < 1)", "test_net"),
    ("B50", "a command without its data", CONTROL,
     "if (size != sizeof(pairs) || !net_has", "if (!net_has", "test_net"),
    ("B54", "offloads that the driver did not accept are turned on", CONTROL,
     "if ((offloads & ~(device->features & settable)) != 0 ||", "if ((offloads & ~settable) != 0 ||", "test_net"),
    ("B47", "a guest reaches the host's loopback by the address that IPv6 has for it", "src/virtio/net_guard.c",
     "(group[0] == 0 || group[0] == 0xff)", "group[0] == 0", "test_net_guard"),
]
