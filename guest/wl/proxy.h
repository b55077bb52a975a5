/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of crosvm-wl share. main.c has the start and the end, loop.c
 * what happens in between, requests.c what clients say, events.c what the host
 * says, pumps.c the pipes between both, objects.c what the messages are about.
 * One thread. A function that returns false means that the client must be
 * ended.
 */
#pragma once

#include "bytes.h"
#include "device.h"
#include "spool.h"

enum {
	CLIENTS = 64,
	PUMPS = 64,
	FDS_HELD = 64,
	RETRY_MS = 20, /* until what had no room is tried again */
};

/* A pool may grow to so many times its first size, within these bounds. */
enum { POOL_GROWTH = 16, POOL_ROOM_MIN = 16 << 20, POOL_ROOM_MAX = 256 << 20 };
/* Of the device's 16 GiB of addresses; when pools have that, new ones get POOL_ROOM_MIN. */
#define ROOM_PLENTY (UINT64_C(8) << 30)

/* A client's pool and its twin in the host's shared memory; lives as long as anybody refers to it.
 */
struct pool {
	unsigned references;
	int fd;       /* the client's file */
	uint32_t vfd; /* the twin */
	uint64_t pfn;
	uint8_t *twin;
	uint32_t size; /* bytes: of the pool, and of the twin what is mapped */
	uint32_t room; /* the twin's */
};

struct object {
	enum kind { NOTHING, REGISTRY, COMPOSITOR, SHM, POOL, BUFFER, SURFACE } kind;
	struct pool *pool;     /* POOL, BUFFER; SURFACE: what is attached, until the commit */
	uint32_t offset, size; /* BUFFER, SURFACE: bytes of the pool */
};

/* A descriptor from a client, in the order in which they came: to be a pool, or sent already. */
struct held {
	int fd;       /* -1: it is `vfd` */
	uint32_t vfd; /* a pipe */
};

struct client {
	int fd;       /* -1: a free place */
	uint32_t vfd; /* its context */
	bool is_over;
	bool is_refused;  /* by the host, whose last words are on their way: it is not read */
	struct bytes in;  /* from the client: the start of a message */
	struct bytes out; /* from the host, the same */
	struct bytes unsent;
	int fds[FDS_HELD]; /* with the first of the unsent bytes */
	unsigned fd_count;
	struct held held[FDS_HELD];
	unsigned held_count;
	struct bytes batch; /* to the host */
	uint32_t batch_ids[WL_FDS_MAX];
	unsigned batch_count;
	struct object *objects; /* by id */
	unsigned object_count;
};

/* A pipe between a client and the host. */
struct pump {
	uint32_t vfd; /* 0: free */
	int fd;       /* the client's, or our end of a client's; -1: free */
	bool is_socket;
	bool to_host;
	bool is_passed;      /* the host has it; until then nothing is done */
	bool is_ended;       /* by the host */
	struct bytes unsent; /* to the host, which is busy */
	struct spool spool;  /* to the client */
};

struct proxy {
	struct device *device;
	int listener;
	bool listener_rests; /* for the next round */
	int signals;
	struct client clients[CLIENTS];
	struct pump pumps[PUMPS];
	uint64_t room; /* of all pools */
	struct device_event
		news[WL_FDS_MAX]; /* what the host announced, until it comes with a message */
	unsigned news_count;
};

/* ---- objects.c ---- */

/* NULL: the client has no such object that matters. */
struct object *find_object(const struct client *client, uint32_t id);
/* In the place of one of that id. NULL: an id that no client of ours uses. */
struct object *new_object(struct proxy *proxy, struct client *client, uint32_t id, enum kind kind);
void forget_object(struct proxy *proxy, const struct client *client, uint32_t id);
/* With one reference, and the fd, which is closed with it. NULL: no memory; the fd stays the
 * caller's. */
struct pool *make_pool(struct proxy *proxy, int fd, uint32_t size);
bool resize_pool(struct proxy *proxy, struct pool *pool, uint32_t size);
/* Drops a reference, if there is a pool. */
void release_pool(struct proxy *proxy, struct pool *pool);
/* Frees all that a client has; its place is free then. */
void drop_client(struct proxy *proxy, struct client *client);

/* ---- requests.c and events.c ---- */

/* The client's socket is readable. */
bool hear_client(struct proxy *proxy, struct client *client);
/* The host said something to the client's context. */
bool tell_client(struct proxy *proxy, struct client *client, const struct device_event *event);
/* What is unsent, as far as the socket takes it. */
bool send_client(struct client *client);

/* ---- pumps.c ---- */

/* The pump of that vfd, or a free one for 0. NULL: it is no pump's, or none is free. */
struct pump *find_pump(struct proxy *proxy, uint32_t vfd);
/* Closes both sides; its place is free then. */
void end_pump(struct proxy *proxy, struct pump *pump);
/* A client's end of a pipe: the host gets one of another. 0: no more. */
uint32_t pump_to_host(struct proxy *proxy, int fd);
/* The host's pipe: the client gets an end of ours. -1: no more. */
int pump_to_client(struct proxy *proxy, const struct device_event *news);
/* The client's end is ready for these events of poll(). */
void run_pump(struct proxy *proxy, struct pump *pump, int events);
/* What the host was too busy to take. */
void send_pump(struct proxy *proxy, struct pump *pump);
void tell_pump(struct proxy *proxy, struct pump *pump, const struct device_event *event);

/* ---- loop.c ---- */

/* Waits until there is something to do, and does it. 1: go on, 0: a signal asks for the end, or
 * -errno. */
int run_round(struct proxy *proxy);
