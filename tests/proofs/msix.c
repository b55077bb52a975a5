// SPDX-License-Identifier: BSD-3-Clause
/*
 * Proofs of virtio/msix.c, for any number of vectors, any table and any access
 * to it.
 *
 *  K22  an access to table or pending bits never leaves them (CBMC's own checks)
 *  K23  what is attached has a vector that is there, unmasked, of a running and
 *       enabled function, and nothing is attached or detached twice
 *  K24  a source's vector is one of the table or none
 */
#include <poll.h>
#include <string.h>

#include "virtio/msix.c"

bool nondet_bool(void);
unsigned nondet_unsigned(void);
uint16_t nondet_u16(void);
uint32_t nondet_u32(void);
uint64_t nondet_u64(void);

#define ASSUME(condition)      __CPROVER_assume(condition)
#define PROVE(name, condition) __CPROVER_assert(condition, name)

enum { PROVED_VECTORS = 2, MODEL_GSI = 24 };

static bool model_attached[PROVED_VECTORS];
static struct msix model;

void log_message(enum log_level level, const char *format, ...)
{
	(void)level;
	(void)format;
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	(void)fds;
	(void)count;
	(void)timeout;
	return nondet_bool();
}

static int model_allocate(void *owner, unsigned count, unsigned *ret_gsi)
{
	(void)owner;
	(void)count;
	*ret_gsi = MODEL_GSI;
	return 0;
}

static void model_set(void *owner, unsigned gsi, uint64_t address, uint32_t data)
{
	(void)owner;
	(void)address;
	(void)data;
	PROVE("K23 its own GSI", gsi >= MODEL_GSI && gsi - MODEL_GSI < model.vectors);
}

static int model_commit(void *owner)
{
	(void)owner;
	return 0;
}

/* The eventfd of source i is i. */
static int model_attach(void *owner, unsigned gsi, int fd)
{
	(void)owner;
	PROVE("K23 attached once", !model_attached[fd]);
	PROVE("K23 its own GSI", gsi - MODEL_GSI < model.vectors);
	model_attached[fd] = true;
	return 0;
}

static int model_detach(void *owner, unsigned gsi, int fd)
{
	(void)owner;
	(void)gsi;
	PROVE("K23 detached once", model_attached[fd]);
	model_attached[fd] = false;
	return 0;
}

static const struct fabric_ops model_ops = {
	.allocate_gsis = model_allocate,
	.set_message = model_set,
	.commit_messages = model_commit,
	.attach_interrupt = model_attach,
	.detach_interrupt = model_detach,
};

/* In the specification's words, not in the code's. */
static bool may_be_attached(const struct msix_source *source)
{
	return model.running && model.enabled && !model.function_mask &&
	       source->vector < model.vectors && (model.table[source->vector].words[3] & 1) == 0 &&
	       source->gsi == MODEL_GSI + source->vector;
}

static bool is_consistent(void)
{
	for (unsigned i = 0; i < PROVED_VECTORS; i++) {
		const struct msix_source *source = &model.sources[i];

		if (source->attached != model_attached[i])
			return false;
		if (source->attached && !may_be_attached(source))
			return false;
		if (source->vector != MSIX_NO_VECTOR && source->vector >= model.vectors)
			return false;
	}
	return true;
}

/* Any state that is consistent; each proof shows that it stays so. */
static void any_msix(void)
{
	const struct fabric fabric = { .ops = &model_ops, .owner = NULL };

	(void)!msix_init(&model, &fabric, PROVED_VECTORS);
	model.enabled = nondet_bool();
	model.function_mask = nondet_bool();
	model.running = nondet_bool();
	for (unsigned i = 0; i < PROVED_VECTORS; i++) {
		struct msix_source *source = &model.sources[i];

		msix_set_source(&model, i, (int)i);
		source->vector = nondet_bool() ? MSIX_NO_VECTOR : i ^ (nondet_bool() ? 1u : 0u);
		source->attached = model_attached[i] = nondet_bool();
		source->gsi = nondet_unsigned();
		for (unsigned word = 0; word < 4; word++)
			model.table[i].words[word] = nondet_u32() & (word == 3 ? 1 : UINT32_MAX);
		model.table[i].changed = nondet_bool();
	}
	ASSUME(is_consistent());
}

/* With each size as a constant, which CBMC copies a hundred times faster. */
static void prove_table_access(unsigned size)
{
	const uint8_t fill = (uint8_t)nondet_unsigned();
	uint8_t data[8] = { fill, fill, fill, fill, fill, fill, fill, fill };
	uint64_t offset = nondet_u64();
	unsigned entry = nondet_unsigned(), word = nondet_unsigned(), byte = nondet_unsigned();

	any_msix();
	ASSUME(entry < PROVED_VECTORS && word < 4 && byte < 8);
	uint64_t at = entry * 16 + word * 4; /* any word of the table */
	uint32_t before = model.table[entry].words[word];
	bool good = size >= 4 && offset % size == 0 && offset < PROVED_VECTORS * 16;

	if (nondet_bool()) {
		msix_table_read(&model, offset, data, size);
		PROVE("K22 nothing read", good || data[byte] == fill);
		PROVE("K22 the word read",
			!good || at != offset || word == 3 || memcmp(data, &before, 4) == 0);
	} else {
		msix_table_write(&model, offset, data, size);
		uint32_t after = model.table[entry].words[word];
		bool written = good && at >= offset && at - offset < size;

		PROVE("K22 only what is written changes", written || after == before);
		PROVE("K22 the word written",
			!written || after == (word == 3 ? fill & 1u : fill * 0x01010101u));
	}
	PROVE("K23 after an access", is_consistent());
}

void prove_table_4(void)
{
	prove_table_access(4);
}

void prove_table_8(void)
{
	prove_table_access(8);
}

void prove_table_1(void)
{
	prove_table_access(1);
}

void prove_table_2(void)
{
	prove_table_access(2);
}

void prove_pending(void)
{
	uint8_t data[8];
	unsigned size = 1u << (nondet_unsigned() & 3);

	any_msix();
	msix_pending_read(&model, nondet_u64(), data, size);
	PROVE("K23 after a read", is_consistent());
}

void prove_vectors_and_masks(void)
{
	unsigned source = nondet_unsigned();
	uint16_t vector = nondet_u16();

	any_msix();
	ASSUME(source < PROVED_VECTORS);
	bool good = msix_set_vector(&model, source, vector);

	PROVE("K24 told", good == (vector < PROVED_VECTORS || vector == MSIX_NO_VECTOR));
	PROVE("K24 set", model.sources[source].vector ==
				 (vector < PROVED_VECTORS ? vector : MSIX_NO_VECTOR));
	PROVE("K23 after a vector", is_consistent());
	model.enabled = nondet_bool();
	model.function_mask = nondet_bool();
	model.running = nondet_bool();
	msix_update(&model);
	PROVE("K23 after masks", is_consistent());
}
