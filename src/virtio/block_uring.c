// SPDX-License-Identifier: BSD-3-Clause
/*
 * The block engine on io_uring: one ring a queue, and everything through it.
 * Kicks arrive as completions of a multishot poll, disk operations and the
 * call are submissions, so that one io_uring_enter() submits what is new and
 * waits for what comes: two system calls for a request that is alone, a
 * fraction of one when there are many.
 *
 * The ring is made by the thread that uses it and restricted to the few
 * operations below. Requests are checked before they get here.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "virtio/block_engine.h"

/* What a completion belongs to: one of these, or a request's pointer. */
enum { TAG_NONE, TAG_KICK, TAG_STOP };

struct engine {
	struct io_uring ring;
	struct device_queue *queue;
	struct device *device;
	uint64_t call_value; /* what is written to the call eventfd */
	unsigned in_flight;  /* requests that the kernel works on */
	bool stopping;
	int broken; /* -errno of the virtqueue, or 0 */
	unsigned free_count;
	struct block_request **free_requests;
	struct block_request *requests;
	struct iovec *buffers; /* queue->size for each request */
	size_t memory_size;    /* of the one mapping that holds all arrays */
	void *memory;
};

static const uint8_t allowed_operations[] = {
	IORING_OP_READV,
	IORING_OP_WRITEV,
	IORING_OP_FSYNC,
	IORING_OP_POLL_ADD,
	IORING_OP_WRITE,
};

static int restrict_ring(struct io_uring *ring)
{
	struct io_uring_restriction rules[ARRAY_SIZE(allowed_operations) + 2] = { 0 };

	for (unsigned i = 0; i < ARRAY_SIZE(allowed_operations); i++) {
		rules[i].opcode = IORING_RESTRICTION_SQE_OP;
		rules[i].sqe_op = allowed_operations[i];
	}
	rules[ARRAY_SIZE(allowed_operations)].opcode = IORING_RESTRICTION_REGISTER_OP;
	rules[ARRAY_SIZE(allowed_operations)].register_op = IORING_REGISTER_ENABLE_RINGS;
	rules[ARRAY_SIZE(allowed_operations) + 1].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	rules[ARRAY_SIZE(allowed_operations) + 1].sqe_flags = IOSQE_CQE_SKIP_SUCCESS;
	int r = io_uring_register_restrictions(ring, rules, ARRAY_SIZE(rules));

	return r < 0 ? r : io_uring_enable_rings(ring);
}

/* The newest way first: Linux 6.1 does completions only when we wait for them. */
static int create_ring(struct io_uring *ring, unsigned entries)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int r = -ENOSYS;

	for (unsigned i = 0; r < 0 && i < ARRAY_SIZE(flags); i++) {
		r = io_uring_queue_init(entries, ring, flags[i] | IORING_SETUP_R_DISABLED);
		if (r < 0)
			continue;
		r = restrict_ring(ring);
		if (r < 0)
			io_uring_queue_exit(ring);
	}
	return r < 0 ? -EOPNOTSUPP : 0;
}

/* One lazily touched mapping for the requests, their iovecs and the free list. */
static int create_requests(struct engine *engine)
{
	unsigned count = engine->queue->size;
	size_t requests_size = count * sizeof(struct block_request);
	size_t free_size = count * sizeof(struct block_request *);
	size_t buffers_size = (size_t)count * count * sizeof(struct iovec);

	engine->memory_size = requests_size + free_size + buffers_size;
	engine->memory = mmap(NULL, engine->memory_size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (engine->memory == MAP_FAILED)
		return -errno;
	engine->requests = engine->memory;
	engine->buffers = (void *)((uint8_t *)engine->memory + requests_size);
	engine->free_requests = (void *)((uint8_t *)engine->memory + requests_size + buffers_size);
	/* The first ones on top, so that a queue that is never full touches few pages. */
	for (unsigned i = 0; i < count; i++)
		engine->free_requests[i] = &engine->requests[count - 1 - i];
	engine->free_count = count;
	return 0;
}

static struct iovec *request_buffers(
	const struct engine *engine, const struct block_request *request)
{
	return engine->buffers + (size_t)(request - engine->requests) * engine->queue->size;
}

/* A submission entry; a full submission queue is handed to the kernel first. */
static struct io_uring_sqe *get_sqe(struct engine *engine)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->ring);

	while (sqe == NULL) {
		(void)io_uring_submit(&engine->ring);
		sqe = io_uring_get_sqe(&engine->ring);
	}
	return sqe;
}

static void submit_poll(struct engine *engine, int fd, uint64_t tag)
{
	struct io_uring_sqe *sqe = get_sqe(engine);

	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	sqe->user_data = tag;
}

static void submit_call(struct engine *engine)
{
	struct io_uring_sqe *sqe = get_sqe(engine);

	io_uring_prep_write(
		sqe, engine->queue->call_fd, &engine->call_value, sizeof(engine->call_value), 0);
	sqe->user_data = TAG_NONE;
	/* Its completion would end the wait that it is submitted with. Linux 5.17 */
	if ((engine->ring.features & IORING_FEAT_CQE_SKIP) != 0)
		io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
}

static void submit_request(struct engine *engine, struct block_request *request)
{
	const struct block_image *image = &engine->device->image;
	int fd = image->direct_fd >= 0 && !request->buffered ? image->direct_fd : image->fd;
	struct io_uring_sqe *sqe = get_sqe(engine);

	switch (request->operation) {
	case BLOCK_READ:
		io_uring_prep_readv(sqe, fd, request->iov, request->iov_count, request->offset);
		break;
	case BLOCK_WRITE:
		io_uring_prep_writev2(sqe, fd, request->iov, request->iov_count, request->offset,
			block_write_flags(engine->device));
		break;
	default:
		io_uring_prep_fsync(sqe, image->fd, IORING_FSYNC_DATASYNC);
		break;
	}
	sqe->user_data = (uintptr_t)request;
	engine->in_flight++;
}

static void complete(struct engine *engine, struct block_request *request)
{
	uint32_t written = block_request_finish(request);

	virtqueue_push(&engine->queue->vq, request->head, written);
	engine->free_requests[engine->free_count++] = request;
}

static void begin(struct engine *engine, struct block_request *request)
{
	switch (request->operation) {
	case BLOCK_READ:
	case BLOCK_WRITE:
	case BLOCK_FLUSH:
		submit_request(engine, request);
		return;
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		block_do_segments(engine->device, request);
		break;
	case BLOCK_DONE:
		break;
	}
	complete(engine, request);
}

/* Takes what the driver offers, a ring's worth at most. True when there may be more. */
static bool drain(struct engine *engine)
{
	for (unsigned n = 0; n < engine->queue->size; n++) {
		if (engine->free_count == 0)
			return false;
		struct block_request *request = engine->free_requests[engine->free_count - 1];
		struct virtqueue_chain chain = {
			.iov = request_buffers(engine, request),
			.iov_max = engine->queue->size,
		};
		int r = virtqueue_pop(&engine->queue->vq, &chain);

		if (r < 0)
			engine->broken = r;
		if (r <= 0)
			return false;
		engine->free_count--;
		block_request_parse(request, &chain, &engine->device->geometry);
		begin(engine, request);
	}
	return true;
}

static void finish_transfer(struct engine *engine, struct block_request *request, int result)
{
	if (result == -EINTR || result == -EAGAIN) {
		submit_request(engine, request);
		return;
	}
	if (result == -EINVAL && engine->device->image.direct_fd >= 0 && !request->buffered) {
		request->buffered = true; /* the guest's buffers are not aligned for O_DIRECT */
		submit_request(engine, request);
		return;
	}
	if (result <= 0)
		request->status = VIRTIO_BLK_S_IOERR;
	else if (block_request_advance(request, (size_t)result)) {
		submit_request(engine, request);
		return;
	}
	complete(engine, request);
}

static void finish_request(struct engine *engine, struct block_request *request, int result)
{
	engine->in_flight--;
	if (request->operation == BLOCK_FLUSH) {
		block_flush_done(engine->device, request, result);
		complete(engine, request);
	} else {
		finish_transfer(engine, request, result);
	}
}

static void take_completion(struct engine *engine, const struct io_uring_cqe *cqe)
{
	switch (cqe->user_data) {
	case TAG_NONE:
		break;
	case TAG_KICK:
		/* The kernel ends a multishot poll when completions overflowed. */
		if ((cqe->flags & IORING_CQE_F_MORE) == 0)
			submit_poll(engine, engine->queue->kick_fd, TAG_KICK);
		break;
	case TAG_STOP:
		engine->stopping = true;
		break;
	default:
		finish_request(engine, (struct block_request *)(uintptr_t)cqe->user_data, cqe->res);
	}
}

static void take_completions(struct engine *engine)
{
	struct io_uring_cqe *cqe;
	unsigned head;
	unsigned count = 0;

	io_uring_for_each_cqe(&engine->ring, head, cqe)
	{
		struct io_uring_cqe copy = *cqe;

		take_completion(engine, &copy);
		count++;
	}
	io_uring_cq_advance(&engine->ring, count);
}

static void publish(struct engine *engine)
{
	if (virtqueue_publish(&engine->queue->vq))
		submit_call(engine);
}

/* One round: new requests in, completions out. True when there is no reason to wait. */
static bool work(struct engine *engine)
{
	bool more = false;

	/* What is done goes out before new work goes in. */
	publish(engine);
	if (!engine->stopping && engine->broken == 0) {
		more = drain(engine);
		publish(engine);
		/* With every request in flight a completion comes before more can be taken. */
		if (!more && engine->broken == 0 && engine->free_count != 0)
			more = virtqueue_enable_kicks(&engine->queue->vq);
	}
	return more;
}

static int run(struct engine *engine)
{
	submit_poll(engine, engine->queue->stop_fd, TAG_STOP);
	submit_poll(engine, engine->queue->kick_fd, TAG_KICK);
	while (!engine->stopping || engine->in_flight != 0) {
		bool more = work(engine);

		if (engine->broken != 0 && engine->in_flight == 0)
			break;
		int r = io_uring_submit_and_wait(&engine->ring, more ? 0 : 1);

		if (r < 0 && r != -EINTR && r != -EBUSY && r != -EAGAIN)
			return r;
		take_completions(engine);
	}
	publish(engine);
	(void)io_uring_submit(&engine->ring);
	return engine->broken;
}

int block_serve_uring(struct device_queue *queue)
{
	struct engine engine = { .queue = queue, .device = queue->device, .call_value = 1 };
	int r = create_ring(&engine.ring, 2 * queue->size);

	if (r < 0)
		return r;
	r = create_requests(&engine);
	if (r == 0) {
		r = run(&engine);
		munmap(engine.memory, engine.memory_size);
	}
	io_uring_queue_exit(&engine.ring);
	return r;
}
