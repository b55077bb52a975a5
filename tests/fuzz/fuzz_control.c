// SPDX-License-Identifier: BSD-3-Clause
/*
 * Any bytes as a request on the control socket: a verb, or a fault with a word
 * and a line of plain text, which makes a reply that is JSON. Nothing else, and
 * the JSON library never gets far with what is too complex.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/control_protocol.h"

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	(void)fprintf(stderr, "control: %s\n", what);
	abort();
}

static void check_fault(const struct control_fault *fault)
{
	char buffer[512];
	size_t size = control_reply_write_fault(fault, buffer, sizeof(buffer));
	json_t *reply = json_loadb(buffer, size, JSON_REJECT_DUPLICATES, NULL);

	require(fault->code != NULL && fault->text[0] != '\0', "a refusal without a reason");
	for (const char *c = fault->text; *c != '\0'; c++)
		require(*c >= ' ' && *c <= '~', "a reason that is not plain text");
	require(json_is_false(json_object_get(reply, "ok")), "a fault whose reply is none");
	require(strcmp(json_string_value(json_object_get(reply, "error")), fault->text) == 0,
		"a reason that does not come through");
	json_decref(reply);
}

/* What was taken for a request must be an object of the two fields, those of its verb, and nothing
 * else. */
static void check_request(const char *text, size_t size)
{
	static const char *const own_fields[] = { "size_mib", "index", "size" };
	json_t *request = json_loadb(text, size, 0, NULL);
	size_t own = 0;

	for (size_t i = 0; i < ARRAY_SIZE(own_fields); i++)
		own += json_is_integer(json_object_get(request, own_fields[i]));
	require(json_object_size(request) == 2 + own, "a request with other fields");
	require(json_integer_value(json_object_get(request, "version")) == CONTROL_PROTOCOL_VERSION,
		"a request of another version");
	json_decref(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct control_fault fault = { 0 };
	struct control_request request = { .verb = CONTROL_VERBS };
	int r = control_request_parse((const char *)data, size, &request, &fault);

	require((r == 0) == (request.verb < CONTROL_VERBS),
		"a verb without a request, or the reverse");
	if (r < 0)
		check_fault(&fault);
	else
		check_request((const char *)data, size);
	return 0;
}
