// SPDX-License-Identifier: BSD-3-Clause
/* Requests come from clients of the control socket and may be any bytes. */
#include "vm/control_protocol.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const verb_names[CONTROL_VERBS] = {
	[CONTROL_BALLOON] = "balloon",
	[CONTROL_BALLOON_STATS] = "balloon_stats",
	[CONTROL_DISK_RESIZE] = "disk_resize",
	[CONTROL_EVENTS] = "events",
	[CONTROL_POWERBTN] = "powerbtn",
	[CONTROL_RESUME] = "resume",
	[CONTROL_STATUS] = "status",
	[CONTROL_STOP] = "stop",
	[CONTROL_SUSPEND] = "suspend",
	[CONTROL_VERSION] = "version",
};

void control_fault_set(struct control_fault *fault, const char *code, const char *format, ...)
{
	va_list args;

	fault->code = code;
	va_start(args, format);
	(void)vsnprintf(fault->text, sizeof(fault->text), format, args);
	va_end(args);
}

/* ---- requests ---- */

/* From an opening quote to the closing one, or beyond the end. */
static size_t skip_string(const char *text, size_t size, size_t at)
{
	for (at++; at < size && text[at] != '"'; at++)
		if (text[at] == '\\')
			at++;
	return at;
}

/*
 * Whether the text, if it is JSON, is one that a request can be: what the
 * library makes of it grows with what is counted here.
 */
static bool is_modest(const char *text, size_t size)
{
	unsigned depth = 0, values = 0;

	for (size_t i = 0; i < size; i++) {
		switch (text[i]) {
		case '"':
			i = skip_string(text, size, i);
			break;
		case '{':
		case '[':
			depth++;
			values++;
			break;
		case '}':
		case ']':
			depth -= depth > 0;
			break;
		case ',':
		case ':':
			values++;
			break;
		default:
			break;
		}
		if (depth > CONTROL_DEPTH_MAX || values > CONTROL_VALUES_MAX)
			return false;
	}
	return true;
}

/* What a client said, if it can be said in a message: a short word of plain letters. */
static const char *speakable(const char *word)
{
	size_t length = strlen(word);

	if (length > 40)
		return "(a long one)";
	for (size_t i = 0; i < length; i++)
		if (word[i] < ' ' || word[i] > '~')
			return "(not ASCII)";
	return word;
}

static int refuse(struct control_fault *fault, const char *code, const char *what)
{
	control_fault_set(fault, code, "%s", what);
	return -EINVAL;
}

static int take_verb(const char *name, enum control_verb *ret_verb, struct control_fault *fault)
{
	for (unsigned i = 0; i < CONTROL_VERBS; i++) {
		if (strcmp(name, verb_names[i]) != 0)
			continue;
		*ret_verb = i;
		return 0;
	}
	control_fault_set(fault, "unknown-verb", "unknown verb '%s'", speakable(name));
	return -EINVAL;
}

/* Those that only some verbs have, and must have: integers of 0 or more. */
static const struct field {
	const char *name;
	enum control_verb verb;
	size_t offset; /* of its uint64_t in struct control_request */
	const char *code;
} own_fields[] = {
	{ "size_mib", CONTROL_BALLOON, offsetof(struct control_request, size_mib), "bad-size" },
	{ "index", CONTROL_DISK_RESIZE, offsetof(struct control_request, index), "bad-index" },
	{ "size", CONTROL_DISK_RESIZE, offsetof(struct control_request, size), "bad-size" },
};

static bool is_known(const char *name, enum control_verb verb)
{
	for (size_t i = 0; i < ARRAY_SIZE(own_fields); i++)
		if (own_fields[i].verb == verb && strcmp(own_fields[i].name, name) == 0)
			return true;
	return strcmp(name, "version") == 0 || strcmp(name, "verb") == 0;
}

static int take_field(const json_t *json, const struct field *field,
	struct control_request *request, struct control_fault *fault)
{
	const json_t *value = json_object_get(json, field->name);

	if (!json_is_integer(value) || json_integer_value(value) < 0) {
		control_fault_set(fault, field->code, "'%s' is missing or no integer of 0 or more",
			field->name);
		return -EINVAL;
	}
	uint64_t number = (uint64_t)json_integer_value(value);

	memcpy((char *)request + field->offset, &number, sizeof(number));
	return 0;
}

static int take_fields(json_t *json, struct control_request *request, struct control_fault *fault)
{
	const char *name;
	json_t *value;
	int r = 0;

	json_object_foreach(json, name, value)
	{
		if (is_known(name, request->verb))
			continue;
		control_fault_set(fault, "unknown-field", "unknown field '%s'", speakable(name));
		return -EINVAL;
	}
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(own_fields); i++)
		if (own_fields[i].verb == request->verb)
			r = take_field(json, &own_fields[i], request, fault);
	return r;
}

static int take_request(
	json_t *json, struct control_request *ret_request, struct control_fault *fault)
{
	const json_t *version = json_object_get(json, "version");
	const json_t *verb = json_object_get(json, "verb");
	struct control_request taken = { 0 };

	if (!json_is_integer(version))
		return refuse(fault, "bad-version", "'version' is missing or not an integer");
	if (json_integer_value(version) != CONTROL_PROTOCOL_VERSION)
		return refuse(fault, "bad-version", "this crosvm speaks version 1");
	if (!json_is_string(verb))
		return refuse(fault, "bad-verb", "'verb' is missing or not a string");
	int r = take_verb(json_string_value(verb), &taken.verb, fault);

	if (r == 0)
		r = take_fields(json, &taken, fault);
	if (r == 0)
		*ret_request = taken;
	return r;
}

int control_request_parse(const char *text, size_t size, struct control_request *ret_request,
	struct control_fault *ret_fault)
{
	json_error_t error = { 0 };

	if (!is_modest(text, size))
		return refuse(
			ret_fault, "too-complex", "more values or nesting than any request has");
	json_t *request = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);

	if (request == NULL && json_error_code(&error) == json_error_out_of_memory)
		return refuse(ret_fault, "no-memory", "crosvm is out of memory");
	if (request == NULL) {
		control_fault_set(ret_fault, "bad-json", "no JSON object: line %d, column %d",
			error.line, error.column);
		return -EINVAL;
	}
	int r = -EINVAL;

	if (json_is_object(request))
		r = take_request(request, ret_request, ret_fault);
	else
		control_fault_set(ret_fault, "bad-json", "the request is not an object");
	json_decref(request);
	return r;
}

/* ---- replies ---- */

/* When there is no memory to say anything else. */
static size_t write_constant(char *buffer)
{
	static const char text[] = "{\"version\":1,\"ok\":false,\"code\":\"no-memory\","
				   "\"error\":\"crosvm is out of memory\"}";

	memcpy(buffer, text, sizeof(text) - 1);
	return sizeof(text) - 1;
}

static size_t write_object(json_t *object, char *buffer, size_t size)
{
	size_t length = 0;

	if (object != NULL)
		length = json_dumpb(object, buffer, size, JSON_COMPACT);
	json_decref(object);
	return length == 0 || length > size ? write_constant(buffer) : length;
}

/* The envelope first, for those who read by eye. Takes `fields`. */
static json_t *wrap(json_t *envelope, json_t *fields)
{
	if (envelope != NULL && (fields == NULL || json_object_update(envelope, fields) < 0)) {
		json_decref(envelope);
		envelope = NULL;
	}
	json_decref(fields);
	return envelope;
}

size_t control_reply_write(json_t *fields, char *buffer, size_t size)
{
	json_t *envelope = json_pack("{s:i, s:b}", "version", CONTROL_PROTOCOL_VERSION, "ok", 1);

	return write_object(wrap(envelope, fields), buffer, size);
}

size_t control_reply_write_fault(const struct control_fault *fault, char *buffer, size_t size)
{
	json_t *reply = json_pack("{s:i, s:b, s:s, s:s}", "version", CONTROL_PROTOCOL_VERSION, "ok",
		0, "code", fault->code, "error", fault->text);

	return write_object(reply, buffer, size);
}

size_t control_event_write(json_t *fields, char *buffer, size_t size)
{
	json_t *envelope = json_pack("{s:i}", "version", CONTROL_PROTOCOL_VERSION);

	return write_object(wrap(envelope, fields), buffer, size);
}
