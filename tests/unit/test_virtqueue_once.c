// SPDX-License-Identifier: BSD-3-Clause
/*
 * The rings' memory traps at each access, and what was loaded changes before
 * the next instruction: the worst that another vCPU can do, each time. So a
 * value that is loaded again after it was checked, an index that is stored in
 * pieces, or a look that may overtake a store, is found without luck.
 */
#include "unit/unit.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "unit/virtio_driver.h"
#include "virtio/virtqueue.h"

enum { SIZE = 8, PAGE = 4096, TABLE = DRIVER_DATA + PAGE, TRAP_FLAG = 0x100, BY_A_STORE = 2 };
enum { DESCRIPTORS, INDIRECT, AVAILABLE, USED, PAGES };
enum { STORES_MAX = 16 };

/* For the handlers, which get no argument. */
static struct {
	uint8_t *pages[PAGES];
	size_t units[PAGES]; /* bytes that change together */
	uint8_t is_spent[PAGES][PAGE];
	unsigned page;
	size_t offset;
	bool by_store;
	bool is_over;
	bool is_stored, is_fenced; /* since the last load: a store; after it a fence */
	unsigned loads, second_loads, early_loads;
	unsigned stores;
	uint16_t indices[STORES_MAX]; /* the used index after each store */
} trap;

static void protect(int protection)
{
	if (mprotect(trap.pages[trap.page], PAGE, protection) != 0)
		abort();
}

/* An access: it may be made, and then comes traced(). */
static void accessed(int signal_number, siginfo_t *info, void *context)
{
	ucontext_t *cpu = context;

	(void)signal_number;
	for (trap.page = 0; trap.page < PAGES; trap.page++) {
		trap.offset = (uintptr_t)info->si_addr - (uintptr_t)trap.pages[trap.page];
		if (trap.offset < PAGE)
			break;
	}
	if (trap.page == PAGES)
		abort();
	trap.by_store = (cpu->uc_mcontext.gregs[REG_ERR] & BY_A_STORE) != 0;
	if (!trap.by_store) {
		trap.loads++;
		trap.second_loads += trap.is_spent[trap.page][trap.offset];
		trap.early_loads += trap.is_stored && !trap.is_fenced;
	}
	trap.is_stored = trap.by_store;
	trap.is_fenced = false;
	protect(PROT_READ | PROT_WRITE);
	cpu->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

/* Whether the instruction lets no load pass that comes after it: mfence, or one with a lock. */
static bool is_fence(const uint8_t *instruction)
{
	return instruction[0] == 0xf0 || memcmp(instruction, "\x0f\xae\xf0", 3) == 0;
}

/* The access is done. */
static void change_or_note(void)
{
	size_t unit = trap.units[trap.page];
	size_t start = trap.offset / unit * unit;

	if (!trap.by_store) {
		memset(trap.pages[trap.page] + start, 0xff, unit);
		memset(trap.is_spent[trap.page] + start, 1, unit);
	} else if (trap.page == USED && trap.stores < STORES_MAX) {
		memcpy(&trap.indices[trap.stores++], trap.pages[USED] + 2, 2);
	}
	protect(PROT_NONE);
	trap.page = PAGES;
}

/* An instruction is done: an access, or one between a store and the next access. */
static void traced(int signal_number, siginfo_t *info, void *context)
{
	ucontext_t *cpu = context;

	(void)signal_number;
	(void)info;
	if (trap.page < PAGES)
		change_or_note();
	trap.is_fenced |= is_fence((const void *)cpu->uc_mcontext.gregs[REG_RIP]);
	if (!trap.is_stored || trap.is_over)
		cpu->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

static void protect_all(int protection)
{
	for (trap.page = 0; trap.page < PAGES; trap.page++)
		protect(protection);
}

static void begin_traps(const struct guest_memory *memory)
{
	static const struct {
		uint64_t gpa;
		size_t unit;
	} places[PAGES] = { { DRIVER_DESC, 8 }, { TABLE, 8 }, { DRIVER_AVAIL, 2 },
		{ DRIVER_USED, 2 } };
	struct sigaction access = { .sa_sigaction = accessed, .sa_flags = SA_SIGINFO };
	struct sigaction trace = { .sa_sigaction = traced, .sa_flags = SA_SIGINFO };

	memset(&trap, 0, sizeof(trap));
	for (unsigned i = 0; i < PAGES; i++) {
		trap.pages[i] = driver_at(memory, places[i].gpa, PAGE);
		trap.units[i] = places[i].unit;
	}
	assert_int_equal(sigaction(SIGSEGV, &access, NULL), 0);
	assert_int_equal(sigaction(SIGTRAP, &trace, NULL), 0);
	protect_all(PROT_NONE);
}

static void end_traps(void)
{
	trap.is_over = true;
	__asm__ volatile("nop" ::: "memory"); /* whose trap is the last */
	protect_all(PROT_READ | PROT_WRITE);
	(void)signal(SIGSEGV, SIG_DFL);
	(void)signal(SIGTRAP, SIG_DFL);
}

/* Sanitizers have handlers of their own, and accesses that the code has not. */
static void require_traps(void)
{
#if defined(SANITIZED) || !defined(__x86_64__)
	skip();
#endif
}

static void put(
	struct vring_desc *desc, uint64_t gpa, uint32_t length, uint16_t flags, uint16_t next)
{
	*desc = (struct vring_desc){ gpa, length, flags, next };
}

static void what_was_checked_is_not_loaded_again(void **state)
{
	struct virtqueue_config config = driver_config(SIZE);
	struct driver driver;
	struct virtqueue vq;
	struct iovec iov[SIZE];
	struct virtqueue_chain chain = { .iov = iov, .iov_max = SIZE };

	require_traps();
	driver_init(&driver, *state, SIZE);
	struct vring_desc *table = driver_at(*state, TABLE, SIZE * 16);

	driver_put(&driver, 2, DRIVER_DATA, 10, VRING_DESC_F_NEXT, 5);
	driver_put(&driver, 5, DRIVER_DATA + 100, 20, VRING_DESC_F_NEXT, 3);
	driver_put(&driver, 3, TABLE, 32, VRING_DESC_F_INDIRECT, 0);
	put(&table[0], DRIVER_DATA + 200, 30, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	put(&table[1], DRIVER_DATA + 300, 40, VRING_DESC_F_WRITE, 0);
	driver_offer(&driver, 2);
	assert_int_equal(virtqueue_init(&vq, *state, &config, 0), 0);
	begin_traps(*state);
	int r = virtqueue_pop(&vq, &chain);

	end_traps();
	assert_int_equal(r, 1);
	assert_int_equal(trap.second_loads, 0);
	assert_int_equal(trap.loads, 2 + 5 * 2); /* the index, the head, and two words of each */
	assert_int_equal(chain.head, 2);
	assert_int_equal(chain.readable, 2);
	assert_int_equal(chain.writable, 2);
	assert_int_equal(chain.readable_bytes, 30);
	assert_int_equal(chain.writable_bytes, 70);
	for (unsigned i = 0; i < 4; i++) {
		assert_ptr_equal(iov[i].iov_base, driver_at(*state, DRIVER_DATA + 100 * i, 1));
		assert_int_equal(iov[i].iov_len, 10 * (i + 1));
	}
}

/* The driver sees the index of before or that of now, and then all that it stands for. */
static void an_index_is_stored_at_once_and_last(void **state)
{
	enum { BASE = 0xff };
	struct virtqueue_config config = driver_config(SIZE);
	struct driver driver;
	struct virtqueue vq;

	require_traps();
	driver_init(&driver, *state, SIZE);
	memcpy(driver.used + 2, &(uint16_t){ BASE }, 2);
	assert_int_equal(virtqueue_init(&vq, *state, &config, BASE), 0);
	begin_traps(*state);
	virtqueue_push(&vq, 3, 77);
	bool wanted = virtqueue_publish(&vq);

	end_traps();
	assert_true(wanted);
	assert_int_equal(driver_used_id(&driver, BASE), 3);
	assert_int_equal(driver_used_length(&driver, BASE), 77);
	assert_int_equal(trap.stores, 3);
	assert_int_equal(trap.indices[0], BASE);
	assert_int_equal(trap.indices[1], BASE);
	assert_int_equal(trap.indices[2], BASE + 1);
}

/* Else a driver that does the same, the other way round, and the device would each see nothing. */
static void no_look_passes_a_store(void **state)
{
	struct driver driver;
	struct virtqueue vq;

	require_traps();
	for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
		struct virtqueue_config config = driver_config(SIZE);

		config.event_idx = event_idx != 0;
		driver_init(&driver, *state, SIZE);
		assert_int_equal(virtqueue_init(&vq, *state, &config, 0), 0);
		begin_traps(*state);
		virtqueue_push(&vq, 3, 77);
		(void)!virtqueue_publish(&vq);
		unsigned looks = trap.loads;

		(void)!virtqueue_enable_kicks(&vq);
		end_traps();
		assert_int_equal(looks, 1);
		assert_int_equal(trap.loads, 2);
		assert_int_equal(trap.stores, 4);
		assert_int_equal(trap.early_loads, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_checked_is_not_loaded_again),
		cmocka_unit_test(an_index_is_stored_at_once_and_last),
		cmocka_unit_test(no_look_passes_a_store),
	};

	return cmocka_run_group_tests(tests, driver_make_memory, driver_free_memory);
}
