// SPDX-License-Identifier: BSD-3-Clause
/*
 * What no good driver does with wayland: commands of no form, for no vfd, with
 * too many descriptors; memory asked for and given back without end, and
 * written to where it is read-only. After each a good connection must work.
 * The compositor, tests/kvm/test_hostile_wl.py, answers words of four letters.
 */
#include "virtio.h"

enum { IN, OUT, QUEUES };
enum { NEW = 0x100, CLOSE, SEND, RECV, NEW_CTX, NEW_PIPE, HUP, NEW_DMABUF };
enum {
	ANSWER_OK = 0x1000,
	ANSWER_NEW,
	ANSWER_ERR = 0x1100,
	ANSWER_NO_MEMORY,
	ANSWER_ID,
	ANSWER_TYPE,
	ANSWER_FLAGS,
	ANSWER_CMD
};
enum {
	WRITE_MAP = 3,
	PIPE_WRITE = 1,
	PIPE_READ = 2,
	PAGE = 4096,
	IDS = 0x800,
	FDS_MAX = 28,
	BOTH_FEATURES = 6
};
enum { FILE_BYTES = 24167 }; /* as a keymap */
enum { CTX = 1, MEMORY = 2, PIPE = 3, OTHER = 0x7ff, HOST_ID = 0x40000000 };

#define LETTERS(text)                                                                              \
	((uint32_t)(text)[0] | (uint32_t)(text)[1] << 8 | (uint32_t)(text)[2] << 16 |              \
		(uint32_t)(text)[3] << 24)

/* ---- commands and messages ------------------------------------------------------------- */

/* The driver has them in the same memory, and so do we. */
static volatile uint32_t *words_of(unsigned queue)
{
	return (volatile void *)victims[queue].buffers->data;
}

/* How much of an answer there is. */
static uint32_t command(const uint32_t *words, uint32_t size, uint32_t room)
{
	struct victim *out = &victims[OUT];
	uint8_t *data = out->buffers->data;

	memset(data, GUARD, 64);
	memcpy(data, words, size);
	if (size > 0)
		set_desc(out, 0, (uintptr_t)data, size, room > 0 ? NEXT : 0, 1);
	set_desc(out, size > 0, (uintptr_t)data, room, WRITE, 0);
	uint32_t written = submit(out, 0);

	check_guards(out);
	return written;
}

static uint32_t answer_to(const uint32_t *words, uint32_t size)
{
	uint32_t written = command(words, size, 64);
	uint32_t answer = words_of(OUT)[0];

	if (written != (answer == ANSWER_NEW ? 32 : 4))
		fail_row("answer %x has %u bytes", (uint64_t)answer, (uint64_t)written);
	return answer;
}

#define ASK(...)                                                                                   \
	answer_to((const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }))

#define MUST(expected, ...)                                                                        \
	do {                                                                                       \
		uint32_t got_ = ASK(__VA_ARGS__);                                                  \
		if (got_ != (expected))                                                            \
			fail_row("%s is answered by %x", #__VA_ARGS__, (uint64_t)got_);            \
	} while (0)

/* The next message of the host's, which must be of that kind and about that vfd. */
static const volatile uint32_t *hear(uint32_t type, uint32_t vfd)
{
	struct victim *in = &victims[IN];
	const volatile uint32_t *words = words_of(IN);

	set_desc(in, 0, (uintptr_t)words, PAGE, WRITE, 0);
	uint32_t size = submit(in, 0);

	check_guards(in);
	if (words[0] != type || words[2] != vfd)
		fail_row("a message %x of %u bytes about %x", (uint64_t)words[0], (uint64_t)size,
			(uint64_t)words[2]);
	return words;
}

static void must_hear(uint32_t vfd, uint32_t letters)
{
	const volatile uint32_t *words = hear(RECV, vfd);

	if (words[3] != 0 || words[4] != letters)
		fail_row("%u vfds and %x are no answer", (uint64_t)words[3], (uint64_t)words[4]);
}

/* What every good client does. */
static void talk(void)
{
	MUST(ANSWER_NEW, NEW_CTX, 0, OTHER);
	MUST(ANSWER_OK, SEND, 0, OTHER, 0, LETTERS("ping"));
	must_hear(OTHER, LETTERS("pong"));
	MUST(ANSWER_OK, CLOSE, 0, OTHER);
	if (get(&victims[0], STATUS, 1) != RUNNING)
		fail_row("the status is %x", get(&victims[0], STATUS, 1));
}

static void begin_wl(void)
{
	find_device(PCI_WL, (const uint16_t[QUEUES]){ IN, OUT }, QUEUES);
	if ((get_offered(&victims[0]) & 0xffffff) != BOTH_FEATURES)
		fail("features %x", get_offered(&victims[0]));
	start_queues(victims, QUEUES, 0);
	talk();
	rest("begin");
	start_queues(victims, QUEUES, 0);
	MUST(ANSWER_NEW, NEW_CTX, 0, CTX);
}

/* ---- malformed ------------------------------------------------------------------------- */

static const struct command_row {
	const char *name;
	uint32_t words[10];
	uint32_t size;
	uint32_t answer;
} command_rows[] = {
	{ "nothing", { 0 }, 0, ANSWER_ERR },
	{ "half a type", { NEW }, 2, ANSWER_ERR },
	{ "no such command", { 0x10b, 0, 9 }, 40, ANSWER_CMD },
	{ "a message of the host's", { RECV, 0, CTX }, 40, ANSWER_CMD },
	{ "a dmabuf", { NEW_DMABUF, 0, 9, 0, 0, 0, 0, 64, 64 }, 40, ANSWER_CMD },
	{ "memory without a size", { NEW, 0, 9, WRITE_MAP, 0, 0, PAGE }, 27, ANSWER_ERR },
	{ "no memory", { NEW, 0, 9, WRITE_MAP, 0, 0, 0 }, 28, ANSWER_NO_MEMORY },
	{ "all memory", { NEW, 0, 9, WRITE_MAP, 0, 0, UINT32_MAX }, 28, ANSWER_NO_MEMORY },
	{ "unknown flags", { NEW, 0, 9, 8, 0, 0, PAGE }, 28, ANSWER_ERR },
	{ "vfd 0", { NEW, 0, 0, WRITE_MAP, 0, 0, PAGE }, 28, ANSWER_ID },
	{ "a vfd too far", { NEW, 0, IDS, WRITE_MAP, 0, 0, PAGE }, 28, ANSWER_ID },
	{ "a vfd of the host's", { NEW, 0, HOST_ID, WRITE_MAP, 0, 0, PAGE }, 28, ANSWER_ID },
	{ "a vfd that is there", { NEW, 0, CTX, WRITE_MAP, 0, 0, PAGE }, 28, ANSWER_ID },
	{ "a context that is there", { NEW_CTX, 0, CTX }, 12, ANSWER_ID },
	{ "a pipe with two ends", { NEW_PIPE, 0, 9, 3 }, 32, ANSWER_FLAGS },
	{ "the end of no vfd", { CLOSE, 0 }, 8, ANSWER_ERR },
	{ "the end of an unknown vfd", { CLOSE, 0, 77 }, 12, ANSWER_ID },
	{ "the end of all vfds", { CLOSE, 0, UINT32_MAX }, 12, ANSWER_ID },
	{ "the end of what the host did not make", { CLOSE, 0, HOST_ID }, 12, ANSWER_ID },
	{ "half a send", { SEND, 0, CTX }, 12, ANSWER_ERR },
	{ "data for nobody", { SEND, 0, 77, 0, 1 }, 20, ANSWER_ID },
	{ "data for memory", { SEND, 0, MEMORY, 0, 1 }, 20, ANSWER_TYPE },
	{ "an unknown descriptor", { SEND, 0, CTX, 1, 77, 1 }, 24, ANSWER_ID },
	{ "fewer descriptors than said", { SEND, 0, CTX, 3, MEMORY, 1 }, 24, ANSWER_ERR },
	{ "29 descriptors", { SEND, 0, CTX, FDS_MAX + 1, MEMORY, 1 }, 40, ANSWER_TYPE },
	{ "all descriptors", { SEND, 0, CTX, UINT32_MAX, MEMORY, 1 }, 40, ANSWER_TYPE },
	{ "2^30 descriptors", { SEND, 0, CTX, 1 << 30, MEMORY, 1 }, 40, ANSWER_TYPE },
	{ "a descriptor without data", { SEND, 0, CTX, 1, MEMORY }, 20, ANSWER_TYPE },
};

/* An answer without room for it, a command beyond all bounds, a buffer for the host too small. */
static void check_layouts(void)
{
	static const uint32_t new[7] = { NEW, 0, 9, WRITE_MAP, 0, 0, PAGE };
	struct victim *out = &victims[OUT], *in = &victims[IN];

	row = "no room";
	if (command(new, sizeof(new), 0) != 0 || command(new, sizeof(new), 3) != 0)
		fail_row("an answer");
	row = "room for an error alone";
	if (command(new, sizeof(new), 31) != 4 || words_of(OUT)[0] != ANSWER_ERR)
		fail_row("another answer: %x", (uint64_t)words_of(OUT)[0]);
	row = "more than any command";
	set_repeated(out, 5, (uintptr_t)out->buffers->data, sizeof(out->buffers->data), 0);
	out->rings->desc[4].flags = NEXT;
	set_desc(out, 5, (uintptr_t)out->buffers->data, 64, WRITE, 0);
	if (submit(out, 0) != 4 || words_of(OUT)[0] != ANSWER_ERR)
		fail_row("another answer: %x", (uint64_t)words_of(OUT)[0]);
	check_guards(out);
	row = "buffers for the host that are none";
	MUST(ANSWER_OK, SEND, 0, CTX, 0, LETTERS("ping"));
	for (uint32_t size = 1; size < 20; size += 18) {
		set_desc(in, 0, (uintptr_t)in->buffers->data, size, WRITE, 0);
		if (submit(in, 0) != 0)
			fail_row("something is written to %u bytes", (uint64_t)size);
	}
	set_desc(in, 0, (uintptr_t)in->buffers->data, PAGE, 0, 0);
	if (submit(in, 0) != 0)
		fail_row("something is written to what cannot be");
	must_hear(CTX, LETTERS("pong"));
	MUST(ANSWER_ID, CLOSE, 0, 9);
}

static void run_commands(void)
{
	begin_wl();
	MUST(ANSWER_NEW, NEW, 0, MEMORY, WRITE_MAP, 0, 0, PAGE);
	for (unsigned i = 0; i < ARRAY_SIZE(command_rows); i++) {
		const struct command_row *command = &command_rows[i];

		row = command->name;
		uint32_t answer = answer_to(command->words, command->size);

		if (answer != command->answer)
			fail_row("the answer is %x", (uint64_t)answer);
		talk();
	}
	check_layouts();
	talk();
	rest("end");
}

/* ---- descriptors ------------------------------------------------------------------------- */

/* Asks for so many files and closes them. */
static void take_files(uint32_t letters)
{
	static uint32_t first;
	const uint32_t from = HOST_ID + first;

	MUST(ANSWER_OK, SEND, 0, CTX, 0, letters);
	for (uint32_t i = 0; i < FDS_MAX; i++)
		hear(NEW, from + i);
	const volatile uint32_t *words = hear(RECV, CTX);

	if (words[3] != FDS_MAX || words[4 + FDS_MAX] != letters)
		fail_row("%u descriptors come", (uint64_t)words[3]);
	for (uint32_t i = 0; i < FDS_MAX; i++)
		MUST(ANSWER_OK, CLOSE, 0, from + i);
	MUST(ANSWER_ID, CLOSE, 0, from);
	first += FDS_MAX;
}

/* As many as there may be, and then none is left. */
static unsigned fill_with_pipes(void)
{
	unsigned made = 0;

	while (made + 2 < OTHER && ASK(NEW_PIPE, 0, made + 2, PIPE_READ) == ANSWER_NEW)
		made++;
	if (words_of(OUT)[0] != ANSWER_NO_MEMORY)
		fail_row("after %u the answer is %x", (uint64_t)made, (uint64_t)words_of(OUT)[0]);
	for (unsigned i = 0; i < made; i++)
		MUST(ANSWER_OK, CLOSE, 0, i + 2);
	return made;
}

static void run_descriptors(void)
{
	uint32_t send[4 + FDS_MAX + 1] = { SEND, 0, CTX, FDS_MAX };

	begin_wl();
	row = "28 descriptors";
	MUST(ANSWER_NEW, NEW, 0, MEMORY, WRITE_MAP, 0, 0, PAGE);
	for (unsigned i = 0; i < FDS_MAX; i++)
		send[4 + i] = MEMORY;
	send[4 + FDS_MAX] = LETTERS("take");
	if (answer_to(send, sizeof(send)) != ANSWER_OK)
		fail_row("the answer is %x", (uint64_t)words_of(OUT)[0]);
	must_hear(CTX, LETTERS("t028"));
	MUST(ANSWER_OK, CLOSE, 0, MEMORY);
	row = "28 of the host's";
	for (unsigned i = 0; i < 40; i++) /* more than a table of host vfds */
		take_files(LETTERS("f028"));
	row = "29 of the host's";
	MUST(ANSWER_OK, SEND, 0, CTX, 0, LETTERS("f029"));
	hear(HUP, CTX);
	talk();
	row = "pipes without end";
	if (fill_with_pipes() != fill_with_pipes())
		fail_row("fewer the second time");
	talk();
	rest("end");
}

/* ---- memory ------------------------------------------------------------------------------ */

/* Where the memory of the last answer or message is. */
static uint64_t place(const volatile uint32_t *words)
{
	uint64_t gpa = (words[4] | (uint64_t)words[5] << 32) * PAGE;

	if (!map_high(gpa))
		fail("too few page tables");
	return gpa;
}

/* Addresses and slots come back, what was written does not, and after the end nothing is there. */
static void run_reuse(void)
{
	uint64_t first = 0;

	begin_wl();
	row = "again and again";
	for (unsigned i = 0; i < find_number(params, "times=", 1); i++) {
		uint32_t size = (i % 7 + 1) * PAGE;

		MUST(ANSWER_NEW, NEW, 0, MEMORY, WRITE_MAP, 0, 0, size);
		uint64_t gpa = place(words_of(OUT));

		first = i == 0 ? gpa : first;
		if (gpa != first)
			fail_row("time %u it is at %x, not %x", (uint64_t)i, gpa, first);
		if (read_at(gpa, 8) != 0 || read_at(gpa + size - 8, 8) != 0)
			fail_row("time %u something was there", (uint64_t)i);
		write_at(gpa, 8, UINT64_MAX / 3);
		write_at(gpa + size - 8, 8, UINT64_MAX / 5);
		MUST(ANSWER_OK, CLOSE, 0, MEMORY);
		if (read_at(gpa, 4) != UINT32_MAX)
			fail_row("time %u it is there after its end", (uint64_t)i);
	}
	talk();
	rest("end");
}

/* The guest writes all over a file of the compositor's, and sees whether it did. */
static void write_file(uint64_t gpa, bool is_writable)
{
	static const uint32_t offsets[] = { 0, 4, PAGE - 4, 2 * PAGE, FILE_BYTES - 7 };

	for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
		uint64_t word = gpa + offsets[i];

		if (read_at(word, 4) != LETTERS("host"))
			fail_row("%x at %u", read_at(word, 4), (uint64_t)offsets[i]);
		for (unsigned size = 1; size <= 4; size *= 2)
			write_at(word, size, LETTERS("gues"));
		if (read_at(word, 4) != (is_writable ? LETTERS("gues") : LETTERS("host")))
			fail_row("%x at %u now", read_at(word, 4), (uint64_t)offsets[i]);
	}
}

static void run_read_only(void)
{
	static const struct {
		const char *name;
		bool writable;
	} files[] = {
		{ "one that its owner can shrink, of which we have a copy", false },
		{ "one that is open for reading", false },
		{ "one that is sealed against writing", false },
		{ "one that is ours, too", true },
	};
	uint64_t gpas[ARRAY_SIZE(files)];

	begin_wl();
	row = "files";
	MUST(ANSWER_OK, SEND, 0, CTX, 0, LETTERS("keys"));
	for (uint32_t i = 0; i < ARRAY_SIZE(files); i++) {
		const volatile uint32_t *words = hear(NEW, HOST_ID + i);

		if (words[6] != FILE_BYTES)
			fail_row("file %u has %u bytes", (uint64_t)i, (uint64_t)words[6]);
		gpas[i] = place(words);
	}
	if (hear(RECV, CTX)[3] != ARRAY_SIZE(files))
		fail_row("other files are told of");
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		row = files[i].name;
		write_file(gpas[i], files[i].writable);
	}
	row = "what the host has";
	MUST(ANSWER_OK, SEND, 0, CTX, 0, LETTERS("seen"));
	const volatile uint32_t *words = hear(RECV, CTX);

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		if (words[4 + i] != (files[i].writable ? LETTERS("gues") : LETTERS("host")))
			fail_row("file %u begins with %x", (uint64_t)i, (uint64_t)words[4 + i]);
	talk();
	rest("end");
}

/* ---- ends ---------------------------------------------------------------------------------- */

static void run_ends(void)
{
	enum { PENDING_MAX = 4 << 20, DATA = sizeof(victims[0].buffers->data) };
	struct victim *out = &victims[OUT];
	unsigned sends = 0;

	begin_wl();
	row = "of a pipe's reader";
	MUST(ANSWER_NEW, NEW_PIPE, 0, PIPE, PIPE_WRITE);
	MUST(ANSWER_OK, SEND, 0, CTX, 1, PIPE, LETTERS("take"));
	must_hear(CTX, LETTERS("t001"));
	MUST(ANSWER_ERR, SEND, 0, PIPE, 0, 1);
	MUST(ANSWER_TYPE, SEND, 0, PIPE, 0, 1);
	MUST(ANSWER_OK, CLOSE, 0, PIPE);
	row = "of the compositor";
	MUST(ANSWER_OK, SEND, 0, CTX, 0, LETTERS("quit"));
	hear(HUP, CTX);
	MUST(ANSWER_TYPE, SEND, 0, CTX, 0, LETTERS("ping"));
	MUST(ANSWER_OK, CLOSE, 0, CTX);
	talk();
	row = "of one that does not read";
	MUST(ANSWER_NEW, NEW_CTX, 0, CTX);
	MUST(ANSWER_OK, SEND, 0, CTX, 0, LETTERS("hush"));
	must_hear(CTX, LETTERS("hush"));
	do {
		memcpy(out->buffers->data, (const uint32_t[]){ SEND, 0, CTX, 0 }, 16);
		set_desc(out, 0, (uintptr_t)out->buffers->data, DATA, NEXT, 1);
		set_desc(out, 1, (uintptr_t)out->buffers->data, 64, WRITE, 0);
		if (submit(out, 0) != 4)
			fail_row("another answer");
		sends++;
	} while (words_of(OUT)[0] == ANSWER_OK && sends < 1000);
	if (words_of(OUT)[0] != ANSWER_ERR || sends < PENDING_MAX / DATA)
		fail_row("%u sends, then %x", (uint64_t)sends, (uint64_t)words_of(OUT)[0]);
	hear(HUP, CTX);
	talk();
	MUST(ANSWER_OK, CLOSE, 0, CTX);
	rest("end");
}

const struct test_case cases[] = {
	{ "commands", run_commands },
	{ "descriptors", run_descriptors },
	{ "reuse", run_reuse },
	{ "read-only", run_read_only },
	{ "ends", run_ends },
	{ NULL, NULL },
};
