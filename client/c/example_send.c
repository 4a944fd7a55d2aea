//go:build ignore

/*
 * example_send sends each line of its input to a queue, in batches.
 *
 *     cc -O2 -o example_send example_send.c ipcd.c -lnghttp2
 *
 * (The first line keeps Go's tools away from this file.)
 */
#define _GNU_SOURCE
#include "ipcd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64

static const char usage[] = "usage: example_send QUEUE [TYPE] < LINES\n  Sends each line as a message of type TYPE (1). QUEUE is a name such as /jobs.\n";

int main(int argc, char **argv)
{
	struct ipcd_message batch[BATCH];
	char *lines[BATCH], text[256] = "";
	struct ipcd_options options = {.text = text, .text_size = sizeof text};
	struct ipcd_client *c;
	int64_t type = argc > 2 ? strtoll(argv[2], NULL, 10) : 1;
	int failed = 0;

	if (argc < 2 || argc > 3 || type < 1) {
		fputs(usage, stderr);
		return 2;
	}
	if (ipcd_open(&c, NULL, &options) != 0) {
		fprintf(stderr, "example_send: %s\n", text);
		return 1;
	}
	for (int more = 1; more && !failed;) {
		size_t n = 0, room = 0;
		ssize_t length;
		memset(batch, 0, sizeof batch);
		for (; n < BATCH; n++) {
			lines[n] = NULL;
			length = getline(&lines[n], &room, stdin);
			if (length < 0)
				break;
			room = 0; /* the next line gets memory of its own */
			batch[n].type = type;
			batch[n].body = lines[n];
			batch[n].body_size = (size_t)length - (lines[n][length - 1] == '\n');
		}
		more = n == BATCH;
		if (n > 0 && ipcd_send(c, argv[1], batch, n, NULL) != 0) {
			fprintf(stderr, "example_send: %s: %s\n", argv[1], ipcd_last_error(c)->message);
			failed = 1;
		}
		for (size_t i = 0; i < n + !more; i++)
			free(lines[i]);
	}
	ipcd_close(c);
	return failed;
}
