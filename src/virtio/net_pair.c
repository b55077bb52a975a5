// SPDX-License-Identifier: BSD-3-Clause
/*
 * The thread of a queue pair. What the rings hold is the guest's: it may offer
 * nothing, then nothing spins; it may send without end, then the stop and the
 * other direction have their turn all the same.
 */
#include "virtio/net_pair.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "virtio/net_queue.h"

/* Of work, between two looks at the stop. */
enum { WORK_MAX = 128 };
enum { WAIT_STOP, WAIT_KICK = NET_SIDES, WAIT_CABLE = 2 * NET_SIDES, WAIT_COUNT };

/* What its thread has of a pair. */
struct turns {
	struct net_pair *pair;
	struct net_side *own;
	struct net_side *sides[NET_SIDES]; /* NULL: not there */
	struct net_cable *cable;
	unsigned work; /* since the last look */
};

static struct net_pair *pair_of(const struct device_queue *queue)
{
	return &queue->device->queue_pairs[queue->index / NET_SIDES];
}

void net_pair_init(struct net_pair *pair)
{
	*pair = (struct net_pair){ .server = NULL };
	pthread_mutex_init(&pair->lock, NULL);
	pthread_cond_init(&pair->changed, NULL);
}

void net_pair_free(struct net_pair *pair)
{
	pthread_cond_destroy(&pair->changed);
	pthread_mutex_destroy(&pair->lock);
}

/* ---- one turn ---- */

/* Its thread may return at once, and what it lent is no more. */
static void end_side(struct turns *turns, unsigned index, int result)
{
	struct net_side *side = turns->sides[index];

	side->ops->leave(side);
	turns->sides[index] = NULL;
	pthread_mutex_lock(&turns->pair->lock);
	side->ended = true;
	side->result = result;
	turns->pair->sides[index] = NULL;
	pthread_cond_broadcast(&turns->pair->changed);
	pthread_mutex_unlock(&turns->pair->lock);
}

static void see_who_is_there(struct turns *turns)
{
	pthread_mutex_lock(&turns->pair->lock);
	for (unsigned i = 0; i < NET_SIDES; i++)
		turns->sides[i] = turns->pair->sides[i];
	pthread_mutex_unlock(&turns->pair->lock);
}

/* Both directions, so that the answers to what is sent come with it. */
static void make_turn(struct turns *turns)
{
	struct net_batch nothing = { .count = 0 };
	struct net_batch *batches[NET_SIDES] = { &nothing, &nothing };
	int failures[NET_SIDES] = { 0 };

	for (unsigned i = 0; i < NET_SIDES; i++) {
		struct net_side *side = turns->sides[i];

		if (side == NULL)
			continue;
		virtqueue_disable_kicks(&side->queue->vq);
		failures[i] = side->ops->collect(side);
		batches[i] = &side->batch;
	}
	int r = net_cable_move(turns->cable, batches[NET_TRANSMIT], batches[NET_RECEIVE]);

	for (unsigned i = 0; i < NET_SIDES; i++) {
		struct net_side *side = turns->sides[i];

		if (side == NULL)
			continue;
		if (r == 0)
			side->ops->settle(side);
		turns->work += side->work;
		if (r < 0 || failures[i] < 0)
			end_side(turns, i, r < 0 ? r : failures[i]);
	}
}

/* Whether there is nothing to do until something comes. */
static bool is_idle(const struct turns *turns)
{
	for (unsigned i = 0; i < NET_SIDES; i++)
		if (turns->sides[i] != NULL && turns->sides[i]->more)
			return false;
	for (unsigned i = 0; i < NET_SIDES; i++)
		if (turns->sides[i] != NULL && turns->sides[i]->wants_kick &&
			virtqueue_enable_kicks(&turns->sides[i]->queue->vq))
			return false;
	return true;
}

/* ---- waiting ---- */

/* What the sides wait for. For how long, in milliseconds. */
static int list_waits(const struct turns *turns, struct pollfd *fds)
{
	short events = 0;
	int timeout_ms = -1;

	for (unsigned i = 0; i < WAIT_COUNT; i++)
		fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	for (unsigned i = 0; i < NET_SIDES; i++) {
		const struct net_side *side = turns->sides[i];

		if (side == NULL)
			continue;
		fds[WAIT_STOP + i].fd = side->queue->stop_fd;
		/* Our own also tells that the other side has come, which can wait for a pause. */
		if (side->wants_kick || (side == turns->own && side->timeout_ms < 0))
			fds[WAIT_KICK + i].fd = side->queue->kick_fd;
		events = (short)(events | side->events);
		if (side->timeout_ms >= 0)
			timeout_ms = side->timeout_ms;
	}
	/* A cable that is gone always has an event. */
	if (events != 0)
		fds[WAIT_CABLE] = (struct pollfd){
			.fd = net_cable_fd(turns->own->queue),
			.events = events,
		};
	return timeout_ms;
}

/* Waits, or only looks, and ends the sides that shall stop. */
static void wait_or_look(struct turns *turns, bool wait)
{
	struct pollfd fds[WAIT_COUNT];
	int timeout_ms = list_waits(turns, fds);
	int n = poll(fds, WAIT_COUNT, wait ? timeout_ms : 0);
	int failure = n < 0 && errno != EINTR ? -errno : 0;

	turns->work = 0;
	for (unsigned i = 0; i < NET_SIDES; i++) {
		if (turns->sides[i] == NULL)
			continue;
		if (n > 0 && fds[WAIT_KICK + i].revents != 0)
			(void)fd_take_event(turns->sides[i]->queue->kick_fd);
		if (failure < 0 || (n > 0 && fds[WAIT_STOP + i].revents != 0))
			end_side(turns, i, failure);
	}
}

/* Between two turns. */
static void rest(struct turns *turns)
{
	bool idle = is_idle(turns);

	if (!turns->own->ended && (idle || turns->work >= WORK_MAX))
		wait_or_look(turns, idle);
}

/* Until our own queue has ended. */
static void serve_pair(struct net_pair *pair, struct net_side *own, struct net_cable *cable)
{
	struct turns turns = { .pair = pair, .own = own, .cable = cable };

	while (!own->ended) {
		see_who_is_there(&turns);
		make_turn(&turns);
		rest(&turns);
	}
}

/* ---- a pair's threads ---- */

static void wake(const struct net_pair *pair)
{
	if (pair->server != NULL)
		(void)eventfd_write(pair->server->queue->kick_fd, 1);
}

void net_pair_wake(struct net_pair *pair)
{
	pthread_mutex_lock(&pair->lock);
	wake(pair);
	pthread_mutex_unlock(&pair->lock);
}

int net_pair_serve(struct net_side *side)
{
	struct net_pair *pair = pair_of(side->queue);
	struct net_cable cable; /* this thread's, when it serves */

	net_cable_open(&cable, side->queue);
	pthread_mutex_lock(&pair->lock);
	pair->sides[side->queue->index % NET_SIDES] = side;
	wake(pair);
	while (!side->ended) {
		if (pair->server != NULL) {
			pthread_cond_wait(&pair->changed, &pair->lock);
			continue;
		}
		pair->server = side;
		pthread_mutex_unlock(&pair->lock);
		serve_pair(pair, side, &cable);
		pthread_mutex_lock(&pair->lock);
		pair->server = NULL;
		pthread_cond_broadcast(&pair->changed);
	}
	pthread_mutex_unlock(&pair->lock);
	return side->result;
}
