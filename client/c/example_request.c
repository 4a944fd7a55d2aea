//go:build ignore

/*
 * example_request asks and answers.
 *
 *     cc -O2 -o example_request example_request.c ipcd.c -lnghttp2
 *     ./example_request -serve /upper 1000000 &
 *     ./example_request /upper hello
 *
 * (The first line keeps Go's tools away from this file.)
 */
#include "ipcd.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"usage: example_request QUEUE TEXT\n"
	"       example_request -serve QUEUE N\n"
	"  Sends a text and prints the answer; or answers N requests, in capitals.\n";

static int ask(struct ipcd_client *c, const char *queue, const char *text)
{
	struct ipcd_message request = {.body = text, .body_size = strlen(text)};
	struct ipcd_deliveries *reply;
	int result = ipcd_request(c, queue, &request, &reply);
	if (result < 0)
		return result;
	printf("%.*s\n", (int)reply->items[0].message.body_size, (const char *)reply->items[0].message.body);
	ipcd_deliveries_free(reply);
	return 0;
}

static int serve(struct ipcd_client *c, const char *queue)
{
	struct ipcd_receive_options next = {.wait_ms = IPCD_FOREVER};
	struct ipcd_deliveries *got;
	int result = ipcd_receive(c, queue, &next, &got);
	if (result < 0)
		return result;
	const struct ipcd_delivery *request = &got->items[0];
	size_t size = request->message.body_size;
	char *text = malloc(size + 1);
	for (size_t i = 0; text != NULL && i < size; i++)
		text[i] = (char)toupper(((const unsigned char *)request->message.body)[i]);
	struct ipcd_message reply = {.body = text, .body_size = size};
	result = text == NULL ? -1 : ipcd_reply(c, request, &reply);
	/* Done, also where whoever asked is gone, and its temporary queue with it. If only the answer did not get through,
	 * the request comes again. */
	if (result == 0 || ((result == -ENOENT || result == -EIDRM) && strncmp(request->message.reply_to, "/tmp.", 5) == 0))
		result = ipcd_ack(c, request->receipt);
	free(text);
	ipcd_deliveries_free(got);
	return result;
}

int main(int argc, char **argv)
{
	char text[256] = "";
	struct ipcd_options options = {.text = text, .text_size = sizeof text};
	struct ipcd_client *c;
	int serving = argc == 4 && strcmp(argv[1], "-serve") == 0, result = 0;

	if (argc != 3 && !serving) {
		fputs(usage, stderr);
		return 2;
	}
	if (ipcd_open(&c, NULL, &options) != 0) {
		fprintf(stderr, "example_request: %s\n", text);
		return 1;
	}
	if (!serving)
		result = ask(c, argv[1], argv[2]);
	for (long i = 0; serving && result == 0 && i < strtol(argv[3], NULL, 10); i++)
		result = serve(c, argv[2]);
	if (result < 0)
		fprintf(stderr, "example_request: %s: %s\n", argv[serving ? 2 : 1], ipcd_last_error(c)->message);
	ipcd_close(c);
	return result < 0;
}
