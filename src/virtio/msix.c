// SPDX-License-Identifier: BSD-3-Clause
/*
 * MSI-X. Vectors, addresses and data are the guest's, in any order and at any
 * time. One that is addressed to no LAPIC would be a write to memory: it goes
 * nowhere, which KVM does not see to.
 */
#include "virtio/msix.h"

#include <poll.h>
#include <string.h>

enum { WORD_ADDRESS_LOW, WORD_ADDRESS_HIGH, WORD_DATA, WORD_CONTROL };
enum { CONTROL_MASKED = 1 };

int msix_init(struct msix *msix, const struct fabric *fabric, unsigned vectors)
{
	*msix = (struct msix){ .fabric = *fabric, .vectors = vectors };
	for (unsigned i = 0; i < vectors; i++) {
		msix->table[i].words[WORD_CONTROL] = CONTROL_MASKED;
		msix->sources[i] = (struct msix_source){ .eventfd = -1, .vector = MSIX_NO_VECTOR };
	}
	return fabric->ops->allocate_gsis(fabric->owner, vectors, &msix->first_gsi);
}

void msix_set_source(struct msix *msix, unsigned source, int eventfd)
{
	msix->sources[source].eventfd = eventfd;
}

bool msix_set_vector(struct msix *msix, unsigned source, uint16_t vector)
{
	bool good = vector < msix->vectors;

	msix->sources[source].vector = good ? vector : MSIX_NO_VECTOR;
	msix_update(msix);
	return good || vector == MSIX_NO_VECTOR;
}

static bool is_masked(const struct msix *msix, unsigned vector)
{
	return msix->function_mask ||
	       (msix->table[vector].words[WORD_CONTROL] & CONTROL_MASKED) != 0;
}

/* Whether a message goes to a LAPIC: Intel's manual, volume 3, "Message Address Register Format".
 */
static bool is_interrupt(const struct msix *msix, unsigned vector)
{
	return msix->table[vector].words[WORD_ADDRESS_LOW] >> 20 == 0xfee;
}

static bool shall_be_attached(const struct msix *msix, const struct msix_source *source)
{
	return msix->running && msix->enabled && source->vector != MSIX_NO_VECTOR &&
	       !is_masked(msix, source->vector) && is_interrupt(msix, source->vector);
}

static void detach(struct msix *msix, struct msix_source *source)
{
	(void)msix->fabric.ops->detach_interrupt(msix->fabric.owner, source->gsi, source->eventfd);
	source->attached = false;
}

static void attach(struct msix *msix, struct msix_source *source)
{
	source->gsi = msix->first_gsi + source->vector;
	int r = msix->fabric.ops->attach_interrupt(
		msix->fabric.owner, source->gsi, source->eventfd);

	if (r < 0)
		log_warn_limited(&msix->complaints, "cannot attach an interrupt: %s", strerror(-r));
	else
		source->attached = true;
}

/* Hands on the messages that changed. True when there are any. */
static bool set_messages(struct msix *msix)
{
	bool any = false;

	for (unsigned i = 0; i < msix->vectors; i++) {
		struct msix_vector *vector = &msix->table[i];

		if (!vector->changed || is_masked(msix, i))
			continue;
		msix->fabric.ops->set_message(msix->fabric.owner, msix->first_gsi + i,
			(uint64_t)vector->words[WORD_ADDRESS_HIGH] << 32 |
				vector->words[WORD_ADDRESS_LOW],
			vector->words[WORD_DATA]);
		vector->changed = false;
		any = true;
	}
	return any;
}

/* First what must go, then the messages in one call, then what must come. */
void msix_update(struct msix *msix)
{
	for (unsigned i = 0; i < msix->vectors; i++) {
		struct msix_source *source = &msix->sources[i];
		unsigned gsi = msix->first_gsi + source->vector;

		if (source->attached && (!shall_be_attached(msix, source) || source->gsi != gsi))
			detach(msix, source);
	}
	if (!msix->running || !msix->enabled)
		return;
	if (set_messages(msix)) {
		int r = msix->fabric.ops->commit_messages(msix->fabric.owner);

		if (r < 0)
			log_warn_limited(
				&msix->complaints, "cannot route interrupts: %s", strerror(-r));
	}
	for (unsigned i = 0; i < msix->vectors; i++)
		if (!msix->sources[i].attached && shall_be_attached(msix, &msix->sources[i]))
			attach(msix, &msix->sources[i]);
}

/* The table takes 4- and 8-byte accesses, aligned. */
static bool table_access(const struct msix *msix, uint64_t offset, unsigned size)
{
	return (size == 4 || size == 8) && offset % size == 0 &&
	       offset < (uint64_t)msix->vectors * MSIX_ENTRY_SIZE;
}

void msix_table_read(struct msix *msix, uint64_t offset, uint8_t *data, unsigned size)
{
	if (!table_access(msix, offset, size))
		return;
	const struct msix_vector *vector = &msix->table[offset / MSIX_ENTRY_SIZE];

	memcpy(data, (const uint8_t *)vector->words + offset % MSIX_ENTRY_SIZE, size);
}

void msix_table_write(struct msix *msix, uint64_t offset, const uint8_t *data, unsigned size)
{
	if (!table_access(msix, offset, size))
		return;
	struct msix_vector *vector = &msix->table[offset / MSIX_ENTRY_SIZE];

	memcpy((uint8_t *)vector->words + offset % MSIX_ENTRY_SIZE, data, size);
	vector->words[WORD_CONTROL] &= CONTROL_MASKED;
	/* A write of control alone changes no message. */
	if (offset % MSIX_ENTRY_SIZE < WORD_CONTROL * sizeof(uint32_t))
		vector->changed = true;
	msix_update(msix);
}

static bool is_pending(const struct msix_source *source)
{
	struct pollfd fd = { .fd = source->eventfd, .events = POLLIN };

	return !source->attached && source->eventfd >= 0 && poll(&fd, 1, 0) > 0;
}

void msix_pending_read(struct msix *msix, uint64_t offset, uint8_t *data, unsigned size)
{
	uint64_t pending = 0;

	if ((size != 4 && size != 8) || offset % size != 0 || offset >= sizeof(pending))
		return;
	for (unsigned i = 0; i < msix->vectors; i++)
		if (msix->sources[i].vector != MSIX_NO_VECTOR && is_pending(&msix->sources[i]))
			pending |= UINT64_C(1) << msix->sources[i].vector;
	memcpy(data, (uint8_t *)&pending + offset, size);
}
