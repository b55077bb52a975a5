// SPDX-License-Identifier: BSD-3-Clause
/*
 * The exact bytes that both generations of ChromeOS' driver say and expect: of
 * 2017, and with TRANS_FLAGS, whose messages are longer and whose flags of a
 * vfd mean something else. A | stands between fields.
 */
#include "unit/wl_commands.h"

enum { BYTES_MAX = 128 };

struct vector {
	const char *command, *answer;
};

static size_t from_hex(const char *hex, uint8_t *ret_bytes)
{
	size_t n = 0;

	for (; *hex != '\0'; hex++) {
		const char digits[3] = { hex[0], hex[1] };

		if (*hex == '|' || *hex == ' ')
			continue;
		assert_true(n < BYTES_MAX);
		ret_bytes[n++] = (uint8_t)strtoul(digits, NULL, 16);
		hex++;
	}
	return n;
}

static void speak(struct wl_rig *rig, const struct vector *vectors, size_t count)
{
	uint8_t command[BYTES_MAX], expected[BYTES_MAX];
	uint32_t answer[8];

	for (size_t i = 0; i < count; i++) {
		size_t size = from_hex(vectors[i].command, command);
		uint32_t got = do_bytes(rig, command, (uint32_t)size, answer);

		assert_int_equal(got, from_hex(vectors[i].answer, expected));
		assert_memory_equal(answer, expected, got);
	}
}

/* What the guest is told from now on, which is all. */
static void hear(struct wl_rig *rig, const char *const *messages, size_t count)
{
	uint8_t expected[BYTES_MAX];
	uint32_t words[1024];

	for (size_t i = 0; i < count; i++) {
		assert_int_equal(next(rig, words), from_hex(messages[i], expected));
		assert_memory_equal(words, expected, from_hex(messages[i], expected));
	}
	assert_int_equal(next(rig, words), 0);
}

/* A compositor sends a file and both ends of a pipe, and then it goes. */
static void send_all_kinds(int compositor)
{
	int fds[] = { memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING), -1, -1 };

	assert_int_equal(ftruncate(fds[0], 4660), 0);
	assert_int_equal(fcntl(fds[0], F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(pipe2(&fds[1], O_CLOEXEC), 0);
	assert_true(rig_send(compositor, "event", 5, fds, ARRAY_SIZE(fds)));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	close(compositor);
}

static void must_have_heard(int fd, const char *hex, unsigned fd_count)
{
	uint8_t expected[BYTES_MAX], heard[BYTES_MAX];
	int fds[64];
	unsigned count;

	assert_int_equal(
		rig_receive(fd, heard, sizeof(heard), fds, &count), from_hex(hex, expected));
	assert_memory_equal(heard, expected, from_hex(hex, expected));
	assert_int_equal(count, fd_count);
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
}

static void the_first_driver(void **state)
{
	static const struct vector vectors[] = {
		{ "04010000|00000000|01000000",
			"01100000|00000000|01000000|04000000|0000000000000000|00000000|00000000" },
		{ "00010000|00000000|02000000|03000000|0000000000000000|00100000",
			"01100000|00000000|02000000|03000000|0000000400000000|00100000|00000000" },
		{ "02010000|00000000|01000000|00000000|01000000 01000c00 02000000", "00100000" },
		{ "02010000|00000000|01000000|01000000|02000000|01000000", "00100000" },
		{ "01010000|00000000|02000000", "00100000" },
		{ "01010000|00000000|02000000", "02110000" },
	};
	static const char *const messages[] = {
		"00010000|00000000|00000040|03000000|0000000400000000|34120000|00000000",
		"00010000|00000000|01000040|00000000|0000000000000000|00000000|00000000",
		"00010000|00000000|02000040|00000000|0000000000000000|00000000|00000000",
		"03010000|00000000|01000000|03000000|00000040|01000040|02000040|6576656e74",
		"06010000|00000000|01000000",
	};
	struct wl_rig *rig = *state;

	speak(rig, vectors, ARRAY_SIZE(vectors));
	int compositor = rig_accept(rig->listeners[0]);

	must_have_heard(compositor, "01000000 01000c00 02000000 01000000", 1);
	send_all_kinds(compositor);
	hear(rig, messages, ARRAY_SIZE(messages));
}

/* The 36 bytes that follow the first 28 of a "new": a dmabuf's or a name, or unused. */
#define REST "|000000000000000000000000000000000000000000000000000000000000000000000000"
/* "other", and the rest of 32 bytes and of the union. */
#define OTHER "|6f74686572000000000000000000000000000000000000000000000000000000|00000000"

static void the_later_driver(void **state)
{
	static const struct vector vectors[] = {
		{ "04010000|00000000|01000000|03000000|0000000000000000|00000000" REST,
			"01100000|00000000|01000000|03000000|0000000000000000|00000000|00000000" },
		{ "00010000|00000000|02000000|00000000|0000000000000000|01100000" REST,
			"01100000|00000000|02000000|00000000|0000000400000000|00200000|00000000" },
		{ "00010000|00000000|03000000|03000000|0000000000000000|00100000" REST,
			"04110000" },
		{ "05010000|00000000|03000000|01000000|0000000000000000|00000000" REST,
			"01100000|00000000|03000000|01000000|0000000000000000|00000000|00000000" },
		{ "05010000|00000000|04000000|02000000|0000000000000000|00000000" REST,
			"01100000|00000000|04000000|02000000|0000000000000000|00000000|00000000" },
		{ "05010000|00000000|05000000|03000000|0000000000000000|00000000" REST,
			"04110000" },
		{ "05010000|00000000|05000000|00000000|0000000000000000|00000000" REST,
			"04110000" },
		{ "0a010000|00000000|05000000|00000000|0000000000000000|00000000" OTHER,
			"01100000|00000000|05000000|03000000|0000000000000000|00000000|00000000" },
		{ "02010000|00000000|01000000|03000000|02000000|03000000|04000000|01000000",
			"00100000" },
		{ "02010000|00000000|05000000|00000000|02000000", "00100000" },
		/* Clients fall back to shared memory only at this answer. */
		{ "07010000|00000000|06000000|00000000|0000000000000000|00000000" REST,
			"05110000" },
		{ "08010000|00000000|02000000|01000000", "05110000" },
		/* With SEND_FENCES an entry has 16 bytes: kind, nothing, id. */
		{ "09010000|00000000|01000000|01000000|00000000|00000000|0200000000000000|01000000",
			"05110000" },
		{ "0b010000|00000000|01000000", "05110000" },
		{ "01010000|00000000|02000000", "00100000" },
		{ "01010000|00000000|02000000", "02110000" },
		{ "01010000|00000000|04000000", "00100000" },
	};
	static const char *const messages[] = {
		"00010000|00000000|00000040|00000000|0000000400000000|34120000|00000000",
		"00010000|00000000|01000040|02000000|0000000000000000|00000000|00000000",
		"00010000|00000000|02000040|01000000|0000000000000000|00000000|00000000",
		"03010000|00000000|01000000|03000000|00000040|01000040|02000040|6576656e74",
		"06010000|00000000|01000000",
	};
	struct wl_rig *rig = *state;

	rig->host->trans_flags = true;
	speak(rig, vectors, ARRAY_SIZE(vectors));
	int compositor = rig_accept(rig->listeners[0]), other = rig_accept(rig->listeners[1]);

	must_have_heard(compositor, "01000000", 3);
	must_have_heard(other, "02000000", 0);
	send_all_kinds(compositor);
	hear(rig, messages, ARRAY_SIZE(messages));
	close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_first_driver),
		TEST(the_later_driver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
