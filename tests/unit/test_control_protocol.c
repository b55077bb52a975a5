// SPDX-License-Identifier: BSD-3-Clause
/*
 * control_protocol: what is a request and what is none, byte by byte; that no
 * request makes the JSON library allocate much; and that replies are JSON.
 */
#include "unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "vm/control_protocol.h"

enum { MESSAGE_MAX = 64 << 10 };

/* ---- what the library allocates ---- */

/* Each block has its size in front. */
static struct {
	size_t now, most;
	unsigned until_failure; /* this many more succeed; 0: all */
} heap;

static void *counted_malloc(size_t size)
{
	if (heap.until_failure != 0 && --heap.until_failure == 0) {
		heap.until_failure = 1;
		return NULL;
	}
	/* calloc, since MemorySanitizer does not see what the library writes. */
	size_t *block = calloc(1, sizeof(max_align_t) + size);

	if (block == NULL)
		return NULL;
	*block = size;
	heap.now += size;
	heap.most = heap.now > heap.most ? heap.now : heap.most;
	return (char *)block + sizeof(max_align_t);
}

static void counted_free(void *pointer)
{
	if (pointer == NULL)
		return;
	size_t *block = (void *)((char *)pointer - sizeof(max_align_t));

	heap.now -= *block;
	free(block);
}

static int count_heap(void **state)
{
	(void)state;
	json_set_alloc_funcs(counted_malloc, counted_free);
	heap.now = heap.most = 0;
	heap.until_failure = 0;
	return 0;
}

static int check_heap(void **state)
{
	(void)state;
	return heap.now != 0;
}

/* ---- requests ---- */

static int parse(
	const char *text, size_t size, struct control_request *ret_request, const char **ret_code)
{
	struct control_fault fault = { 0 };
	/* Exactly as many bytes as there are, so that ASan sees a read beyond. */
	char *copy = malloc(size + (size == 0));

	assert_non_null(copy);
	memcpy(copy, text, size);
	int r = control_request_parse(copy, size, ret_request, &fault);

	free(copy);
	assert_true(r == 0 || r == -EINVAL);
	assert_int_equal(fault.code == NULL, r == 0);
	if (r < 0)
		assert_true(strlen(fault.text) > 0);
	*ret_code = fault.code;
	return r;
}

static void expect_refusal(const char *text, size_t size, const char *code)
{
	struct control_request request = { .verb = CONTROL_VERBS };
	const char *found;

	assert_int_equal(parse(text, size, &request, &found), -EINVAL);
	assert_string_equal(found, code);
	assert_int_equal(request.verb, CONTROL_VERBS);
}

static void every_verb_is_known(void **state)
{
	static const struct {
		const char *text;
		enum control_verb verb;
	} rows[] = {
		{ "{\"version\":1,\"verb\":\"balloon\",\"size_mib\":0}", CONTROL_BALLOON },
		{ "{\"version\":1,\"verb\":\"balloon_stats\"}", CONTROL_BALLOON_STATS },
		{ "{\"version\":1,\"verb\":\"disk_resize\",\"index\":0,\"size\":1}",
			CONTROL_DISK_RESIZE },
		{ "{\"version\":1,\"verb\":\"events\"}", CONTROL_EVENTS },
		{ "{\"version\":1,\"verb\":\"powerbtn\"}", CONTROL_POWERBTN },
		{ "{\"version\":1,\"verb\":\"resume\"}", CONTROL_RESUME },
		{ "{\"version\":1,\"verb\":\"status\"}", CONTROL_STATUS },
		{ "{\"version\":1,\"verb\":\"stop\"}", CONTROL_STOP },
		{ "{\"version\":1,\"verb\":\"suspend\"}", CONTROL_SUSPEND },
		{ "{\"version\":1,\"verb\":\"version\"}", CONTROL_VERSION },
		{ " {\t\"verb\" : \"st\\u006fp\" ,\n\"version\" : 1 }\n", CONTROL_STOP },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct control_request request = { .verb = CONTROL_VERBS };
		const char *code;

		assert_int_equal(parse(rows[i].text, strlen(rows[i].text), &request, &code), 0);
		assert_int_equal(request.verb, rows[i].verb);
	}
}

static void what_is_wrong_is_said(void **state)
{
	static const struct {
		const char *text, *code;
	} rows[] = {
		{ "", "bad-json" },
		{ " ", "bad-json" },
		{ "null", "bad-json" },
		{ "1", "bad-json" },
		{ "\"stop\"", "bad-json" },
		{ "[]", "bad-json" },
		{ "[{\"version\":1,\"verb\":\"stop\"}]", "bad-json" },
		{ "{\"version\":1,\"verb\":\"stop\"} x", "bad-json" },
		{ "{\"version\":1,\"verb\":\"stop\"}{}", "bad-json" },
		{ "{\"version\":1,\"verb\":\"stop\",}", "bad-json" },
		{ "{\"version\":1 \"verb\":\"stop\"}", "bad-json" },
		{ "{version:1,verb:stop}", "bad-json" },
		{ "{\"version\":1,\"verb\":\"stop\",\"verb\":\"status\"}", "bad-json" },
		{ "{\"version\":1,\"verb\":\"st\\u0000op\"}", "bad-json" },
		{ "{\"version\":1,\"verb\":\"\xff\"}", "bad-json" },
		{ "{\"version\":99999999999999999999,\"verb\":\"stop\"}", "bad-json" },
		{ "{\"version\":1e999,\"verb\":\"stop\"}", "bad-json" },
		{ "{}", "bad-version" },
		{ "{\"verb\":\"stop\"}", "bad-version" },
		{ "{\"version\":\"1\",\"verb\":\"stop\"}", "bad-version" },
		{ "{\"version\":1.0,\"verb\":\"stop\"}", "bad-version" },
		{ "{\"version\":true,\"verb\":\"stop\"}", "bad-version" },
		{ "{\"version\":null,\"verb\":\"stop\"}", "bad-version" },
		{ "{\"version\":2,\"verb\":\"stop\"}", "bad-version" },
		{ "{\"version\":0,\"verb\":\"stop\"}", "bad-version" },
		{ "{\"version\":-1,\"verb\":\"stop\"}", "bad-version" },
		{ "{\"version\":4294967297,\"verb\":\"stop\"}", "bad-version" },
		{ "{\"version\":1}", "bad-verb" },
		{ "{\"version\":1,\"verb\":null}", "bad-verb" },
		{ "{\"version\":1,\"verb\":4}", "bad-verb" },
		{ "{\"version\":1,\"verb\":[\"stop\"]}", "bad-verb" },
		{ "{\"version\":1,\"verb\":{\"stop\":1}}", "bad-verb" },
		{ "{\"version\":1,\"verb\":\"\"}", "unknown-verb" },
		{ "{\"version\":1,\"verb\":\"Stop\"}", "unknown-verb" },
		{ "{\"version\":1,\"verb\":\"stop \"}", "unknown-verb" },
		{ "{\"version\":1,\"verb\":\"inflate\"}", "unknown-verb" },
		{ "{\"version\":1,\"verb\":\"balloon\"}", "bad-size" },
		{ "{\"version\":1,\"verb\":\"balloon\",\"size_mib\":-1}", "bad-size" },
		{ "{\"version\":1,\"verb\":\"balloon\",\"size_mib\":1.0}", "bad-size" },
		{ "{\"version\":1,\"verb\":\"balloon\",\"size_mib\":\"1\"}", "bad-size" },
		{ "{\"version\":1,\"verb\":\"balloon\",\"size_mib\":true}", "bad-size" },
		{ "{\"version\":1,\"verb\":\"stop\",\"size_mib\":1}", "unknown-field" },
		{ "{\"version\":1,\"verb\":\"balloon\",\"size\":1,\"size_mib\":1}",
			"unknown-field" },
		{ "{\"version\":1,\"verb\":\"disk_resize\",\"size\":1}", "bad-index" },
		{ "{\"version\":1,\"verb\":\"disk_resize\",\"index\":-1,\"size\":1}", "bad-index" },
		{ "{\"version\":1,\"verb\":\"disk_resize\",\"index\":1,\"size\":1.5}", "bad-size" },
		{ "{\"version\":1,\"verb\":\"disk_resize\",\"index\":1}", "bad-size" },
		{ "{\"version\":1,\"verb\":\"stop\",\"fd\":1}", "unknown-field" },
		{ "{\"version\":1,\"verb\":\"stop\",\"\":null}", "unknown-field" },
		{ "{\"version\":1,\"verb\":\"balloon\",\"x\":[{}]}", "unknown-field" },
		{ "[[[[[", "too-complex" },
		{ "{\"a\":[[[[1]]]]}", "too-complex" },
		{ "{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}", "too-complex" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		expect_refusal(rows[i].text, strlen(rows[i].text), rows[i].code);
	expect_refusal("{\"version\":1,\"verb\":\"stop\"}\0", 28, "bad-json");
}

static void a_request_cut_anywhere_is_none(void **state)
{
	static const char text[] = "{\"version\":1,\"verb\":\"sus\\u0070end\"}";
	struct control_request request;
	const char *code;

	(void)state;
	assert_int_equal(parse(text, sizeof(text) - 1, &request, &code), 0);
	for (size_t size = 0; size < sizeof(text) - 1; size++)
		expect_refusal(text, size, "bad-json");
}

static void a_size_is_taken_whole(void **state)
{
	static const char text[] =
		"{\"version\":1,\"verb\":\"balloon\",\"size_mib\":9223372036854775807}";
	struct control_request request;
	const char *code;

	(void)state;
	assert_int_equal(parse(text, sizeof(text) - 1, &request, &code), 0);
	assert_true(request.size_mib == INT64_MAX);
	static const char two[] =
		"{\"size\":4611686018427387904,\"verb\":\"disk_resize\",\"index\":7,\"version\":1}";

	assert_int_equal(parse(two, sizeof(two) - 1, &request, &code), 0);
	assert_true(request.size == UINT64_C(1) << 62 && request.index == 7);
	assert_int_equal(request.size_mib, 0);
}

/* Any verdict will do; that it is one of ours, and the memory right, parse() sees to. */
static void a_request_with_any_byte_changed(void **state)
{
	char text[] = "{\"version\":1,\"verb\":\"st\\u006fp\"}";
	struct control_request request;
	const char *code;

	(void)state;
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		char right = text[i];

		for (unsigned byte = 0; byte < 256; byte++) {
			text[i] = (char)byte;
			(void)parse(text, sizeof(text) - 1, &request, &code);
		}
		text[i] = right;
	}
}

/* What is said of a word is safe to print and short, whatever the word. */
static void words_of_clients_are_not_repeated_unless_plain(void **state)
{
	static const struct {
		const char *verb, *said;
	} rows[] = {
		{ "fly", "'fly'" },
		{ "\\u001b[2J", "(not ASCII)" },
		{ "\xc3\xa9t\xc3\xa9", "(not ASCII)" },
		{ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "(a long one)" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct control_fault fault;
		struct control_request request;
		char text[128];
		int size = snprintf(
			text, sizeof(text), "{\"version\":1,\"verb\":\"%s\"}", rows[i].verb);

		assert_int_equal(
			control_request_parse(text, (size_t)size, &request, &fault), -EINVAL);
		assert_non_null(strstr(fault.text, rows[i].said));
	}
}

/* Bombs: 64 KiB of what is worst for the library. */
static void no_request_takes_much_memory(void **state)
{
	static const struct {
		const char *begin, *repeat;
		const char *code;
		size_t most;
	} rows[] = {
		{ "", "[", "too-complex", 0 },
		{ "", "{\"a\":", "too-complex", 0 },
		{ "[", "1,", "too-complex", 0 },
		{ "[", "[],", "too-complex", 0 },
		{ "{\"a\":[", "{},", "too-complex", 0 },
		{ "", "\\\"[", "bad-json", 4096 },
		{ "\"\\\"", "[", "bad-json", 3 * MESSAGE_MAX },
		{ "\"", "a", "bad-json", 3 * MESSAGE_MAX },
		{ "\"", "\\\\", "bad-json", 3 * MESSAGE_MAX },
		{ "{\"version\":1,\"", "b", "bad-json", 3 * MESSAGE_MAX },
		{ "{\"version\":", "9", "bad-json", 3 * MESSAGE_MAX },
		{ "{\"version\":0.", "9", "bad-json", 3 * MESSAGE_MAX },
		{ "", " ", "bad-json", 4096 },
		{ "", "]", "bad-json", 4096 },
	};
	static char text[MESSAGE_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		size_t at = strlen(rows[i].begin);
		size_t step = strlen(rows[i].repeat);

		memcpy(text, rows[i].begin, at);
		for (; at + step <= sizeof(text); at += step)
			memcpy(text + at, rows[i].repeat, step);
		heap.most = 0;
		expect_refusal(text, at, rows[i].code);
		assert_true(heap.most <= rows[i].most);
	}
}

static void the_limits_are_the_limits(void **state)
{
	char text[256] = "{\"x\":[1";
	int size = (int)strlen(text);

	(void)state;
	/* The object, the colon, the array: 3; and commas up to the limit. */
	for (unsigned values = 3; values < CONTROL_VALUES_MAX; values++)
		size += snprintf(text + size, sizeof(text) - (size_t)size, ",1");
	(void)snprintf(text + size, sizeof(text) - (size_t)size, "]}");
	expect_refusal(text, strlen(text), "bad-version");
	(void)snprintf(text + size, sizeof(text) - (size_t)size, ",1]}");
	expect_refusal(text, strlen(text), "too-complex");
	/* Closed ones do not nest. */
	expect_refusal("[[],[],[],[],[],[[[]]]]", 23, "bad-json");
	expect_refusal("[[],[],[],[],[],[[[[]]]]]", 25, "too-complex");
}

/* ---- replies ---- */

static json_t *read_back(const char *text, size_t size)
{
	json_t *object = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(object);
	assert_int_equal(json_integer_value(json_object_get(object, "version")), 1);
	return object;
}

static void replies_have_an_envelope(void **state)
{
	struct control_fault fault = { .code = "some-code", .text = "a \"text\" \\ of ours" };
	char buffer[256];

	(void)state;
	size_t size = control_reply_write(json_pack("{s:i}", "x", 7), buffer, sizeof(buffer));
	json_t *reply = read_back(buffer, size);

	assert_true(json_is_true(json_object_get(reply, "ok")));
	assert_int_equal(json_integer_value(json_object_get(reply, "x")), 7);
	json_decref(reply);
	size = control_reply_write_fault(&fault, buffer, sizeof(buffer));
	reply = read_back(buffer, size);
	assert_true(json_is_false(json_object_get(reply, "ok")));
	assert_string_equal(json_string_value(json_object_get(reply, "code")), fault.code);
	assert_string_equal(json_string_value(json_object_get(reply, "error")), fault.text);
	json_decref(reply);
	size = control_event_write(json_pack("{s:s}", "event", "boot"), buffer, sizeof(buffer));
	reply = read_back(buffer, size);
	assert_null(json_object_get(reply, "ok"));
	assert_string_equal(json_string_value(json_object_get(reply, "event")), "boot");
	json_decref(reply);
}

static void a_reply_that_does_not_fit_is_an_error(void **state)
{
	static char long_text[300];
	char buffer[128];

	(void)state;
	memset(long_text, 'x', sizeof(long_text) - 1);
	size_t size = control_reply_write(json_pack("{s:s}", "x", long_text), buffer, 128);
	json_t *reply = read_back(buffer, size);

	assert_string_equal(json_string_value(json_object_get(reply, "code")), "no-memory");
	json_decref(reply);
}

/* Every allocation fails once, in turn: a reply comes all the same, and nothing is lost. */
static void there_is_always_a_reply(void **state)
{
	struct control_fault fault = { .code = "c", .text = "t" };
	unsigned failures = 0;
	char buffer[256];

	(void)state;
	for (unsigned i = 1; i < 60; i++) {
		struct control_request request;
		const char *code;

		heap.until_failure = i;
		json_t *fields = json_pack("{s:i}", "x", 7);
		size_t size = control_reply_write(fields, buffer, sizeof(buffer));

		assert_true(size > 0 && size <= sizeof(buffer));
		heap.until_failure = i;
		size = control_reply_write_fault(&fault, buffer, sizeof(buffer));
		assert_true(size > 0 && size <= sizeof(buffer));
		heap.until_failure = i;
		failures += parse("{\"version\":1,\"verb\":\"stop\"}", 27, &request, &code) < 0;
		heap.until_failure = 0;
		assert_int_equal(heap.now, 0);
	}
	assert_true(failures > 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, count_heap, check_heap)
	const struct CMUnitTest tests[] = {
		TEST(every_verb_is_known),
		TEST(what_is_wrong_is_said),
		TEST(a_size_is_taken_whole),
		TEST(a_request_cut_anywhere_is_none),
		TEST(a_request_with_any_byte_changed),
		TEST(words_of_clients_are_not_repeated_unless_plain),
		TEST(no_request_takes_much_memory),
		TEST(the_limits_are_the_limits),
		TEST(replies_have_an_envelope),
		TEST(a_reply_that_does_not_fit_is_an_error),
		TEST(there_is_always_a_reply),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
