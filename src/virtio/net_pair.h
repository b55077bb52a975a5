/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A receive queue and its transmit queue, served by one thread: a frame of one
 * direction mostly has an answer in the other, which is there when the frame's
 * write returns, and waking another thread for it costs more than the frame.
 *
 * Each queue has a thread of its own by the contract of device.h, and may run
 * without the other. Whichever thread comes first serves both; the other one
 * lends its side and waits until that has ended, or until the first queue has
 * and the serving is its own. A side is used by the thread that serves the pair.
 */
#pragma once

#include <pthread.h>

#include "virtio/net_cable.h"

enum { NET_RECEIVE, NET_TRANSMIT, NET_SIDES };

struct net_side;

struct net_side_ops {
	/*
	 * Takes what the driver offers, for a turn of bounded work, and fills the batch.
	 * 0 or -EBADMSG, after which the batch has its turn and the side ends.
	 */
	int (*collect)(struct net_side *side);
	/* Gives away what has moved, tells the driver, and sets what the side goes on with. */
	void (*settle)(struct net_side *side);
	/* Nothing is popped any more afterwards. */
	void (*leave)(struct net_side *side);
};

struct net_side {
	const struct net_side_ops *ops;
	struct device_queue *queue;
	struct net_batch batch;
	/* What it goes on with: `more` is there, or it waits for any of these. */
	bool more;
	bool wants_kick;
	short events;   /* of the cable */
	int timeout_ms; /* -1: none */
	/* How much the turn was, in frames: a large one counts as several. */
	unsigned work;
	/* Under the pair's lock. */
	bool ended;
	int result;
};

enum { NET_PAUSE_MS = 10 };          /* before it is tried again where nothing could be moved */
enum { NET_WORK_BYTES = 16 * 1024 }; /* that count as a frame */

struct net_pair {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct net_side *sides[NET_SIDES]; /* that are there */
	struct net_side *server;           /* whose thread serves them, or NULL */
};

void net_pair_init(struct net_pair *pair);
void net_pair_free(struct net_pair *pair);

/* Serves the side, and the other one if its thread lends it. As device_ops.serve. */
MUST_CHECK int net_pair_serve(struct net_side *side);

/* Makes who serves the pair look at its cable once more. Any thread. */
void net_pair_wake(struct net_pair *pair);
