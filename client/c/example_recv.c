//go:build ignore

/*
 * example_recv prints what is in a queue, and what comes, and acks it.
 *
 *     cc -O2 -o example_recv example_recv.c ipcd.c -lnghttp2
 *
 * (The first line keeps Go's tools away from this file.)
 */
#include "ipcd.h"

#include <stdio.h>
#include <stdlib.h>

static const char usage[] = "usage: example_recv QUEUE [MS]\n  Prints and acks messages until none came for MS milliseconds (-1: for ever; 0). QUEUE is a name such as /jobs.\n";

int main(int argc, char **argv)
{
	char text[256] = "";
	struct ipcd_options options = {.text = text, .text_size = sizeof text};
	struct ipcd_receive_options what = {.max_messages = 64, .wait_ms = argc > 2 ? strtoll(argv[2], NULL, 10) : 0};
	struct ipcd_settlement acks[64];
	struct ipcd_deliveries *got;
	struct ipcd_client *c;
	int n;

	if (argc < 2 || argc > 3) {
		fputs(usage, stderr);
		return 2;
	}
	if (ipcd_open(&c, NULL, &options) != 0) {
		fprintf(stderr, "example_recv: %s\n", text);
		return 1;
	}
	while ((n = ipcd_receive(c, argv[1], &what, &got)) > 0) {
		for (size_t i = 0; i < got->count; i++) {
			const struct ipcd_delivery *d = &got->items[i];
			printf("%lld %.*s\n", (long long)d->message.type, (int)d->message.body_size, (const char *)d->message.body);
			acks[i] = (struct ipcd_settlement){.receipt = d->receipt, .outcome = IPCD_ACK};
		}
		fflush(stdout); /* what was printed is done with */
		if (ipcd_settle(c, acks, got->count) != 0)
			fprintf(stderr, "example_recv: %s\n", ipcd_last_error(c)->message);
		ipcd_deliveries_free(got);
	}
	if (n < 0)
		fprintf(stderr, "example_recv: %s\n", ipcd_last_error(c)->message);
	ipcd_close(c);
	return n < 0;
}
