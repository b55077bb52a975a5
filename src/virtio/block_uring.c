// SPDX-License-Identifier: BSD-3-Clause
/*
 * The block engine on io_uring: one ring a queue, and everything through it.
 * Kicks arrive as completions of a multishot poll, disk operations and the
 * call are submissions, so that one io_uring_enter() submits what is new and
 * waits for what comes: two system calls for a request that is alone, a
 * fraction of one when there are many.
 *
 * The ring is the queue's thread's, and outlives each of its starts (uring.h). Requests are
 * checked before they get here. A ring that fails for good is given up, and what is in flight is
 * brought to its end first.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/log.h"
#include "virtio/block_engine.h"
#include "virtio/block_pool.h"
#include "virtio/look.h"

/* What a completion belongs to: one of these, or a request's pointer. */
enum { TAG_NONE, TAG_KICK, TAG_STOP };

/*
 * From so many requests on, the driver sees what is done once two of three are.
 * Then it has room for as many anew, but needs a moment to fill it: so we look
 * when three of four of the rest are done, and only then wait for the next two
 * of three. No wait is long, and the driver need not kick meanwhile.
 */
enum { BATCH_FROM = 12, BATCH_WAIT_NS = 400000 };
/* Polls, and what takes them back. */
enum { POLLS_MAX = 4 };
/* How long a dead ring's requests may take to end. */
enum { LAST_WAIT_MS = 5000 };

static const uint8_t allowed_operations[] = {
	IORING_OP_READV,
	IORING_OP_WRITEV,
	IORING_OP_FSYNC,
	IORING_OP_POLL_ADD,
	IORING_OP_POLL_REMOVE,
	IORING_OP_WRITE,
};

const struct uring_kind block_uring_kind = {
	.entries = BLOCK_RING_ENTRIES,
	.sqe_flags = IOSQE_CQE_SKIP_SUCCESS,
	.operation_count = ARRAY_SIZE(allowed_operations),
	.operations = allowed_operations,
};

struct engine {
	struct io_uring *ring; /* owned by the device */
	struct device_queue *queue;
	struct device *device;
	unsigned in_flight; /* requests that the kernel works on */
	unsigned held;      /* requests that are done, and not yet shown to the driver */
	unsigned polls;     /* armed in the kernel */
	bool serving;       /* until the stop, or a broken queue */
	bool looking;       /* at what the driver offers: it was not asked for a kick, or kicked */
	bool leaving;       /* arm no poll again */
	bool due;           /* a batch is not whole in time: what there is of it is shown */
	bool late;          /* nothing at all came in time: a slow disk gets kicks */
	bool filling;       /* the driver just got a batch, and has room for new requests */
	bool dead;          /* the ring takes nothing any more */
	int broken;         /* -errno of the virtqueue, or 0 */
	int failure;        /* -errno of a poll, or 0 */
	struct look driver; /* for one that comes at once */
	struct look disk;   /* for one that is as fast */
	atomic_uint *busy;  /* the device's, of this queue */
	struct block_pool pool;
};

/*
 * A submission entry. There is always one: each request and each poll has one at
 * most (BLOCK_IN_FLIGHT), and submit_call() leaves room for them. So it is taken without a look at
 * what the kernel has taken, which io_uring_get_sqe() would have.
 */
static struct io_uring_sqe *get_sqe(struct engine *engine)
{
	struct io_uring_sq *sq = &engine->ring->sq;
	struct io_uring_sqe *sqe = &sq->sqes[sq->sqe_tail++ & sq->ring_mask];

#ifdef IO_URING_VERSION_MAJOR /* liburing 2.4: to clear an entry is that function's work since     \
				 then */
	memset(sqe, 0, sizeof(*sqe));
#endif
	return sqe;
}

static void submit_poll(struct engine *engine, int fd, uint64_t tag)
{
	struct io_uring_sqe *sqe = get_sqe(engine);

	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	sqe->user_data = tag;
	engine->polls++;
}

static void submit_call(struct engine *engine)
{
	/* Not on a stack: nobody waits for the kernel to have read it. */
	static const uint64_t one = 1;
	unsigned kept = engine->pool.count + (unsigned)POLLS_MAX;

	/* Not more of them than fit while the kernel takes nothing. */
	if (engine->dead || io_uring_sq_space_left(engine->ring) <= kept) {
		(void)eventfd_write(engine->queue->call_fd, one);
		return;
	}
	struct io_uring_sqe *sqe = get_sqe(engine);

	io_uring_prep_write(sqe, engine->queue->call_fd, &one, sizeof(one), 0);
	sqe->user_data = TAG_NONE;
	/* Its completion would end the wait that it is submitted with. Linux 5.17 */
	if ((engine->ring->features & IORING_FEAT_CQE_SKIP) != 0)
		io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
}

/* The kernel has it as soon as what is new is submitted. */
static inline void give_away(
	struct engine *engine, struct block_request *request, struct io_uring_sqe *sqe)
{
	sqe->user_data = (uintptr_t)request;
	request->in_kernel = true;
	engine->in_flight++;
}

static inline void submit_transfer(struct engine *engine, struct block_request *request)
{
	struct io_uring_sqe *sqe = get_sqe(engine);
	bool write = request->operation == BLOCK_WRITE;
	int fd = block_next_piece(engine->device, request);

	io_uring_prep_rw(write ? IORING_OP_WRITEV : IORING_OP_READV, sqe, fd, request->iov,
		request->piece_count, request->offset);
	if (write)
		sqe->rw_flags = block_write_flags(engine->device);
	give_away(engine, request, sqe);
}

static void submit_flush(struct engine *engine, struct block_request *request)
{
	struct io_uring_sqe *sqe = get_sqe(engine);

	block_flush_begins(engine->device);
	io_uring_prep_fsync(sqe, engine->device->image.fd, IORING_FSYNC_DATASYNC);
	give_away(engine, request, sqe);
}

static inline void complete(struct engine *engine, struct block_request *request)
{
	uint32_t written = block_request_finish(request);

	virtqueue_push(&engine->queue->vq, request->head, written);
	engine->held++;
	block_pool_give(&engine->pool, request);
}

static void do_here(struct engine *engine, struct block_request *request)
{
	block_do_request(engine->device, request);
	complete(engine, request);
}

/* What is no transfer, or comes too late for the ring. */
static COLD void begin_rest(struct engine *engine, struct block_request *request)
{
	if (request->operation == BLOCK_FLUSH && !engine->dead &&
		block_flush_is_due(engine->device))
		submit_flush(engine, request);
	else
		do_here(engine, request);
}

static inline void begin(struct engine *engine, struct block_request *request)
{
	bool transfer = request->operation == BLOCK_READ || request->operation == BLOCK_WRITE;

	if (transfer && !engine->dead)
		submit_transfer(engine, request);
	else
		begin_rest(engine, request);
}

/* Takes what the driver offers, a ring's worth at most. True when there may be more. */
static bool drain(struct engine *engine)
{
	struct virtqueue_chain chain = { .iov_max = engine->queue->size };

	for (unsigned n = 0; n < chain.iov_max; n++) {
		struct block_request *request = block_pool_next(&engine->pool);

		if (request == NULL)
			return false;
		chain.iov = block_pool_buffers(request);
		int r = virtqueue_pop(&engine->queue->vq, &chain);

		if (r < 0) {
			engine->broken = r;
			engine->serving = false;
		}
		if (r <= 0)
			return false;
		block_pool_take(&engine->pool);
		block_request_parse(request, &chain, &engine->device->geometry);
		begin(engine, request);
	}
	return true;
}

/* The file's alignment may be more than it says. */
static bool shall_be_buffered(struct engine *engine, struct block_request *request, int result)
{
	if (result != -EINVAL || engine->device->image.direct_fd < 0 || request->buffered)
		return false;
	request->buffered = true;
	return true;
}

/* It says nothing of the disk: the kernel could not, as without a thread for it (-ECANCELED). */
static bool was_not_tried(int result)
{
	return result == -EINTR || result == -EAGAIN || result == -ECANCELED;
}

/* What is not a transfer that moved all there was left. */
static COLD void finish_rest(struct engine *engine, struct block_request *request, int result)
{
	bool flush = request->operation == BLOCK_FLUSH;

	if (was_not_tried(result)) {
		do_here(engine, request);
	} else if (!flush && (result > 0 || shall_be_buffered(engine, request, result))) {
		begin(engine, request);
	} else {
		if (flush)
			block_flush_done(engine->device, request, result);
		else
			block_transfer_failed(engine->device, request, result);
		complete(engine, request);
	}
}

static inline void finish_request(struct engine *engine, struct block_request *request, int result)
{
	engine->in_flight--;
	request->in_kernel = false;
	if (request->operation == BLOCK_FLUSH || result <= 0 ||
		block_piece_done(engine->device, request, (size_t)result))
		finish_rest(engine, request, result);
	else
		complete(engine, request);
}

/* What is no request's. */
static COLD void take_event(struct engine *engine, uint64_t tag, int result, bool ended)
{
	if (tag == TAG_NONE)
		return;
	engine->polls -= ended;
	if (engine->leaving)
		return;
	if (result < 0)
		engine->failure = result; /* without its polls the ring is of no use */
	else if (tag == TAG_STOP)
		engine->serving = false;
	else
		engine->looking = true;
	/* The kernel ends a multishot poll when completions overflowed. */
	if (tag == TAG_KICK && ended && result >= 0)
		submit_poll(engine, engine->queue->kick_fd, TAG_KICK);
}

static inline void take_completions(struct engine *engine)
{
	struct io_uring_cq *cq = &engine->ring->cq;
	unsigned head = *cq->khead;
	unsigned tail = io_uring_smp_load_acquire(cq->ktail);
	unsigned count = tail - head;

	for (; head != tail; head++) {
		const struct io_uring_cqe *cqe = &cq->cqes[head & cq->ring_mask];
		uint64_t tag = cqe->user_data;

		if (tag > TAG_STOP)
			finish_request(engine, (struct block_request *)(uintptr_t)tag, cqe->res);
		else
			take_event(engine, tag, cqe->res, (cqe->flags & IORING_CQE_F_MORE) == 0);
	}
	io_uring_cq_advance(engine->ring, count);
}

static void publish(struct engine *engine)
{
	engine->held = 0;
	if (virtqueue_publish(&engine->queue->vq))
		submit_call(engine);
}

/* How many requests shall be done before the driver sees them; 1: each at once. */
static unsigned batch_size(const struct engine *engine)
{
	unsigned popped = engine->in_flight + engine->held;

	if (popped < BATCH_FROM || engine->late ||
		(engine->ring->features & IORING_FEAT_EXT_ARG) == 0)
		return 1;
	return popped - popped / 3;
}

static void publish_batch(struct engine *engine)
{
	if (engine->held == 0) {
		engine->filling = false;
		return;
	}
	unsigned size = batch_size(engine);
	bool now = engine->held >= size || engine->due;

	engine->filling = size > 1 && now;
	if (now)
		publish(engine);
}

/* How many completions to wait for. */
static unsigned wanted(const struct engine *engine)
{
	if (engine->filling && engine->in_flight >= 4)
		return engine->in_flight * 3 / 4;
	return batch_size(engine) - engine->held;
}

/* Submits what is new, and waits for `count` completions, but not long. */
static int enter_timed(struct engine *engine, unsigned count)
{
	struct __kernel_timespec timeout = { .tv_nsec = BATCH_WAIT_NS };
	struct io_uring_cqe *cqe;
	int r = io_uring_submit_and_wait_timeout(engine->ring, &cqe, count, &timeout, NULL);
	unsigned ready = io_uring_cq_ready(engine->ring);

	engine->due = ready < count;
	engine->late = ready == 0;
	return r;
}

/* 0 for what passes by itself. */
static COLD int lasting_error(int error)
{
	bool passes = error == -ETIME || error == -EINTR || error == -EBUSY || error == -EAGAIN;

	return passes ? 0 : error;
}

/* The same, as long as it takes if there is nothing else to do. 0, or -errno for good. */
static inline int enter(struct engine *engine, unsigned count)
{
	int r;

	engine->due = engine->late = false;
	if (count > 1 || (count == 1 && engine->held != 0))
		r = enter_timed(engine, count);
	else
		r = io_uring_submit_and_wait(engine->ring, count);
	return r >= 0 ? 0 : lasting_error(r);
}

/* Whether a completion is there, or would be if the kernel were asked; uring.c wants to be told. */
static bool ring_has_news(const struct engine *engine)
{
	return io_uring_cq_ready(engine->ring) != 0 ||
	       (IO_URING_READ_ONCE(*engine->ring->sq.kflags) & IORING_SQ_TASKRUN) != 0;
}

/* For what is in flight, or else for the driver. */
static struct look *look_of(struct engine *engine)
{
	return engine->in_flight == 0 ? &engine->driver : &engine->disk;
}

/* Whether something comes soon. No call is held back meanwhile. */
static COLD bool look_around(struct engine *engine, struct look *look)
{
	if (io_uring_sq_ready(engine->ring) != 0)
		return false;
	virtqueue_disable_kicks(&engine->queue->vq);
	engine->looking = true;
	while (!look_is_over(look))
		if (virtqueue_has_more(&engine->queue->vq) || ring_has_news(engine)) {
			look_found(look);
			return true;
		}
	return false;
}

/* Whether to submit first, and then look around; what is cached is read by that alone. */
static COLD bool is_better_submitted(struct engine *engine)
{
	bool is_cached = engine->device->image.direct_fd < 0;

	return io_uring_sq_ready(engine->ring) != 0 && engine->in_flight < BATCH_FROM &&
	       (look_of(engine)->ns != 0 || (is_cached && engine->driver.ns != 0));
}

static inline bool is_hasty(struct engine *engine)
{
	return (engine->driver.ns | engine->disk.ns) != 0 && is_better_submitted(engine);
}

/* One round: new requests in, completions out. How many completions to wait for then. */
static unsigned work(struct engine *engine)
{
	bool more = engine->serving && engine->looking && drain(engine);

	publish_batch(engine);
	if (more || is_hasty(engine))
		return 0;
	unsigned count = wanted(engine);

	/* With every request in flight a completion comes before more can be taken. */
	if (!engine->serving || engine->pool.free_count == 0)
		return count;
	struct look *look = look_of(engine);

	if (count > 1)
		virtqueue_disable_kicks(&engine->queue->vq);
	else if ((look_begin(look) && look_around(engine, look)) ||
		 (engine->looking && virtqueue_enable_kicks(&engine->queue->vq)))
		return 0;
	engine->looking = count > 1;
	return count;
}

static void submit_poll_removes(struct engine *engine)
{
	static const uint64_t tags[] = { TAG_KICK, TAG_STOP };

	for (unsigned i = 0; i < ARRAY_SIZE(tags); i++) {
		struct io_uring_sqe *sqe = get_sqe(engine);

		io_uring_prep_poll_remove(sqe, tags[i]);
		sqe->user_data = TAG_NONE;
	}
}

/*
 * Takes back the polls, so that the queue's next start finds the ring as it was made.
 * One whose event is just being delivered cannot be taken back at that moment
 * (-EALREADY), so it is tried until none is left.
 */
static int disarm(struct engine *engine)
{
	int r;

	engine->leaving = true;
	do {
		submit_poll_removes(engine);
		r = enter(engine, 1);
		take_completions(engine);
	} while (r == 0 && engine->polls != 0);
	return r;
}

/* For the VMM, which looks now and then: a plain store in each round. */
static void tell_busy(const struct engine *engine)
{
	atomic_store_explicit(engine->busy, engine->in_flight, memory_order_relaxed);
}

/* 0 when stopped or the driver broke the queue; -errno when the ring failed. */
static int run(struct engine *engine)
{
	submit_poll(engine, engine->queue->stop_fd, TAG_STOP);
	submit_poll(engine, engine->queue->kick_fd, TAG_KICK);
	for (;;) {
		unsigned count = work(engine);

		if (!engine->serving && engine->in_flight == 0)
			break;
		tell_busy(engine);
		int r = enter(engine, count);

		if (r < 0)
			return r;
		look_end(&engine->driver);
		look_end(&engine->disk);
		take_completions(engine);
		if (engine->failure < 0)
			return engine->failure;
	}
	publish(engine);
	return disarm(engine);
}

/* What is in the submission queue was never seen by the kernel, and never will be. */
static void do_what_was_not_submitted(struct engine *engine)
{
	const struct io_uring_sq *sq = &engine->ring->sq;

	for (unsigned i = sq->sqe_tail - io_uring_sq_ready(engine->ring); i != sq->sqe_tail; i++) {
		uint64_t tag = sq->sqes[i & sq->ring_mask].user_data;
		struct block_request *request = (struct block_request *)(uintptr_t)tag;

		if (tag <= TAG_STOP)
			continue;
		request->in_kernel = false;
		engine->in_flight--;
		do_here(engine, request);
	}
}

/*
 * A request that the kernel works on belongs to it: it may write into the
 * guest's buffers at any time, and says in the completion queue when it does
 * no more. That is memory, and can be read without its help.
 */
static void wait_for_the_rest(struct engine *engine)
{
	for (unsigned ms = 0; engine->in_flight != 0 && ms < LAST_WAIT_MS; ms++) {
		(void)io_uring_get_events(engine->ring);
		take_completions(engine);
		if (engine->in_flight != 0)
			(void)poll(NULL, 0, 1); /* no policy of a device lets it sleep otherwise */
	}
}

/* The ring is closed: the kernel has cancelled what it could. */
static void fail_the_rest(struct engine *engine)
{
	for (unsigned i = 0; engine->in_flight != 0 && i < engine->pool.count; i++) {
		struct block_request *request = block_pool_at(&engine->pool, i);

		if (!request->in_kernel)
			continue;
		request->in_kernel = false;
		request->status = VIRTIO_BLK_S_IOERR;
		engine->in_flight--;
		complete(engine, request);
	}
}

/* Brings all that was popped to its end without the ring. */
static void abandon(struct engine *engine, int error)
{
	log_warn("disk '%s': io_uring failed: %s; queue %u goes on without it",
		engine->device->options.path, strerror(-error), engine->queue->index);
	engine->device->told_slow = true; /* no second time at the next start */
	engine->dead = engine->leaving = true;
	do_what_was_not_submitted(engine);
	wait_for_the_rest(engine);
	urings_give_up(&engine->device->urings, engine->queue->index);
	fail_the_rest(engine);
	publish(engine);
	/* Also when the driver wants none now: a call may be among what was not submitted. */
	(void)eventfd_write(engine->queue->call_fd, 1);
}

static int open_ring(struct engine *engine)
{
	struct device *device = engine->device;
	unsigned index = engine->queue->index;

	engine->ring = urings_open(&device->urings, &block_uring_kind, index);
	if (engine->ring == NULL && index == 0 && !atomic_exchange(&device->told_slow, true))
		log_info("disk '%s': this host gives us no io_uring, so it is slower",
			device->options.path);
	return engine->ring == NULL ? -EOPNOTSUPP : 0;
}

int block_serve_uring(struct device_queue *queue)
{
	struct engine engine = {
		.queue = queue,
		.device = queue->device,
		.busy = &queue->device->busy[queue->index],
		.serving = true,
		.looking = true,
	};
	int r = open_ring(&engine);

	if (r < 0)
		return r;
	r = block_pool_create(
		&engine.pool, (unsigned)min_u64(queue->size, BLOCK_IN_FLIGHT), queue->size);
	if (r < 0)
		return r;
	r = run(&engine);
	if (r < 0)
		abandon(&engine, r);
	block_pool_destroy(&engine.pool);
	return engine.broken != 0 ? engine.broken : r < 0 ? -EOPNOTSUPP : 0;
}
