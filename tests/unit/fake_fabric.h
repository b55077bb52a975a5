/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fabric without KVM, for tests and fuzzing: remembers what is attached where
 * and carries signals when fabric_run() is called. Whoever breaks the contract
 * of bus/fabric.h (detaches what is not attached, signals through two GSIs,
 * uses a GSI that is not its own) ends the program.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "bus/fabric.h"

enum { FABRIC_GSIS = 32, FABRIC_FIRST_GSI = 24, FABRIC_LINKS = 16 };

struct fabric_message {
	uint64_t address;
	uint32_t data;
};

/* An eventfd and what it is joined with. */
struct fabric_link {
	bool used;
	int fd;
	unsigned gsi;
	uint64_t gpa;
	void (*function)(void *argument);
	void *argument;
};

struct fake_fabric {
	unsigned gsis; /* allocated */
	struct fabric_message set[FABRIC_GSIS];
	struct fabric_message committed[FABRIC_GSIS];
	unsigned commits;
	unsigned sent[FABRIC_GSIS]; /* messages that reached the guest */
	struct fabric_link interrupts[FABRIC_LINKS];
	struct fabric_link doorbells[FABRIC_LINKS];
	struct fabric_link watches[FABRIC_LINKS];
	bool config_reads_trap;
	bool no_doorbells; /* as if KVM had no room for one more */
	bool no_watches;   /* as if the control loop had none */
};

static inline void fabric_require(bool holds, const char *what)
{
	if (holds)
		return;
	(void)fprintf(stderr, "fabric: %s\n", what);
	abort();
}

static inline struct fabric_link *fabric_find(struct fabric_link *links, int fd)
{
	for (unsigned i = 0; i < FABRIC_LINKS; i++)
		if (links[i].used && links[i].fd == fd)
			return &links[i];
	return NULL;
}

static inline struct fabric_link *fabric_new(struct fabric_link *links, int fd)
{
	fabric_require(fd >= 0, "no eventfd");
	fabric_require(fabric_find(links, fd) == NULL, "the eventfd is attached twice");
	for (unsigned i = 0; i < FABRIC_LINKS; i++)
		if (!links[i].used)
			return &links[i];
	fabric_require(false, "too many links");
	return NULL;
}

static inline unsigned fabric_count(const struct fabric_link *links)
{
	unsigned count = 0;

	for (unsigned i = 0; i < FABRIC_LINKS; i++)
		count += links[i].used;
	return count;
}

static inline int fabric_allocate_gsis(void *owner, unsigned count, unsigned *ret_gsi)
{
	struct fake_fabric *fabric = owner;

	if (count > FABRIC_GSIS - FABRIC_FIRST_GSI - fabric->gsis)
		return -1;
	*ret_gsi = FABRIC_FIRST_GSI + fabric->gsis;
	fabric->gsis += count;
	return 0;
}

static inline void fabric_require_gsi(const struct fake_fabric *fabric, unsigned gsi)
{
	fabric_require(gsi >= FABRIC_FIRST_GSI && gsi - FABRIC_FIRST_GSI < fabric->gsis,
		"a GSI that nobody allocated");
}

static inline void fabric_set_message(void *owner, unsigned gsi, uint64_t address, uint32_t data)
{
	struct fake_fabric *fabric = owner;

	fabric_require_gsi(fabric, gsi);
	fabric->set[gsi] = (struct fabric_message){ address, data };
}

static inline int fabric_commit_messages(void *owner)
{
	struct fake_fabric *fabric = owner;

	for (unsigned i = 0; i < FABRIC_GSIS; i++)
		fabric->committed[i] = fabric->set[i];
	fabric->commits++;
	return 0;
}

static inline int fabric_attach_interrupt(void *owner, unsigned gsi, int fd)
{
	struct fake_fabric *fabric = owner;

	fabric_require_gsi(fabric, gsi);
	*fabric_new(fabric->interrupts, fd) =
		(struct fabric_link){ .used = true, .fd = fd, .gsi = gsi };
	return 0;
}

static inline int fabric_detach_interrupt(void *owner, unsigned gsi, int fd)
{
	struct fake_fabric *fabric = owner;
	struct fabric_link *link = fabric_find(fabric->interrupts, fd);

	fabric_require(link != NULL && link->gsi == gsi, "the interrupt is not attached");
	link->used = false;
	return 0;
}

static inline int fabric_attach_doorbell(void *owner, uint64_t gpa, int fd)
{
	struct fake_fabric *fabric = owner;

	if (fabric->no_doorbells)
		return -1;
	*fabric_new(fabric->doorbells, fd) =
		(struct fabric_link){ .used = true, .fd = fd, .gpa = gpa };
	return 0;
}

static inline int fabric_detach_doorbell(void *owner, uint64_t gpa, int fd)
{
	struct fake_fabric *fabric = owner;
	struct fabric_link *link = fabric_find(fabric->doorbells, fd);

	if (fabric->no_doorbells)
		return -1;
	fabric_require(link != NULL && link->gpa == gpa, "the doorbell is not attached");
	link->used = false;
	return 0;
}

static inline int fabric_watch(
	void *owner, int fd, void (*function)(void *argument), void *argument)
{
	struct fake_fabric *fabric = owner;

	if (fabric->no_watches)
		return -1;
	*fabric_new(fabric->watches, fd) = (struct fabric_link){
		.used = true,
		.fd = fd,
		.function = function,
		.argument = argument,
	};
	return 0;
}

static inline void fabric_unwatch(void *owner, int fd)
{
	struct fake_fabric *fabric = owner;
	struct fabric_link *link = fabric_find(fabric->watches, fd);

	fabric_require(link != NULL, "the eventfd is not watched");
	link->used = false;
}

static inline void fabric_trap_config_reads(void *owner)
{
	((struct fake_fabric *)owner)->config_reads_trap = true;
}

static const struct fabric_ops fake_fabric_ops = {
	.allocate_gsis = fabric_allocate_gsis,
	.set_message = fabric_set_message,
	.commit_messages = fabric_commit_messages,
	.attach_interrupt = fabric_attach_interrupt,
	.detach_interrupt = fabric_detach_interrupt,
	.attach_doorbell = fabric_attach_doorbell,
	.detach_doorbell = fabric_detach_doorbell,
	.watch = fabric_watch,
	.unwatch = fabric_unwatch,
	.trap_config_reads = fabric_trap_config_reads,
};

/* The guest writes where a doorbell may be. False: it goes to the bus. */
static inline bool fabric_ring(struct fake_fabric *fabric, uint64_t gpa)
{
	for (unsigned i = 0; i < FABRIC_LINKS; i++)
		if (fabric->doorbells[i].used && fabric->doorbells[i].gpa == gpa)
			return eventfd_write(fabric->doorbells[i].fd, 1) == 0;
	return false;
}

/* What KVM and the control loop do meanwhile: signals become messages and calls. */
static inline void fabric_run(struct fake_fabric *fabric)
{
	eventfd_t count;

	for (unsigned i = 0; i < FABRIC_LINKS; i++) {
		const struct fabric_link *link = &fabric->interrupts[i];

		if (link->used && eventfd_read(link->fd, &count) == 0)
			fabric->sent[link->gsi]++;
	}
	for (unsigned i = 0; i < FABRIC_LINKS; i++) {
		const struct fabric_link *link = &fabric->watches[i];

		if (link->used)
			link->function(link->argument);
	}
}
